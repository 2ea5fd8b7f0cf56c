"""Lloyd's iterations, with whatever assigns the rows."""

from __future__ import annotations

import logging
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

MAX_ITERATIONS = 300
"""Of all rows, as in scikit-learn."""

TOLERANCE = 1e-4
"""Lloyd ends when the squared moves of all centroids sum to at most this times the mean variance of
a column: scikit-learn's rule."""


class Step(Protocol):
    """What Lloyd needs of a backend; :class:`codeact.ops.kmeans.KMeansStep` says what each is."""

    labels: NDArray[np.int32]
    counts: NDArray[np.int64]

    def assign(self, centroids: NDArray[np.float32]) -> int: ...
    def means(self) -> NDArray[np.float32]: ...
    def move(self, row: int, cluster: int) -> None: ...
    def distances(self) -> NDArray[np.float32]: ...


def lloyd(
    step: Step,
    centroids: NDArray[np.float32],
    shift_limit: float,
    *,
    max_iterations: int = MAX_ITERATIONS,
) -> NDArray[np.float32]:
    """Assign and average until nothing changes, or moves sum to at most ``shift_limit``.

    An empty cluster takes the row that is farthest from its own centroid, several in turn the next
    farthest; of equally far ones the first. One stays empty if no row is off its centroid.

    Args:
        step: Holds the rows; afterwards its labels are the nearest of what is returned.
        centroids: (num_clusters, dim) float32 to start from.
        shift_limit: Of the sum over all centroids of their squared moves.
        max_iterations: Stops then, whatever moves.
    """
    for iteration in range(max_iterations):
        num_moved = step.assign(centroids)
        if (step.counts == 0).any():
            num_moved += _fill_empty(step)
        means = step.means()
        shift = float(((means.astype(np.float64) - centroids) ** 2).sum())
        log.debug("iteration %d: %d rows moved, centroids by %.3g", iteration, num_moved, shift)
        if num_moved == 0:
            return centroids
        centroids = means
        if shift <= shift_limit:
            break
    step.assign(centroids)
    return centroids


def _fill_empty(step: Step) -> int:
    """Give each empty cluster a row; returns how many got one."""
    distances = step.distances()
    farthest = iter(np.argsort(-distances, kind="stable").tolist())
    num_filled = 0
    for cluster in np.flatnonzero(step.counts == 0).tolist():
        row = next((r for r in farthest if step.counts[step.labels[r]] > 1), None)
        if row is None or distances[row] == 0:
            break
        step.move(row, cluster)
        num_filled += 1
    return num_filled
