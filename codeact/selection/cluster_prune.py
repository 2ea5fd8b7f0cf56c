"""Cluster pruning: reduce, cluster, measure each row, and draw in every cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.budget import Budget, QuotaPolicy
from codeact.selection.cluster_prune_report import ClusterPruneReport, explain
from codeact.selection.clustering import Clusters, check_embeddings, check_labels
from codeact.selection.reduction import reduce_dimensions
from codeact.selection.rows import Rows
from codeact.selection.selector import Selector

if TYPE_CHECKING:
    from typing import Self

Clusterer = Literal["kmeans", "agglomerative", "hdbscan", "none"]
Metric = Literal["diversity", "density", "nearest", "random"]


Floats = NDArray[np.float64]


class ClusterPruner(Selector):
    """Code Less, Align More (arXiv:2407.05040): prune every cluster by a metric of its rows.

    Embeddings are reduced by PCA, made unit length and clustered; each row gets a metric among all
    rows; each cluster keeps its share. With ``sampling="proportional"``, the paper's, rows are
    drawn without replacement with chances in proportion to a weight: of all eligible rows of a
    cluster the smallest ``-log(u) / weight`` (Efraimidis & Spirakis, 2006), ``u`` uniform from the
    row's name and the seed. With ``"top"`` the largest weights are kept.

    Weights are the metric itself for ``"diversity"`` (:func:`diversity_scores` against
    ``query_share`` of the rows at random) and ``"nearest"``
    (:func:`nearest_neighbour_distances`), ``1 / density`` for ``"density"``
    (:func:`density_scores`), and equal for ``"random"``. A row of weight 0, an exact duplicate, is
    taken only when nothing else is left in its cluster.

    Where the paper leaves things open: the cosine distance stands for its dot product, the weight
    falls with the density as its inverse, clusters get quotas of the budget by ``quotas``, so that
    it is met exactly, and PCA is fitted on the rows themselves, unless ``fit`` is told otherwise.

    Args:
        budget: Share, count or :class:`TokenBudget`, met exactly.
        clusterer: "none" is one cluster of all rows.
        num_clusters: Of k-means and agglomerative clustering; the names choose it from the data,
            for both by runs of k-means.
        kmeans_algorithm: Of :func:`cluster_kmeans`; "scikit-learn" gives the labels of its
            ``KMeans`` on the reduced rows in the order of :class:`Rows`.
        min_cluster_size: Of HDBSCAN, which has ``min_samples`` 5 as in the paper.
        pca_components: At most this many; None leaves the dimensions as they are.
        metric: See above.
        sampling: See above.
        noise: What becomes of rows in no cluster (label -1): never kept, as in the paper, or each
            its own cluster.
        query_share: Of the rows that diversity is measured against, at least two rows.
        quotas: How the budget is split over clusters.
        seed: Of clusters, queries and draws.
        device: Where metrics and clusters are computed.

    Attributes:
        selected_: By rising ``-log(u) / weight``, or by falling weight.
        ranks_: Places in the cluster.
        cluster_labels_: (num_examples,) int32; -1 for noise.
        metric_: (num_examples,) float64; the natural logarithm of the density for "density".
        weights_: (num_examples,) float64 in [0, 1], relative to the largest; the densest rows may
            round to 0, but are drawn by the logarithm.
        report_: ClusterPruneReport.
    """

    def __init__(
        self,
        budget: Budget = 0.5,
        clusterer: Clusterer = "kmeans",
        num_clusters: int | Literal["elbow", "silhouette"] = "elbow",
        kmeans_algorithm: Literal["full", "mini-batch", "scikit-learn"] = "full",
        min_cluster_size: int = 5,
        pca_components: int | None = 10,
        metric: Metric = "diversity",
        sampling: Literal["proportional", "top"] = "proportional",
        noise: Literal["drop", "singletons"] = "drop",
        query_share: float = 0.1,
        quotas: QuotaPolicy = "proportional",
        seed: int = 42,
        device: str = "auto",
    ) -> None:
        self.budget = budget
        self.clusterer = clusterer
        self.num_clusters = num_clusters
        self.kmeans_algorithm = kmeans_algorithm
        self.min_cluster_size = min_cluster_size
        self.pca_components = pca_components
        self.metric = metric
        self.sampling = sampling
        self.noise = noise
        self.query_share = query_share
        self.quotas = quotas
        self.seed = seed
        self.device = device

    def fit(
        self,
        embeddings: ArrayLike,
        *,
        clusters: Clusters | ArrayLike | None = None,
        pca_fit_on: ArrayLike | None = None,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> Self:
        """Choose rows.

        Args:
            embeddings: (num_examples, dim), of instruction and response in the paper.
            clusters: A clustering made before, or its labels, -1 for noise.
            pca_fit_on: (num_others, dim) embeddings that PCA is fitted on. The paper takes its
                benchmarks' test sets, which lets them into the selection; a warning says so.
            ids: Names of the rows; without them their embeddings name them.
            num_tokens: (num_examples,) tokens of each row, for a budget in tokens.

        Raises:
            InputError: An option or an input is not as said, or fewer rows are in clusters than
                the budget asks for.
        """
        self._check_options()
        points = check_embeddings(embeddings)
        rows = Rows(len(points), ids, points, num_tokens)
        reduced = reduce_dimensions(rows.arranged(points), self.pca_components, pca_fit_on)
        if clusters is None:
            labels = self._cluster(reduced.vectors, _arranged_ids(ids, rows))
        else:
            given = clusters.cluster_labels if isinstance(clusters, Clusters) else clusters
            labels = rows.arranged(check_labels(given, len(rows))).copy()
        metric, log_weights = self._measure(rows, reduced.vectors)
        num_noise = int((labels < 0).sum())
        if self.noise == "singletons":
            labels[labels < 0] = labels.max() + 1 + np.arange(num_noise)

        order = np.lexsort(self._draws(rows, log_weights))
        self.cluster_labels_ = labels[rows.place]
        self.metric_ = metric[rows.place]
        self.weights_ = _relative(log_weights)[rows.place]
        self._take(rows, order[labels[order] >= 0], num_noise, reduced.explained_variance)
        return self

    def _take(
        self, rows: Rows, order: NDArray[np.int64], num_noise: int, explained: float | None
    ) -> None:
        """Each cluster's quota of ``order``, the places of the eligible rows from the best on."""
        order = rows.order[order]
        labels = self.cluster_labels_
        by_cluster = order[np.argsort(labels[order], kind="stable")]
        sizes = np.bincount(labels[order], minlength=int(labels.max(initial=-1)) + 1)
        starts = np.cumsum(sizes) - sizes
        why = f"{num_noise} are noise, in no cluster" if num_noise else "all rows are in clusters"
        groups = np.split(by_cluster, starts[1:])
        kept = np.zeros(len(rows), dtype=bool)
        kept[rows.take_groups(groups, self.budget, why, policy=self.quotas)] = True

        self.selected_ = order[kept[order]]
        self.ranks_ = np.full(len(rows), -1, dtype=np.int32)
        self.ranks_[by_cluster] = np.arange(len(order)) - starts[labels[by_cluster]]
        kept_sizes = np.bincount(labels[self.selected_], minlength=len(sizes))
        self.report_ = ClusterPruneReport(
            **self._counts(rows, len(order)),
            num_clusters=int((sizes > 0).sum()),
            num_noise=num_noise,
            explained_variance=explained,
            cluster_sizes=tuple(sizes.tolist()),
            cluster_kept=tuple(kept_sizes.tolist()),
        )
        self.reasons_ = explain(labels, self.ranks_, kept, self.metric_, sizes, self)

    def _check_options(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        if not 0 < self.query_share <= 1:
            raise InputError(f"query_share must be in (0, 1], got {self.query_share}")

    def _cluster(
        self, vectors: NDArray[np.float32], ids: Sequence[str] | None
    ) -> NDArray[np.int32]:
        """Labels by the clusterer, in the order of places as its arguments are."""
        if self.clusterer == "none":
            return np.zeros(len(vectors), dtype=np.int32)
        from codeact.selection import clustering  # here: its parts bring libraries of their own

        if self.clusterer == "hdbscan":
            found = clustering.cluster_hdbscan(
                vectors, min_cluster_size=self.min_cluster_size, ids=ids, device=self.device
            )
        elif self.clusterer == "agglomerative":
            num_clusters = self.num_clusters
            if isinstance(num_clusters, str):
                from codeact.selection.clustering.choose_k import choose_num_clusters

                chosen = choose_num_clusters(vectors, method=num_clusters, seed=self.seed, ids=ids)
                num_clusters = chosen.num_clusters
            found = clustering.cluster_agglomerative(vectors, num_clusters=num_clusters, ids=ids)
        else:
            found = clustering.cluster_kmeans(
                vectors,
                num_clusters=self.num_clusters,
                seed=self.seed,
                algorithm=self.kmeans_algorithm,
                ids=ids,
                device=self.device,
            )
        return found.cluster_labels.copy()

    def _measure(self, rows: Rows, vectors: NDArray[np.float32]) -> tuple[Floats, Floats]:
        """Metric and logarithm of the weight, in the order of places."""
        from codeact.selection import pruning_metrics  # brings torch

        if self.metric == "random":
            return np.ones(len(rows)), np.zeros(len(rows))
        if self.metric == "density":
            log_density = pruning_metrics.density_scores(vectors, device=self.device)
            return log_density, -log_density
        if self.metric == "nearest":
            distances = pruning_metrics.nearest_neighbour_distances(vectors, device=self.device)
        else:
            count = min(len(rows), max(2, round(self.query_share * len(rows))))
            keys = rows.keys(self.seed, "queries")[rows.order]
            queries = np.sort(np.argsort(keys, kind="stable")[:count])
            distances = pruning_metrics.diversity_scores(vectors, queries, device=self.device)
        with np.errstate(divide="ignore"):
            logs = np.log(distances)
        return distances, np.where(np.isposinf(logs), 0.0, logs)  # inf: a row alone

    def _draws(self, rows: Rows, log_weights: Floats) -> tuple[Floats, Floats]:
        """What rows are sorted by, the last first; in the order of places."""
        waits = np.log(-np.log(rows.uniforms(self.seed, "cluster-prune")[rows.order]))
        if self.sampling == "top" and self.metric != "random":
            return np.zeros_like(waits), -log_weights
        # In logarithms, where 1 / density cannot overflow; weight 0 waits for ever, and the first
        # key orders those that do.
        return waits, waits - log_weights


_CHOICES = {
    "clusterer": ("kmeans", "agglomerative", "hdbscan", "none"),
    "metric": ("diversity", "density", "nearest", "random"),
    "sampling": ("proportional", "top"),
    "noise": ("drop", "singletons"),
    "quotas": ("proportional", "sqrt", "equal"),
}


def _arranged_ids(ids: Sequence[str] | None, rows: Rows) -> list[str] | None:
    return None if ids is None else [str(ids[row]) for row in rows.order.tolist()]


def _relative(log_weights: Floats) -> Floats:
    largest = log_weights.max()
    return np.exp(log_weights - (largest if np.isfinite(largest) else 0.0))
