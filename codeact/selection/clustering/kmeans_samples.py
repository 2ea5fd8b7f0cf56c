"""Where k-means over all rows starts: where k-means over samples of them ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codeact.ops.kmeans import KMeansRows, KMeansStep
from codeact.selection.clustering.kmeans_init import grouped_order, plus_plus
from codeact.selection.clustering.lloyd import lloyd

# On a sample centroids need not stand still: the next sample moves them anyway.
_SAMPLE_ITERATIONS = 20
_SAMPLE_TOLERANCE = 1e-2
_ROWS_PER_CLUSTER = 64
_LEAST_SAMPLE = 8192
_GROWTH = 4
_STARTS_UP_TO = 64  # clusters; a start is cheap there, and a bad one costs most


def start_centroids(
    rows: KMeansRows, num_clusters: int, seed: int, *, nested: bool = True
) -> NDArray[np.float32]:
    """Centroids that k-means on nested samples ends with (Newling and Fleuret, NeurIPS 2016).

    The rows must be in random order: a sample is the first of them. k-means++ draws from the
    smallest, of 64 rows a cluster and at least 8192; for up to 64 clusters the best of 4 starts
    goes on. Each next sample is four times as large, up to half of the rows; without ``nested``
    the smallest is the only one.
    """
    sizes = [max(_LEAST_SAMPLE, _ROWS_PER_CLUSTER * num_clusters)]
    while nested and sizes[-1] * _GROWTH <= len(rows) // 2:
        sizes.append(sizes[-1] * _GROWTH)
    smallest = rows.first(min(len(rows), sizes[0]))
    centroids = best_start(smallest, num_clusters, seed).centroids
    for size in sizes[1:]:
        centroids = lloyd_on_sample(rows.first(size), centroids).centroids
    return centroids


def best_start(rows: KMeansRows, num_clusters: int, seed: int) -> KMeansStep:
    """K-means on a sample from k-means++: the best of 4 starts, of one for over 64 clusters."""
    num_starts = 4 if num_clusters <= _STARTS_UP_TO else 1
    starts = [plus_plus(rows, num_clusters, [seed, start]) for start in range(num_starts)]
    return min((lloyd_on_sample(rows, start) for start in starts), key=KMeansStep.inertia)


def lloyd_on_sample(rows: KMeansRows, centroids: NDArray[np.float32]) -> KMeansStep:
    """The step that assigned the rows last, after up to 20 iterations."""
    step = KMeansStep(rows, len(centroids))
    limit = _SAMPLE_TOLERANCE * rows.variance()
    lloyd(step, centroids[grouped_order(centroids)], limit, max_iterations=_SAMPLE_ITERATIONS)
    return step
