"""HDBSCAN: clusters of any shape and number, and noise."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.clustering.clusters import Clusters, check_embeddings
from codeact.selection.clustering.numbering import clusters_in_given_order, numbered_by_size
from codeact.selection.rows import Rows

Noise = Literal["drop", "singletons"]
Algorithm = Literal["hdbscan", "boruvka"]

_LARGEST = 1e16


def cluster_hdbscan(
    embeddings: ArrayLike,
    *,
    min_cluster_size: int = 5,
    min_samples: int | None = 5,
    noise: Noise = "drop",
    algorithm: Algorithm = "hdbscan",
    ids: Sequence[str] | None = None,
    device: str = "auto",
) -> Clusters:
    """HDBSCAN* (Campello, Moulavi and Sander, 2013) as the hdbscan package has it.

    Euclidean, on the embeddings as they come, clusters by excess of mass. Exact: the package's
    own default ``approx_min_span_tree=True`` is not used. Core distances count ``min_samples``
    other points (scikit-learn's ``HDBSCAN`` counts the point itself as one of them).

    Mutual reachability makes many equal edges, and which of them the tree has decides about some
    clusters. Both algorithms take the rows in an order that follows from ``ids`` or content, so
    that the clusters do not depend on the order given. Beyond 60 dimensions both break ties as the
    package's Prim's algorithm does on rows in that order, and give the same labels; below that the
    package takes another algorithm and may differ by some ties. Among equal edges the order is that
    of ``numpy.argsort``, as in the package, and may be another on another processor.

    Args:
        embeddings: (num_examples, dim), finite; cast to float32.
        min_cluster_size: At least 2.
        min_samples: At least 1; None is ``min_cluster_size``. Fewer where the other rows are fewer.
        noise: ``"drop"`` leaves noise the label -1, which no method keeps; ``"singletons"`` makes
            each such row a cluster of its own, numbered after the others.
        algorithm: ``"hdbscan"`` is the package throughout; ``"boruvka"`` makes the spanning tree by
            :func:`~codeact.selection.clustering.boruvka.reachability_tree`, about as fast in 5
            dimensions, 10 times in 20 and 25 times in 384 (10 k rows, one core), and leaves the
            package the rest.
        ids: Unique names of the rows; by default their own bytes.
        device: Of ``"boruvka"``: ``"cpu"``, a device of torch, or ``"auto"``, a GPU if torch sees
            one.

    Returns:
        Clusters numbered by size, the largest 0. None at all is an outcome too: all is noise.

    Raises:
        InputError: Wrong number of dimensions, NaN or infinity, an option that is none of these; of
            ``"boruvka"`` also numbers beyond 1e16, whose squares float32 would not hold.
        ImportError: hdbscan is not installed.
    """
    points = check_embeddings(embeddings)
    if min_samples is None:
        min_samples = min_cluster_size
    _check(min_cluster_size, min_samples, noise, algorithm)
    rows = Rows(len(points), ids, points)
    arranged = rows.arranged(points)
    if len(points) == 1:
        labels = np.full(1, -1)
    elif algorithm == "hdbscan":
        labels = _package_labels(arranged, min_cluster_size, min_samples)
    else:
        labels = boruvka_labels(arranged, min_cluster_size, min_samples, device)
    numbered = numbered_by_size(labels)
    if noise == "singletons":
        alone = np.flatnonzero(numbered < 0)
        numbered[alone] = numbered.max() + 1 + np.arange(len(alone))
    return clusters_in_given_order(rows, arranged, numbered)


def _package_labels(
    points: NDArray[np.float32], min_cluster_size: int, min_samples: int
) -> NDArray[np.int64]:
    package = _hdbscan()
    # One job: the package starts others for core distances alone, and then waits for them.
    labels: NDArray[np.int64] = package.HDBSCAN(
        min_cluster_size=int(min_cluster_size),
        min_samples=int(min_samples),
        approx_min_span_tree=False,
        core_dist_n_jobs=1,
    ).fit_predict(points.astype(np.float64))
    return labels


def boruvka_labels(
    points: NDArray[np.float32], min_cluster_size: int, min_samples: int, device: str
) -> NDArray[np.int64]:
    """The package's labels, -1 for noise, for a spanning tree by :func:`reachability_tree`.

    Args:
        points: (num_points, dim), finite; ties go by their order.
        min_cluster_size, min_samples, device: as for :func:`cluster_hdbscan`.
    """
    _hdbscan()  # before the work
    import torch
    from hdbscan._hdbscan_linkage import label
    from hdbscan._hdbscan_tree import compute_stability, condense_tree, get_clusters

    from codeact.ops.device import resolve_device
    from codeact.selection.clustering.boruvka import reachability_tree

    # Torch wants memory it may write to, which a memory-mapped file is not.
    ours = torch.from_numpy(np.require(points, requirements="W")).to(resolve_device(device))
    if max(float(points.max()), -float(points.min())) > _LARGEST:
        raise InputError(f"embeddings must be within {_LARGEST:g} of 0 for algorithm='boruvka'")
    tree = reachability_tree(ours, min_samples=min_samples)
    # Sorted as the package sorts it, whose order of equal edges is that of this very call.
    order = np.argsort(tree.weights)
    linked = np.column_stack([tree.edges, tree.weights])[order]
    condensed = condense_tree(label(linked), int(min_cluster_size))
    labels: NDArray[np.int64] = get_clusters(condensed, compute_stability(condensed))[0]
    return labels


def _hdbscan() -> ModuleType:
    try:
        import hdbscan
    except ImportError as error:
        raise ImportError("HDBSCAN needs the package hdbscan: pip install hdbscan") from error
    package: ModuleType = hdbscan
    return package


def _check(min_cluster_size: int, min_samples: int, noise: str, algorithm: str) -> None:
    sizes = {"min_cluster_size": (min_cluster_size, 2), "min_samples": (min_samples, 1)}
    for name, (value, least) in sizes.items():
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or value < least:
            raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
    choices = {"noise": (noise, get_args(Noise)), "algorithm": (algorithm, get_args(Algorithm))}
    for name, (choice, among) in choices.items():
        if choice not in among:
            raise InputError(f"{name} must be one of {', '.join(among)}, got {choice!r}")
