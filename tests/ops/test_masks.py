"""Masks from boundaries agree with each other, with PyTorch's, and with the plain definition."""

from __future__ import annotations

import pickle
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from accelerate.utils import send_to_device
from hypothesis import given, settings
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention

from codeact.ops import block_mask, dense_mask, pack_sequences, seq_idx

# Empty sequences stand in the middle and at the end, as fixed shapes have them.
SEQLENS = st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any)
WINDOWS = st.none() | st.integers(1, 50)


def boundaries(seqlens: list[int]) -> torch.Tensor:
    return torch.tensor(np.cumsum([0, *seqlens]), dtype=torch.int32)


def visible(seqlens: list[int], window: int | None) -> np.ndarray:
    """The definition: same sequence, not ahead, not beyond the window."""
    seq = np.repeat(np.arange(len(seqlens)), seqlens)
    distance = np.arange(len(seq))[:, None] - np.arange(len(seq))
    return (seq[:, None] == seq) & (distance >= 0) & (distance < (window or len(seq)))


def blocks(mask: Any, name: str) -> list[list[int]]:
    counts, indices = getattr(mask, f"{name}_num_blocks"), getattr(mask, f"{name}_indices")
    return [row[:n].tolist() for row, n in zip(indices[0, 0], counts[0, 0], strict=True)]


@given(SEQLENS, WINDOWS)
def test_dense_is_the_definition(seqlens: list[int], window: int | None) -> None:
    expected = visible(seqlens, window)
    mask = dense_mask(boundaries(seqlens), sliding_window=window)
    assert mask.shape == (1, 1, *expected.shape)
    assert (mask[0, 0].numpy() == expected).all()
    additive = dense_mask(boundaries(seqlens), sliding_window=window, dtype=torch.bfloat16)
    assert ((additive[0, 0] == 0).numpy() == expected).all()
    assert (additive[~mask] == torch.finfo(torch.bfloat16).min).all()


@settings(deadline=None, max_examples=150)
@given(SEQLENS, WINDOWS, st.sampled_from([1, 2, 3, 8, 16, 128]))
def test_blocks_are_those_that_pytorch_finds(
    seqlens: list[int], window: int | None, block_size: int
) -> None:
    expected = torch.from_numpy(visible(seqlens, window))
    mask = block_mask(boundaries(seqlens), block_size=block_size, sliding_window=window)
    theirs = create_block_mask(
        lambda batch, head, query, key: expected[query, key],
        1, 1, *expected.shape, device="cpu", BLOCK_SIZE=block_size,
    )  # fmt: skip
    for name in ("kv", "full_kv", "q", "full_q"):
        assert blocks(mask, name) == blocks(theirs, name), name
    assert mask.shape == theirs.shape
    assert mask.BLOCK_SIZE == theirs.BLOCK_SIZE
    assert (mask.to_dense() == theirs.to_dense()).all()
    inside = create_mask(mask.mask_mod, 1, 1, *expected.shape, device="cpu")
    assert (inside[0, 0] == expected).all()


@given(SEQLENS)
def test_seq_idx_counts_sequences(seqlens: list[int]) -> None:
    index = seq_idx(boundaries(seqlens))
    assert index.dtype == torch.int32
    assert index.tolist() == np.repeat(np.arange(len(seqlens)), seqlens).tolist()


def test_all_agree_with_the_batch() -> None:
    rows = [np.arange(3, 3 + n) for n in (5, 1, 7)]
    batch = pack_sequences(rows, rows)
    assert batch.model_inputs()["seq_idx"][0].tolist() == seq_idx(batch.cu_seqlens).tolist()
    dense = dense_mask(batch.cu_seqlens)[0, 0]
    assert dense.sum(dim=1).tolist() == (batch.position_ids + 1).tolist()


def test_a_block_mask_never_calls_its_mask_function(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("the mask function was evaluated")

    monkeypatch.setattr("codeact.ops.masks._sees", refuse)
    mask = block_mask(boundaries([300, 200]))
    # Row 2 has queries 256 to 383 and both sequences in it; row 3 begins after 300.
    assert blocks(mask, "kv") == [[0], [1], [0, 1, 2], [2, 3]]
    assert blocks(mask, "full_kv") == [[], [0], [], []]


def test_a_block_mask_travels_whole() -> None:
    mask = block_mask(boundaries([3, 4]), block_size=2)
    sent = send_to_device({"mask": mask}, "meta", non_blocking=True)["mask"]  # as loaders do
    for copy in (pickle.loads(pickle.dumps(mask)), mask.to("cpu").to("meta"), sent):
        assert type(copy) is type(mask)
        assert copy.mask_mod.args[0].shape == (7,)
    assert sent.mask_mod.args[0].is_meta
    assert sent.kv_indices.is_meta
    copied = create_mask(pickle.loads(pickle.dumps(mask)).mask_mod, 1, 1, 7, 7, device="cpu")
    assert (copied == dense_mask(boundaries([3, 4]))).all()


@pytest.mark.parametrize(
    ("cu_seqlens", "options", "message"),
    [
        ([0], {}, "must rise from 0"),
        ([1, 3], {}, "must rise from 0"),
        ([0, 0], {}, "must rise from 0"),
        ([0, 3, 2], {}, "must rise from 0"),
        ([[0, 3]], {}, "must be a row of integers"),
        ([0.0, 3.0], {}, "must be a row of integers"),
        ([0, 3], {"sliding_window": 0}, "sliding_window must be at least 1"),
    ],
    ids=["none", "start", "no-token", "falls", "2-D", "float", "window"],
)
@pytest.mark.parametrize("make", [dense_mask, block_mask])
def test_refused(make: Any, cu_seqlens: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(torch.tensor(cu_seqlens), **options)


def test_refused_options() -> None:
    with pytest.raises(ValueError, match="block_size must be at least 1, got 0"):
        block_mask(boundaries([3]), block_size=0)
    with pytest.raises(ValueError, match=r"dtype must be torch\.bool or a floating type"):
        dense_mask(boundaries([3]), dtype=torch.int64)


@pytest.mark.gpu
def test_a_kernel_reads_the_block_mask() -> None:
    mask = block_mask(boundaries([300, 1, 411]), sliding_window=150)
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 4, 712, 64, device="cuda", dtype=torch.float64).float()
    compiled = torch.compile(flex_attention)
    output = compiled(query, key, value, block_mask=mask.to("cuda"))
    dense = dense_mask(boundaries([300, 1, 411]), sliding_window=150, device="cuda")
    expected = torch.nn.functional.scaled_dot_product_attention(
        query.double(), key.double(), value.double(), attn_mask=dense
    )
    assert (output - expected).abs().max() <= 1e-2  # TensorFloat-32 products
