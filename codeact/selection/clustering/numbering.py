"""Numbers for clusters that do not depend on how an algorithm came by them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codeact.selection.clustering.clusters import Clusters
from codeact.selection.rows import Rows


def numbered_by_size(labels: NDArray[np.integer]) -> NDArray[np.int32]:
    """The largest cluster becomes 0; of equal ones the one whose first row is first. -1 stays."""
    inside = labels >= 0
    _, first, dense, counts = np.unique(
        labels[inside], return_index=True, return_inverse=True, return_counts=True
    )
    number = np.empty(len(counts), dtype=np.int32)
    number[np.lexsort((first, -counts))] = np.arange(len(counts))
    numbered = np.full(len(labels), -1, dtype=np.int32)
    numbered[inside] = number[dense]
    return numbered


def clusters_in_given_order(
    rows: Rows, arranged: NDArray[np.float32], labels: NDArray[np.int32]
) -> Clusters:
    """The clustering of points and labels that stand in the order of places, for the rows' own."""
    clusters = Clusters.from_labels(arranged, labels)
    return Clusters(
        cluster_labels=clusters.cluster_labels[rows.place],
        centroids=clusters.centroids,
        distances=clusters.distances[rows.place],
        inertia=clusters.inertia,
    )
