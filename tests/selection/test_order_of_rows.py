"""The greedy methods keep the same rows in whatever order a file lists them, also without ids."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from codeact.selection.deita import Deita
from codeact.selection.facility_location import FacilityLocation
from codeact.selection.kcenter import KCenter
from codeact.selection.parametric import Parametric
from codeact.selection.rds import RDSPlus
from codeact.selection.rows import Rows
from codeact.selection.selector import Selector
from codeact.selection.superfilter_d import SuperfilterD

# Scores ride along as the first two columns of a matrix whose rows are shuffled.
FITS: dict[str, Callable[[NDArray[np.float32]], Selector]] = {
    "kcenter": lambda x: KCenter(90).fit(x[:, 2:]),
    "facility-location": lambda x: FacilityLocation(90).fit(x[:, 2:]),
    "parts": lambda x: FacilityLocation(90, partitions=4).fit(x[:, 2:]),
    "parametric": lambda x: Parametric(90, num_steps=30).fit(x[:, 2:]),
    "batches": lambda x: Parametric(90, num_steps=30, batch_rows=64).fit(x[:, 2:]),
    "farthest": lambda x: Parametric(90, num_steps=30, init="farthest").fit(x[:, 2:]),
    "deita": lambda x: Deita(90, threshold=0.3).fit(x[:, 0], x[:, 1], x[:, 2:]),
    "superfilter-d": lambda x: SuperfilterD(30).fit(x[:, 0], x[:, 2:]),
}


def make_rows() -> NDArray[np.float32]:
    """Many equal scores, and some rows whose embeddings are close to another's."""
    rng = np.random.default_rng(0)
    scores = rng.integers(1, 5, size=(400, 2)) / 5
    centres = rng.normal(size=(10, 16))[np.arange(400) % 10]
    points = centres + 0.6 * rng.normal(size=(400, 16))
    points[350:] = points[:50] + 1e-4 * rng.normal(size=(50, 16))
    return np.hstack([scores, points]).astype(np.float32)


@pytest.mark.parametrize("method", FITS)
def test_shuffled_rows_without_ids(method: str) -> None:
    rows = make_rows()
    shuffle = np.random.default_rng(1).permutation(len(rows))
    first, second = FITS[method](rows), FITS[method](rows[shuffle])
    assert first.selected_.tolist() == shuffle[second.selected_].tolist()
    assert np.array(first.reasons_)[shuffle].tolist() == list(second.reasons_)


@pytest.mark.parametrize("method", FITS)
def test_two_threads_keep_what_one_keeps(method: str) -> None:
    rows = make_rows()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = FITS[method](rows).selected_.tolist()
        torch.set_num_threads(2)
        assert FITS[method](rows).selected_.tolist() == one
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("method", ["kcenter", "parametric", "rds+"])
def test_a_read_only_file_of_embeddings_needs_no_warning(method: str, tmp_path: Path) -> None:
    points = make_rows()[:, 2:].copy()
    points = points[Rows(len(points), content=points).order]  # so that no copy is made to arrange
    np.save(tmp_path / "points.npy", points)
    mapped = np.load(tmp_path / "points.npy", mmap_mode="r")
    fits: dict[str, Callable[[NDArray[np.float32]], Selector]] = {
        "kcenter": lambda x: KCenter(20).fit(x),
        "parametric": lambda x: Parametric(20, num_steps=2).fit(x),
        "rds+": lambda x: RDSPlus(20).fit(x, points[:3]),
    }
    was_always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = fits[method](mapped)
    finally:
        torch.set_warn_always(was_always)
    assert found.selected_.tolist() == fits[method](points).selected_.tolist()
