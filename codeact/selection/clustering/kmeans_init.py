"""Where k-means starts: k-means++ on a sample, and an order of the centroids that suits bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from codeact.ops.kmeans import PANEL, KMeansRows, candidate_distances


def plus_plus(
    rows: KMeansRows, num_clusters: int, seed: int | Sequence[int]
) -> NDArray[np.float32]:
    """Greedy k-means++ (Arthur and Vassilvitskii, SODA 2007), as scikit-learn tries candidates.

    Each centroid is the best of ``2 + floor(ln(num_clusters))`` rows drawn in proportion to the
    squared distance from the nearest centroid so far: the one that leaves the smallest sum of them.
    A step reads the rows once, for ``32 * num_rows * dim`` operations.

    Args:
        rows: Drawn from and summed over, all of them.
        num_clusters: At most the number of rows.
        seed: Of the draws; the rows' order counts too.

    Returns:
        (num_clusters, dim) float32, rows; some twice where the rows have fewer distinct values.
    """
    draws = np.random.default_rng(seed)
    num_trials = min(PANEL, 2 + int(math.log(num_clusters)))
    chosen = np.empty((num_clusters, rows.points.shape[1]), dtype=np.float32)
    nearest = np.full(len(rows), np.inf, dtype=np.float32)
    left = np.empty((len(rows), PANEL), dtype=np.float32)
    trials = draws.integers(len(rows), size=1)
    for cluster in range(num_clusters):
        if cluster:
            running = np.cumsum(nearest, dtype=np.float64)
            drawn = draws.random(num_trials) * running[-1]
            trials = np.searchsorted(running, drawn, side="right").clip(max=len(rows) - 1)
        potentials = candidate_distances(rows, rows.points[trials], nearest, left)
        best = int(potentials.argmin())
        nearest[:] = left[:, best]
        chosen[cluster] = rows.points[trials[best]]
    return chosen


def grouped_order(centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """An order that puts near centroids into the same panel of 16.

    A panel's bound is that of its nearest centroid, so that a panel of centroids from one corner
    spares more rows than one from all over. Halves are split by the direction of most variance,
    again and again, at multiples of 16.

    Returns:
        (num_clusters,) int64, a permutation.
    """
    order = np.arange(len(centroids))
    pending = [(0, len(centroids))]
    while pending:
        start, stop = pending.pop()
        if stop - start <= PANEL:
            continue
        members = order[start:stop]
        along = _main_projection(centroids[members].astype(np.float64))
        order[start:stop] = members[np.argsort(along, kind="stable")]
        middle = start + -(-(stop - start) // (2 * PANEL)) * PANEL
        pending += [(start, middle), (middle, stop)]
    return order


def _main_projection(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The vectors along about the direction in which they vary most: five power steps."""
    vectors = vectors - vectors.mean(axis=0)
    direction = vectors[np.einsum("ij,ij->i", vectors, vectors).argmax()]
    for _ in range(5):
        direction = (vectors @ direction) @ vectors
        direction = direction / max(float(np.linalg.norm(direction)), 1e-300)
    return np.asarray(vectors @ direction)
