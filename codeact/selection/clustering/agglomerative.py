"""Agglomerative clustering in linear memory, through the fastcluster package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.clustering.clusters import Clusters, check_embeddings
from codeact.selection.clustering.numbering import clusters_in_given_order, numbered_by_size
from codeact.selection.rows import Rows

Linkage = Literal["ward", "single", "centroid", "median"]


def cluster_agglomerative(
    embeddings: ArrayLike,
    *,
    num_clusters: int = 10,
    linkage: Linkage = "ward",
    ids: Sequence[str] | None = None,
) -> Clusters:
    """Bottom-up clustering: what is nearest merges until ``num_clusters`` are left.

    Euclidean, on the embeddings as they come, in float64. Up to ties these are the clusters of
    scikit-learn's ``AgglomerativeClustering`` (ward, single); neither needs a distance matrix here:
    ``fastcluster.linkage_vector`` (Muellner, 2013, doi:10.18637/jss.v053.i09) holds the points
    twice, and takes ``num_examples^2 * dim`` operations on one core. The largest cluster is number
    0; nothing depends on the order of the rows.

    Args:
        embeddings: (num_examples, dim), finite; cast to float32 and from there to float64.
        num_clusters: At least 1, at most ``num_examples``.
        linkage: ``"ward"``: the merge that adds least to the sum of squared distances to the
            means; ``"single"``: the nearest points; ``"centroid"``: the nearest means;
            ``"median"``: the same with both halves weighing alike.
        ids: Unique names of the rows; ties go by them, by default by the rows' own bytes.

    Raises:
        InputError: Wrong number of dimensions, NaN or infinity, fewer examples than clusters, an
            unknown linkage.
        ImportError: fastcluster is not installed.
    """
    if linkage not in get_args(Linkage):
        raise InputError(f"linkage must be one of {', '.join(get_args(Linkage))}, got {linkage!r}")
    points = check_embeddings(embeddings)
    if isinstance(num_clusters, bool) or not isinstance(num_clusters, (int, np.integer)):
        raise InputError(f"num_clusters must be a whole number, got {num_clusters!r}")
    if not 1 <= num_clusters <= len(points):
        raise InputError(
            f"num_clusters must be from 1 to the number of examples, {len(points)}, "
            f"got {num_clusters}"
        )
    rows = Rows(len(points), ids, points)
    arranged = rows.arranged(points)
    merges = _merges(arranged, linkage)[: len(points) - num_clusters]
    labels = numbered_by_size(_cut(merges, len(points)))
    return clusters_in_given_order(rows, arranged, labels)


def _merges(points: NDArray[np.float32], linkage: Linkage) -> NDArray[np.int64]:
    """(num_points - 1, 2) what merges in each step; step t makes the node ``num_points + t``."""
    if len(points) == 1:
        return np.zeros((0, 2), dtype=np.int64)
    try:
        from fastcluster import linkage_vector
    except ImportError as error:
        raise ImportError(
            f"linkage={linkage!r} needs fastcluster: pip install fastcluster"
        ) from error
    tree = linkage_vector(points.astype(np.float64), method=linkage)
    merges: NDArray[np.int64] = tree[:, :2].astype(np.int64)
    return merges


def _cut(merges: NDArray[np.int64], num_points: int) -> NDArray[np.int32]:
    """A label for each point after these merges.

    Not scipy's ``fcluster``, which cuts at a height: with centroid and median linkage heights may
    fall, and with ties no height leaves the number asked for.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    num_nodes = num_points + len(merges)
    made = num_points + np.arange(len(merges))
    ends = (np.tile(made, 2), merges.T.ravel())
    graph = coo_array((np.ones(2 * len(merges), dtype=bool), ends), shape=(num_nodes, num_nodes))
    labels: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return labels[:num_points]
