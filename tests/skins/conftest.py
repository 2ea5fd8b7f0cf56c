"""Fixtures of the skins: several ranks, and the helpers next to this file as modules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # reference, snippets; ranks.py does the same


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """The models are so small that threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run_ranks(tmp_path: Path) -> Callable[..., list[Any]]:
    """``run_ranks(function, **kwargs)``: its results on two gloo ranks, see :mod:`ranks`."""
    from ranks import run_ranks as run

    calls = iter(range(100))

    def two_ranks(function: Callable[..., Any], **kwargs: Any) -> list[Any]:
        return run(function, 2, tmp_path / f"ranks-{next(calls)}", **kwargs)

    return two_ranks
