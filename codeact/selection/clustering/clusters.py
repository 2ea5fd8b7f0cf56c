"""A clustering of examples by their embeddings, and the checks of its inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError

# Rows at a time, so that what a step makes stays small: 8192 x 768 float64 is 48 MiB.
_CHUNK = 8192
_LARGEST_LABEL = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Clusters:
    """A clustering of examples by their embeddings.

    Attributes:
        cluster_labels: (num_examples,) int32, from 0; -1 is noise, in no cluster.
        centroids: (num_clusters, dim) float32, the means of the clusters.
        distances: (num_examples,) float32, Euclidean, to the example's own centroid; NaN for
            noise.
        inertia: Sum of squared distances, as scikit-learn reports it; noise not counted.
    """

    cluster_labels: NDArray[np.int32]
    centroids: NDArray[np.float32]
    distances: NDArray[np.float32]
    inertia: float

    @property
    def num_clusters(self) -> int:
        """Number of centroids, clusters that came out empty included."""
        return len(self.centroids)

    @classmethod
    def from_labels(cls, points: ArrayLike, labels: ArrayLike) -> Clusters:
        """The clustering that ``labels`` describe, with means and distances.

        The means are summed in float64 in the order of the points.

        Args:
            points: (num_examples, dim), finite; cast to float32.
            labels: (num_examples,) integers, -1 for noise. A label that no point has leaves an
                empty cluster, whose centroid is NaN.
        """
        points = check_embeddings(points)
        labels = check_labels(labels, len(points))
        num_clusters = int(labels.max(initial=-1)) + 1
        sums = np.zeros((num_clusters, points.shape[1]))
        for start in range(0, len(points), _CHUNK):
            # Sorted by label, the rows of a cluster are one run: np.add.at takes ten times as long.
            own = labels[start : start + _CHUNK]
            by_label = np.argsort(own, kind="stable")[np.count_nonzero(own < 0) :]
            found, first = np.unique(own[by_label], return_index=True)
            if len(found):
                rows = points[start + by_label].astype(np.float64)
                sums[found] += np.add.reduceat(rows, first, axis=0)
        counts = np.bincount(labels[labels >= 0], minlength=num_clusters)
        with np.errstate(invalid="ignore"):
            centroids = (sums / counts[:, None]).astype(np.float32)
        from codeact.ops.kmeans import own_distances  # imports torch

        distances = own_distances(points, centroids, labels)
        inertia = float(np.nansum(distances.astype(np.float64) ** 2))
        return cls(labels, centroids, distances, inertia)


def check_embeddings(embeddings: ArrayLike) -> NDArray[np.float32]:
    """The embeddings as a finite, C-contiguous (num_examples, dim) float32 matrix."""
    points = np.asarray(embeddings)
    if points.ndim != 2 or points.shape[1] == 0:
        raise InputError(f"embeddings must be (num_examples, dim), got shape {points.shape}")
    if points.dtype.kind not in "fiu":
        raise InputError(f"embeddings must be numbers, got dtype {points.dtype}")
    with np.errstate(over="ignore"):  # found below
        points = np.ascontiguousarray(points, dtype=np.float32)
    blocks = range(0, len(points), _CHUNK)
    bad = np.concatenate(
        [np.zeros(0, np.int64)]
        + [s + np.flatnonzero(~np.isfinite(points[s : s + _CHUNK]).all(axis=1)) for s in blocks]
    )
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
    if len(labels) and labels.min() < -1:
        raise InputError(f"clusters must be -1 (noise) or more, got {labels.min()}")
    if len(labels) and labels.max() > _LARGEST_LABEL:
        raise InputError(f"clusters must be at most {_LARGEST_LABEL}, got {labels.max()}")
    return labels.astype(np.int32)
