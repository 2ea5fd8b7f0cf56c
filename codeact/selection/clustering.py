"""K-means on embeddings, the way the CodeACT authors run it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError

# Rows at a time when distances are taken: 8192 x 768 float32 is 24 MiB.
_CHUNK = 8192


@dataclass(frozen=True)
class Clusters:
    """A clustering of examples by their embeddings.

    Attributes:
        cluster_labels: (num_examples,) int32, from 0.
        centroids: (num_clusters, dim) float32.
        distances: (num_examples,) float32, Euclidean, to the example's own centroid.
        inertia: Sum of squared distances, as scikit-learn reports it.
    """

    cluster_labels: NDArray[np.int32]
    centroids: NDArray[np.float32]
    distances: NDArray[np.float32]
    inertia: float

    @property
    def num_clusters(self) -> int:
        """Number of centroids, clusters that came out empty included."""
        return len(self.centroids)


def cluster_kmeans(embeddings: ArrayLike, *, num_clusters: int = 10, seed: int = 42) -> Clusters:
    """K-means of CDAS (arXiv:2408.02193): scikit-learn's ``KMeans`` with its own defaults.

    That is k-means++, one start, at most 300 iterations, on the embeddings as they come (float32,
    neither centred nor scaled). It runs on one thread: scikit-learn adds up the partial centroids
    of its threads in the order in which they finish, so that several threads may differ in the
    last bits from run to run.

    Args:
        embeddings: (num_examples, dim), finite; cast to float32.
        num_clusters: At least 1, at most ``num_examples``.
        seed: ``random_state`` of scikit-learn.

    Raises:
        InputError: Wrong number of dimensions, NaN or infinity, fewer examples than clusters.
    """
    points = check_embeddings(embeddings)
    if num_clusters < 1:
        raise InputError(f"num_clusters must be at least 1, got {num_clusters}")
    if len(points) < num_clusters:
        raise InputError(
            f"num_clusters = {num_clusters} needs at least as many examples, got {len(points)}"
        )
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    kmeans = KMeans(n_clusters=num_clusters, random_state=seed, n_init="auto")
    with threadpool_limits(limits=1):
        cluster_labels = kmeans.fit_predict(points).astype(np.int32)
    centroids = kmeans.cluster_centers_.astype(np.float32)
    return Clusters(
        cluster_labels=cluster_labels,
        centroids=centroids,
        distances=_distances(points, centroids, cluster_labels),
        inertia=float(kmeans.inertia_),
    )


def check_embeddings(embeddings: ArrayLike) -> NDArray[np.float32]:
    """The embeddings as a finite, C-contiguous (num_examples, dim) float32 matrix."""
    points = np.asarray(embeddings)
    if points.ndim != 2 or points.shape[1] == 0:
        raise InputError(f"embeddings must be (num_examples, dim), got shape {points.shape}")
    if points.dtype.kind not in "fiu":
        raise InputError(f"embeddings must be numbers, got dtype {points.dtype}")
    points = np.ascontiguousarray(points, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(bad):
        raise InputError(
            f"embeddings must be finite in float32, got NaN or infinity in {len(bad)} of "
            f"{len(points)} rows, first in row {bad[0]}"
        )
    return points


def check_labels(cluster_labels: ArrayLike, num_examples: int) -> NDArray[np.int32]:
    """The labels as (num_examples,) int32, -1 for noise."""
    labels = np.asarray(cluster_labels)
    if labels.dtype.kind not in "iu" or labels.shape != (num_examples,):
        raise InputError(
            f"clusters must be {num_examples} integer labels, one for each example, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    if labels.min() < -1:
        raise InputError(f"clusters must be -1 (noise) or more, got {labels.min()}")
    return labels.astype(np.int32)


def _distances(
    points: NDArray[np.float32], centroids: NDArray[np.float32], labels: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Distance of each point to its own centroid, by direct difference: no cancellation."""
    distances = np.empty(len(points), dtype=np.float32)
    for start in range(0, len(points), _CHUNK):
        rows = slice(start, start + _CHUNK)
        distances[rows] = np.linalg.norm(points[rows] - centroids[labels[rows]], axis=1)
    return distances
