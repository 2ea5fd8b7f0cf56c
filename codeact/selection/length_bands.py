"""Drawing rows at the length profile of a reference, band by band."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeact.selection.budget import split_by_largest_remainder
from codeact.selection.selector import SelectionReport

Lengths = NDArray[np.float64]
RowIndices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LengthMatchReport(SelectionReport):
    """How close the draw came to the reference; ``num_eligible`` is the size of the pool.

    Attributes:
        num_strata: Bands of length in use.
        num_borrowed: Rows taken from outside their band because it had run out.
        overlap: Rows that are in the reference too.
        expected_overlap: Its mean over seeds for as many rows of each band as were kept. Close to
            ``num_kept`` means that the pool leaves no choice at these lengths and the baseline says
            little.
        mean_reference, mean_random, median_reference, median_random: Lengths.
        ks_distance: Largest gap between the two distribution functions of length, in [0, 1].
    """

    num_strata: int
    num_borrowed: int
    overlap: int
    expected_overlap: float
    mean_reference: float
    mean_random: float
    median_reference: float
    median_random: float
    ks_distance: float


class LengthBands:
    """The quantile bands of a reference's lengths; equal lengths share a band.

    Attributes:
        edges: (num_bands - 1,) inner edges; band k holds edges[k - 1] <= length < edges[k].
        sizes: (num_bands,) int64, reference rows in each band.
        low, high: (num_bands,) shortest and longest reference length of each band.
    """

    def __init__(self, reference_lengths: Lengths, num_strata: int) -> None:
        cuts = np.linspace(0, 1, num_strata + 1)[1:-1]
        edges = np.unique(np.quantile(reference_lengths, cuts, method="inverted_cdf"))
        # An edge at the shortest length would open an empty band below it.
        self.edges = edges[edges > reference_lengths.min()]
        ordered = np.sort(reference_lengths)
        starts = np.concatenate([[0], np.searchsorted(ordered, self.edges)])
        ends = np.concatenate([starts[1:], [len(ordered)]])
        self.sizes = ends - starts
        self.low, self.high = ordered[starts], ordered[ends - 1]

    def __len__(self) -> int:
        return len(self.sizes)

    def share(self, total: int) -> RowIndices:
        """How many of ``total`` rows each band gets, by its rows in the reference."""
        # Largest remainder hands out at most the sizes, so they are made large enough; an equal
        # factor changes no share.
        enough = self.sizes * -(-total // int(self.sizes.sum()))
        return split_by_largest_remainder(total, enough, np.arange(len(self)))

    def place(self, lengths: Lengths) -> RowIndices:
        """Band of each length; -1 outside the range of the reference."""
        bands = np.searchsorted(self.edges, lengths, side="right")
        return np.where((lengths < self.low[0]) | (lengths > self.high[-1]), -1, bands)


def draw_from_bands(
    bands: LengthBands, wanted: RowIndices, lengths: Lengths, shuffled: RowIndices
) -> RowIndices:
    """The first ``wanted`` rows of each band, or all that the shuffled pool has there."""
    placed = bands.place(lengths[shuffled])
    picks = [shuffled[placed == band][:count] for band, count in enumerate(wanted)]
    return np.concatenate(picks)


def borrow_nearest(
    bands: LengthBands, wanted: RowIndices, lengths: Lengths, free: RowIndices, drawn: RowIndices
) -> RowIndices:
    """For bands that ran out: the free rows nearest in length, of equal ones the first listed."""
    missing = wanted - np.bincount(bands.place(lengths[drawn]), minlength=len(bands))
    borrowed = [np.empty(0, dtype=np.int64)]
    for band in np.flatnonzero(missing):
        gap = np.maximum(bands.low[band] - lengths[free], lengths[free] - bands.high[band])
        nearest = np.argsort(gap, kind="stable")[: missing[band]]
        borrowed.append(free[nearest])
        free = np.delete(free, nearest)
    return np.concatenate(borrowed)


def order_in_turn(bands: LengthBands, lengths: Lengths, shuffled: RowIndices) -> RowIndices:
    """The shuffled pool, so ordered that every beginning of it has the profile of the bands.

    Row number j of a band with s reference rows comes at ``(j + 1/2) / s`` (systematic sampling);
    rows outside the lengths of the reference come last.
    """
    placed = bands.place(lengths[shuffled])
    turn = np.full(len(shuffled), np.inf)
    for band, size in enumerate(bands.sizes):
        members = np.flatnonzero(placed == band)
        turn[members] = (np.arange(len(members)) + 0.5) / size
    return shuffled[np.argsort(turn, kind="stable")]


def compare_lengths(
    bands: LengthBands,
    lengths: Lengths,
    pool: RowIndices,
    reference: RowIndices,
    selected: RowIndices,
) -> dict[str, Any]:
    """The fields of :class:`LengthMatchReport` that compare the two selections."""

    def count(rows: RowIndices) -> RowIndices:
        placed = bands.place(lengths[rows])
        return np.bincount(placed[placed >= 0], minlength=len(bands))

    chance = count(selected) / np.maximum(count(pool), 1)
    ours, theirs = lengths[selected], lengths[reference]
    return {
        "num_strata": len(bands),
        "overlap": len(np.intersect1d(selected, reference)),
        "expected_overlap": float((chance * count(np.intersect1d(pool, reference))).sum()),
        "mean_reference": float(theirs.mean()),
        "mean_random": float(ours.mean()),
        "median_reference": float(np.median(theirs)),
        "median_random": float(np.median(ours)),
        "ks_distance": ks_distance(theirs, ours),
    }


def ks_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Kolmogorov-Smirnov distance: largest gap between two empirical distribution functions."""
    at = np.concatenate([a, b])
    share_a = np.searchsorted(np.sort(a), at, side="right") / len(a)
    share_b = np.searchsorted(np.sort(b), at, side="right") / len(b)
    return float(np.abs(share_a - share_b).max())
