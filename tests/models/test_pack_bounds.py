"""What is remembered of a tensor is what it holds now."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

from codeact.models.attention import pack_bounds
from codeact.models.attention.pack_bounds import bounds_of, max_seqlen_of, once_per_tensor


@pytest.fixture
def remembering(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU."""
    monkeypatch.setattr(pack_bounds, "_REMEMBERED_ON", ("cpu",))


def counted(calls: list[int]) -> object:
    def compute(tensor: Tensor) -> int:
        calls.append(1)
        return int(tensor.sum())

    return compute


@pytest.mark.usefixtures("remembering")
def test_computes_once_until_written_to() -> None:
    bounds, calls = torch.tensor([0, 3, 9]), []
    assert [once_per_tensor(bounds, "sum", counted(calls)) for _ in range(3)] == [12, 12, 12]
    assert len(calls) == 1
    bounds[1] = 5
    assert once_per_tensor(bounds, "sum", counted(calls)) == 14
    assert len(calls) == 2


@pytest.mark.usefixtures("remembering")
def test_tensors_and_results_are_told_apart() -> None:
    first, second = torch.tensor([0, 3, 9]), torch.tensor([0, 4, 9])
    assert [bounds_of(first), bounds_of(second)] == [[0, 3, 9], [0, 4, 9]]
    assert [max_seqlen_of(first, None), max_seqlen_of(second, None)] == [6, 5]
    assert max_seqlen_of(first, 7) == 7
    assert bounds_of(first) == [0, 3, 9]


@pytest.mark.usefixtures("remembering")
def test_nothing_outlives_its_tensor() -> None:
    bounds = torch.tensor([0, 3, 9])
    before = len(pack_bounds._KNOWN)
    bounds_of(bounds)
    assert len(pack_bounds._KNOWN) == before + 1
    del bounds
    gc.collect()
    assert len(pack_bounds._KNOWN) == before


@pytest.mark.usefixtures("remembering")
def test_inference_tensors_are_read_each_time() -> None:
    with torch.inference_mode():
        bounds = torch.tensor([0, 3, 9])
        assert bounds_of(bounds) == [0, 3, 9]
        bounds[1] = 5  # leaves no trace
        assert bounds_of(bounds) == [0, 5, 9]


def test_memory_that_numpy_writes_is_read_each_time() -> None:
    bounds = torch.tensor([0, 3, 9])
    assert bounds_of(bounds) == [0, 3, 9]
    bounds.numpy()[1] = 5
    assert bounds_of(bounds) == [0, 5, 9]
    assert max_seqlen_of(bounds, None) == 5
