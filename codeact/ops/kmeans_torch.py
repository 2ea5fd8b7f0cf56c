"""The steps of k-means on tensors, for a GPU."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from codeact.ops.kmeans import KMeansRows, cluster_means, own_distances
from codeact.ops.nearest import nearest_centroid

_BLOCK = 1 << 23  # elements widened to float64 at a time, 64 MiB


class TorchKMeansStep:
    """:class:`codeact.ops.kmeans.KMeansStep` on a device, each assignment anew: no bounds.

    The matrix is copied there once. Sums are of rounded values in float64, so that they are exact
    and no order of atomic additions shows.
    """

    def __init__(self, rows: KMeansRows, num_clusters: int, device: str) -> None:
        self.rows = rows
        self.labels = np.full(len(rows), -1, dtype=np.int32)
        self.centroids: NDArray[np.float32] = np.zeros((0, 0), dtype=np.float32)
        self.sums = np.zeros((num_clusters, rows.points.shape[1]))
        self.counts = np.zeros(num_clusters, dtype=np.int64)
        self._points = torch.from_numpy(rows.points).to(device)

    def assign(self, centroids: NDArray[np.float32]) -> int:
        """As of the native step; of equally near centroids, as computed, the lowest."""
        there = torch.from_numpy(centroids).to(self._points.device)
        labels = nearest_centroid(self._points, there).labels
        sums = torch.zeros(*centroids.shape, dtype=torch.float64, device=labels.device)
        block = max(1, _BLOCK // max(1, centroids.shape[1]))
        for start in range(0, len(labels), block):
            rows = slice(start, start + block)
            values = self._points[rows].double().add_(self.rows.rounder).sub_(self.rows.rounder)
            sums.index_add_(0, labels[rows], values)
        self.sums = sums.cpu().numpy()
        new = labels.int().cpu().numpy()
        num_moved = int((new != self.labels).sum())
        self.labels, self.centroids = new, centroids
        self.counts = np.bincount(new, minlength=len(centroids))
        return num_moved

    def means(self) -> NDArray[np.float32]:
        """(num_clusters, dim) means of the clusters; an empty one keeps the centroid it had."""
        return cluster_means(self.sums, self.counts, self.centroids)

    def move(self, row: int, cluster: int) -> None:
        """Give one row another label by hand."""
        value = self.rows.rounded(np.array([row]))[0]
        for label, sign in ((self.labels[row], -1), (cluster, 1)):
            self.sums[label] += sign * value
            self.counts[label] += sign
        self.labels[row] = cluster

    def distances(self) -> NDArray[np.float32]:
        """(num_rows,) Euclidean distance of each row to the centroid that it was assigned to."""
        return own_distances(self.rows.points, self.centroids, self.labels)
