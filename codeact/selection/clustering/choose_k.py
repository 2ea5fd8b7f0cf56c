"""How many clusters: where the inertia stops to fall fast, or where the silhouette is largest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.clustering.clusters import check_embeddings
from codeact.selection.clustering.kmeans import random_order

if TYPE_CHECKING:
    from codeact.ops.kmeans import KMeansRows

# Inertia needs no pairs of rows; the silhouette compares all pairs of its rows.
_SAMPLE_ROWS = {"elbow": 4096, "silhouette": 2048}
_MOST_CLUSTERS = 64
_LEAST_ROWS = 8  # a cluster, in the sample
_GRID_POINTS = 10
_FINER_POINTS = 5
_FINER_ROUNDS = 2


@dataclass(frozen=True)
class ChosenK:
    """A number of clusters and what it was chosen by.

    Attributes:
        num_clusters: The choice.
        candidates: (num_candidates,) int64 numbers of clusters that were tried, ascending.
        scores: (num_candidates,) float64 inertia (elbow) or mean silhouette of each, on the sample.
        num_sampled: Rows of the sample.
    """

    num_clusters: int
    candidates: NDArray[np.int64]
    scores: NDArray[np.float64]
    num_sampled: int


def choose_num_clusters(
    embeddings: ArrayLike,
    *,
    method: Literal["elbow", "silhouette"] = "elbow",
    candidates: Sequence[int] | None = None,
    seed: int = 42,
    ids: Sequence[str] | None = None,
) -> ChosenK:
    """A number of clusters for k-means, from k-means on a sample.

    ``"elbow"`` is the point of the inertia curve farthest below the chord from its first to its
    last point, both axes scaled to [0, 1] (Satopaa et al., ICDCSW 2011). The number of clusters is
    not taken as a logarithm: over that, inertia of text embeddings falls in about a straight line.
    Without clear clusters the elbow therefore follows the range of the candidates.
    ``"silhouette"`` is the largest mean silhouette (Rousseeuw, 1987), Euclidean and exact on the
    sample; of equal ones the smaller number.

    Args:
        embeddings: (num_examples, dim), finite.
        method: As above.
        candidates: Distinct numbers from 2 up, at least 3 for an elbow. By default 10 from 2 to 64,
            evenly spaced as logarithms, with at least 8 sampled rows a cluster; then twice
            the range around the best of them more finely.
        seed: Of the sample, of up to 4096 rows (elbow) or 2048 (silhouette), and of k-means.
        ids: Unique names of the rows, by which the sample is drawn; by default their own bytes.

    Raises:
        InputError: Another method, candidates that are none, too few rows.
    """
    points = check_embeddings(embeddings)
    if method not in _SAMPLE_ROWS:
        raise InputError(f"num_clusters must be a number, elbow or silhouette, got {method!r}")
    from codeact.selection.clustering.kmeans_full import arranged_rows  # imports torch

    order = random_order(points, seed, ids)[: _SAMPLE_ROWS[method]]
    score = _scorer(arranged_rows(points, order), method, seed)
    best = _elbow if method == "elbow" else _largest
    grid = _grid(len(order)) if candidates is None else _check(candidates, method, len(order))
    scores = np.array([score(k) for k in grid.tolist()])
    for _ in range(_FINER_ROUNDS if candidates is None else 0):
        at = best(grid, scores)
        between = np.linspace(grid[max(0, at - 1)], grid[min(at + 1, len(grid) - 1)], _FINER_POINTS)
        finer = np.setdiff1d(np.round(between).astype(np.int64), grid)
        grid = np.concatenate([grid, finer])
        scores = np.concatenate([scores, [score(k) for k in finer.tolist()]])
        ascending = np.argsort(grid)
        grid, scores = grid[ascending], scores[ascending]
    return ChosenK(int(grid[best(grid, scores)]), grid, scores, len(order))


def _grid(num_rows: int) -> NDArray[np.int64]:
    most = min(_MOST_CLUSTERS, num_rows // _LEAST_ROWS)
    if most < 4:
        least = 4 * _LEAST_ROWS
        raise InputError(
            f"choosing num_clusters needs at least {least} examples, got {num_rows}; "
            "give a number instead"
        )
    return np.unique(np.round(np.geomspace(2, most, _GRID_POINTS)).astype(np.int64))


def _check(candidates: Sequence[int], method: str, num_rows: int) -> NDArray[np.int64]:
    grid = np.unique(np.asarray(candidates))
    least = 3 if method == "elbow" else 1
    if grid.dtype.kind not in "iu" or len(grid) < least or grid[0] < 2 or grid[-1] >= num_rows:
        raise InputError(
            f"candidates must be at least {least} distinct numbers from 2 to {num_rows - 1} (the "
            f"sampled rows less one), got {list(candidates)}"
        )
    return grid.astype(np.int64)


def _scorer(rows: KMeansRows, method: str, seed: int) -> Callable[[int], float]:
    """Number of clusters -> inertia or mean silhouette of k-means on the rows."""
    from codeact.selection.clustering.kmeans_samples import best_start

    def score(num_clusters: int) -> float:
        step = best_start(rows, num_clusters, seed)
        if method == "elbow":
            return step.inertia()
        from sklearn.metrics import silhouette_score

        if len(np.unique(step.labels)) < 2:
            return -1.0
        return float(silhouette_score(rows.points, step.labels))

    return score


def _elbow(grid: NDArray[np.int64], inertias: NDArray[np.float64]) -> int:
    """Index of the point farthest below the chord."""
    along = (grid - grid[0]) / (grid[-1] - grid[0])
    fall = inertias[0] - inertias[-1]
    if not fall > 0:
        return 0
    return int(np.argmax(1 - along - (inertias - inertias[-1]) / fall))


def _largest(grid: NDArray[np.int64], silhouettes: NDArray[np.float64]) -> int:
    return int(np.argmax(silhouettes))
