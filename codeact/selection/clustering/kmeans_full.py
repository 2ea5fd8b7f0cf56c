"""K-means over all rows: Lloyd's algorithm, or small batches."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from codeact.errors import InputError
from codeact.ops.kmeans import KMeansRows, KMeansStep, own_distances
from codeact.selection.clustering.clusters import Clusters
from codeact.selection.clustering.kmeans_init import grouped_order
from codeact.selection.clustering.kmeans_samples import start_centroids
from codeact.selection.clustering.lloyd import TOLERANCE, Step, lloyd

_BATCH_ROWS = 4096
_BATCH_ROWS_PER_CLUSTER = 16
_PASSES = 10
_LEAST_GAIN = 1e-3
_LEAST_SQUARE, _LARGEST_SQUARE = 1e-24, 1e36


def full_kmeans(
    points: NDArray[np.float32],
    order: NDArray[np.int64],
    num_clusters: int,
    seed: int,
    device: str,
) -> Clusters:
    """Lloyd's algorithm from a start on nested samples, to scikit-learn's tolerance.

    Args:
        points: (num_examples, dim), as given.
        order: (num_examples,) the rows in random order; samples are the first of them.
        num_clusters: From 1 to ``num_examples``.
        seed: Of the start.
        device: ``"cpu"`` or a device of torch for the iterations over all rows.
    """
    rows = arranged_rows(points, order)
    centroids = start_centroids(rows, num_clusters, seed)
    centroids = centroids[grouped_order(centroids)]
    step = _step(rows, num_clusters, device)
    centroids = lloyd(step, centroids, TOLERANCE * rows.variance())
    return _clusters(points, order, step.labels, centroids + rows.centre)


def mini_batch_kmeans(
    points: NDArray[np.float32], order: NDArray[np.int64], num_clusters: int, seed: int
) -> Clusters:
    """Mini-batch k-means (Sculley, WWW 2010): a centroid is the mean of what its batches gave it.

    Batches are consecutive rows of the random order, 16 a cluster and at least 4096. It ends after
    10 passes, or with the first that lowers the batches' own inertia by less than 0.1 %. The start
    is k-means on the smallest sample. Then all rows get their labels; a cluster may be empty.
    """
    rows = arranged_rows(points, order)
    centroids = start_centroids(rows, num_clusters, seed, nested=False)
    centroids = centroids[grouped_order(centroids)]
    weights = np.zeros(num_clusters, dtype=np.int64)
    size = max(_BATCH_ROWS, _BATCH_ROWS_PER_CLUSTER * num_clusters)
    before = np.inf
    for _ in range(_PASSES):
        inertia = 0.0
        for start in range(0, len(rows), size):
            step = KMeansStep(rows.part(start, start + size), num_clusters)
            step.assign(centroids)
            inertia += step.inertia()
            weights += step.counts
            # c += (sum - count c) / weight: each row moves it by 1 / (rows so far).
            gaps = step.sums - step.counts[:, None] * centroids.astype(np.float64)
            centroids = (centroids + gaps / np.maximum(weights, 1)[:, None]).astype(np.float32)
        if inertia > (1 - _LEAST_GAIN) * before:
            break
        before = inertia
    step = KMeansStep(rows, num_clusters)
    step.assign(centroids)
    return _clusters(points, order, step.labels, centroids + rows.centre)


def arranged_rows(points: NDArray[np.float32], order: NDArray[np.int64]) -> KMeansRows:
    """The rows in that order, refused where float32 does not hold their squared lengths."""
    rows = KMeansRows.arrange(points, order)
    largest = float(rows.squares.max())
    if not (_LEAST_SQUARE < largest < _LARGEST_SQUARE) and rows.points.any():
        raise InputError(
            "embeddings must lie between 1e-12 and 1e18 from their mean, so that float32 holds the "
            f"squares, the farthest is at {math.sqrt(largest):.3g}"
        )
    return rows


def _step(rows: KMeansRows, num_clusters: int, device: str) -> Step:
    if device == "cpu":
        return KMeansStep(rows, num_clusters)
    from codeact.ops.kmeans_torch import TorchKMeansStep

    return TorchKMeansStep(rows, num_clusters, device)


def _clusters(
    points: NDArray[np.float32],
    order: NDArray[np.int64],
    arranged_labels: NDArray[np.int32],
    centroids: NDArray[np.float32],
) -> Clusters:
    labels = np.empty_like(arranged_labels)
    labels[order] = arranged_labels
    distances = own_distances(points, centroids, labels)
    squares = distances[order].astype(np.float64) ** 2  # summed in an order that is not the file's
    return Clusters(labels, centroids, distances, float(squares.sum()))
