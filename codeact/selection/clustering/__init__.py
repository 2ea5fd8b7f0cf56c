"""Clusterings of examples by their embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codeact.selection.clustering.choose_k import ChosenK, choose_num_clusters
from codeact.selection.clustering.clusters import Clusters, check_embeddings, check_labels
from codeact.selection.clustering.kmeans import cluster_kmeans

if TYPE_CHECKING:
    from codeact.selection.clustering.agglomerative import cluster_agglomerative
    from codeact.selection.clustering.hdbscan import cluster_hdbscan

__all__ = [
    "ChosenK",
    "Clusters",
    "check_embeddings",
    "check_labels",
    "choose_num_clusters",
    "cluster_agglomerative",
    "cluster_hdbscan",
    "cluster_kmeans",
]

# Imported on first use: they bring libraries that k-means does without.
_LAZY = {"cluster_agglomerative": "agglomerative", "cluster_hdbscan": "hdbscan"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
