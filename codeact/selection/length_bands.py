"""Drawing rows at the length profile of a reference, band by band."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class LengthMatchReport:
    """How close the draw came to the reference.

    Attributes:
        num_kept: Rows drawn, as many as the reference has.
        num_pool: Rows that could be drawn.
        num_strata: Bands of length in use.
        num_borrowed: Rows taken from outside their band because it had run out.
        overlap: Rows that are in the reference too.
        expected_overlap: Its mean over seeds, borrowed rows apart. Close to ``num_kept`` means
            that the pool leaves no choice at these lengths and the baseline says little.
        mean_reference, mean_random, median_reference, median_random: Lengths.
        ks_distance: Largest gap between the two distribution functions of length, in [0, 1].
    """

    num_kept: int
    num_pool: int
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
        wanted: (num_bands,) int64, reference rows in each band.
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
        self.wanted = ends - starts
        self.low, self.high = ordered[starts], ordered[ends - 1]

    def __len__(self) -> int:
        return len(self.wanted)

    def place(self, lengths: Lengths) -> Rows:
        """Band of each length; -1 outside the range of the reference."""
        bands = np.searchsorted(self.edges, lengths, side="right")
        return np.where((lengths < self.low[0]) | (lengths > self.high[-1]), -1, bands)


def draw_from_bands(
    bands: LengthBands, lengths: Lengths, pool: Rows, rng: np.random.Generator
) -> Rows:
    """As many rows of each band as the reference has there, or all the pool has."""
    shuffled = rng.permutation(pool)
    placed = bands.place(lengths[shuffled])
    picks = [shuffled[placed == band][:count] for band, count in enumerate(bands.wanted)]
    return np.concatenate(picks)


def borrow_nearest(
    bands: LengthBands, lengths: Lengths, free: Rows, drawn: Rows, rng: np.random.Generator
) -> Rows:
    """For bands that ran out: the free rows nearest in length, equal distances at random."""
    missing = bands.wanted - np.bincount(bands.place(lengths[drawn]), minlength=len(bands))
    borrowed = [np.empty(0, dtype=np.int64)]
    free = rng.permutation(free)
    for band in np.flatnonzero(missing):
        gap = np.maximum(bands.low[band] - lengths[free], lengths[free] - bands.high[band])
        nearest = np.argsort(gap, kind="stable")[: missing[band]]
        borrowed.append(free[nearest])
        free = np.delete(free, nearest)
    return np.concatenate(borrowed)


def report_match(
    bands: LengthBands,
    lengths: Lengths,
    pool: Rows,
    reference: Rows,
    selected: Rows,
    *,
    num_borrowed: int,
) -> LengthMatchReport:
    """Compare the lengths of the two selections, and count what they share."""
    placed = bands.place(lengths[pool])
    inside, in_reference = placed >= 0, np.isin(pool, reference)
    available = np.bincount(placed[inside], minlength=len(bands))
    shared = np.bincount(placed[inside & in_reference], minlength=len(bands))
    chance = np.minimum(bands.wanted, available) / np.maximum(available, 1)
    ours, theirs = lengths[selected], lengths[reference]
    return LengthMatchReport(
        num_kept=len(selected),
        num_pool=len(pool),
        num_strata=len(bands),
        num_borrowed=num_borrowed,
        overlap=len(np.intersect1d(selected, reference)),
        expected_overlap=float((chance * shared).sum()),
        mean_reference=float(theirs.mean()),
        mean_random=float(ours.mean()),
        median_reference=float(np.median(theirs)),
        median_random=float(np.median(ours)),
        ks_distance=ks_distance(theirs, ours),
    )


def ks_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Kolmogorov-Smirnov distance: largest gap between two empirical distribution functions."""
    at = np.concatenate([a, b])
    share_a = np.searchsorted(np.sort(a), at, side="right") / len(a)
    share_b = np.searchsorted(np.sort(b), at, side="right") / len(b)
    return float(np.abs(share_a - share_b).max())
