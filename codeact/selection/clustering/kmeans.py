"""K-means on embeddings: at scale, in small batches, or the way the CodeACT authors run it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.clustering.clusters import Clusters, check_embeddings
from codeact.selection.rows import Rows

Algorithm = Literal["full", "mini-batch", "scikit-learn"]
ALGORITHMS = ("full", "mini-batch", "scikit-learn")


def cluster_kmeans(
    embeddings: ArrayLike,
    *,
    num_clusters: int | Literal["elbow", "silhouette"] = 10,
    seed: int = 42,
    algorithm: Algorithm = "full",
    ids: Sequence[str] | None = None,
    device: str = "auto",
) -> Clusters:
    """K-means of embeddings as they come: neither centred nor scaled, Euclidean.

    ``"full"`` is Lloyd's algorithm to scikit-learn's own end (the squared moves of the centroids
    sum to 1e-4 of the mean variance of a column, or 300 iterations) from a start on nested samples
    (:func:`~codeact.selection.clustering.lloyd.start_centroids`). ``"mini-batch"`` replaces the
    iterations over all rows by steps of small batches (Sculley, WWW 2010). Neither depends on the
    order of the rows or the number of threads; the processor's instructions decide last bits.

    ``"scikit-learn"`` is CDAS as its authors run it (arXiv:2408.02193): ``KMeans`` with its own
    defaults, k-means++, one start, at most 300 iterations, rows in the order given. It runs on one
    thread: scikit-learn adds up the partial centroids of its threads in the order in which they
    finish, so that several threads may differ in the last bits from run to run.

    Labels are those of the nearest centroid returned. Up to the tolerance the centroids are the
    means of their clusters.

    Args:
        embeddings: (num_examples, dim), finite; cast to float32.
        num_clusters: At least 1, at most ``num_examples``; or how
            :func:`~codeact.selection.clustering.choose_num_clusters` chooses it.
        seed: Of the draws; ``random_state`` of scikit-learn.
        algorithm: As above.
        ids: Unique names of the rows, on which draws depend; by default their own bytes.
        device: Of ``"full"``: ``"cpu"``, a device of torch, or ``"auto"``, a GPU if torch sees one.

    Raises:
        InputError: Wrong number of dimensions, NaN or infinity, fewer examples than clusters, an
            unknown algorithm or choice, a device that is not there.
    """
    points = check_embeddings(embeddings)
    if algorithm not in ALGORITHMS:
        raise InputError(f"algorithm must be one of {', '.join(ALGORITHMS)}, got {algorithm!r}")
    if isinstance(num_clusters, str):
        from codeact.selection.clustering.choose_k import choose_num_clusters

        chosen = choose_num_clusters(points, method=num_clusters, seed=seed, ids=ids)
        num_clusters = chosen.num_clusters
    _check_num_clusters(num_clusters, len(points))
    if algorithm == "scikit-learn":
        return _scikit_learn(points, num_clusters, seed)
    # Imports torch, which reading a selector's options need not.
    from codeact.ops.device import resolve_device
    from codeact.selection.clustering.kmeans_full import full_kmeans, mini_batch_kmeans

    order = random_order(points, seed, ids)
    if algorithm == "mini-batch":
        return mini_batch_kmeans(points, order, num_clusters, seed)
    return full_kmeans(points, order, num_clusters, seed, str(resolve_device(device)))


def random_order(
    points: NDArray[np.float32], seed: int, ids: Sequence[str] | None
) -> NDArray[np.int64]:
    """(num_examples,) int64 permutation by each row's key: the same rows in whatever order."""
    rows = Rows(len(points), ids, points)
    return np.lexsort((rows.place, rows.keys(seed, "k-means")))


def _check_num_clusters(num_clusters: int, num_examples: int) -> None:
    if isinstance(num_clusters, bool) or not isinstance(num_clusters, (int, np.integer)):
        raise InputError(f"num_clusters must be a whole number, got {num_clusters!r}")
    if num_clusters < 1:
        raise InputError(f"num_clusters must be at least 1, got {num_clusters}")
    if num_examples < num_clusters:
        raise InputError(
            f"num_clusters = {num_clusters} needs at least as many examples, got {num_examples}"
        )


def _scikit_learn(points: NDArray[np.float32], num_clusters: int, seed: int) -> Clusters:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    from codeact.ops.kmeans import own_distances

    kmeans = KMeans(n_clusters=num_clusters, random_state=seed, n_init="auto")
    with threadpool_limits(limits=1):
        cluster_labels = kmeans.fit_predict(points).astype(np.int32)
    centroids = kmeans.cluster_centers_.astype(np.float32)
    return Clusters(
        cluster_labels=cluster_labels,
        centroids=centroids,
        distances=own_distances(points, centroids, cluster_labels),
        inertia=float(kmeans.inertia_),
    )
