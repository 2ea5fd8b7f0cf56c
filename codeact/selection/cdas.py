"""CDAS: per cluster, the examples that are hardest to follow and still helped by their prompt."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.budget import Budget, QuotaPolicy, TokenBudget
from codeact.selection.cdas_report import CDASReport, count_clusters, explain
from codeact.selection.clustering import (
    Clusters,
    check_embeddings,
    check_labels,
    cluster_kmeans,
)
from codeact.selection.ranked import below_cap, check_ifd, rank_rows
from codeact.selection.rows import Rows
from codeact.selection.selector import Selector, rank_groups

if TYPE_CHECKING:
    from typing import Self


class CDAS(Selector):
    """Complexity and Diversity Aware Sampling (arXiv:2408.02193).

    K-means on the embeddings; in each cluster, rows whose IFD is 1 or more are dropped (there the
    prompt makes the response less likely), the rest is sorted by falling IFD and the top is kept.

    ``exact_budget=False`` is the authors' script: scikit-learn's k-means on the rows as they stand,
    each cluster keeps ``int(eligible * budget)``, ties stay in row order. It keeps less than asked,
    because the share is taken of what survives the cap and is rounded down in every cluster, and it
    can keep nothing at all when clusters are tiny. ``exact_budget=True`` keeps exactly what the
    budget asks of the whole set, and neither the clusters nor the ties depend on the order of the
    rows.

    A cluster without a row below the cap keeps nothing: its rows answer questions that do not help
    them, and its share goes to the others. ``report_.num_clusters_without_eligible`` counts them.

    Rows without a score (NaN or None) are never kept. The authors' code scores such rows 0, which
    leaves them in the pool at its end: pass 0 for them to get that.

    Args:
        budget: Share, count or :class:`TokenBudget`; only a share with ``exact_budget=False``.
        num_clusters: Clusters of the k-means, or the rule that chooses their number, unless
            ``fit`` gets ``clusters``.
        seed: Of the k-means.
        exact_budget: See above.
        quotas: ``proportional`` to the eligible rows of each cluster (by largest remainder), to
            their square root (``sqrt``), or ``equal``; what a cluster is too small for goes to the
            others. With a budget in tokens, of the tokens of the rows. Equal remainders go to the
            cluster whose next row has the highest IFD where quotas are proportional and the budget
            is of rows, else to the one whose best row has. The authors' script is proportional.
        cap: Rows of this IFD or more are not eligible; None keeps them.
        device: Of the k-means.

    Attributes:
        selected_: (num_kept,) int64 row indices, by cluster, then by falling IFD.
        cluster_labels_: (num_examples,) int32, -1 for noise, which is never kept.
        ranks_: Places in the cluster, from the highest IFD below the cap.
        report_: CDASReport.
    """

    report_: CDASReport

    def __init__(
        self,
        budget: Budget = 0.4,
        num_clusters: int | Literal["elbow", "silhouette"] = 10,
        seed: int = 42,
        exact_budget: bool = True,
        quotas: QuotaPolicy = "proportional",
        cap: float | None = 1.0,
        device: str = "auto",
    ) -> None:
        self.budget = budget
        self.num_clusters = num_clusters
        self.seed = seed
        self.exact_budget = exact_budget
        self.quotas = quotas
        self.cap = cap
        self.device = device

    def fit(
        self,
        embeddings: ArrayLike | None,
        ifd: ArrayLike,
        *,
        clusters: Clusters | ArrayLike | None = None,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> Self:
        """Choose rows.

        Args:
            embeddings: (num_examples, dim); may be None when ``clusters`` is given.
            ifd: (num_examples,) ``ifd_ppl`` (or ``ifd_loss``); NaN or None where there is none.
            clusters: A clustering made before, or its (num_examples,) integer labels, -1 for noise.
            ids: Names of the rows; without them the embeddings name them.
            num_tokens: (num_examples,) tokens of each row, for a budget in tokens.

        Raises:
            InputError: Lengths differ, an IFD is negative, the budget is out of range, or fewer
                rows are eligible than an exact budget asks for.
        """
        scores = check_ifd(ifd)
        if not self.exact_budget:
            self._check_authors_options()
        points = None if embeddings is None else check_embeddings(embeddings)
        _check_lengths(len(scores), embeddings=points, ids=ids)
        rows = Rows(len(scores), ids, points, num_tokens)
        rows.asked(self.budget)  # refused before the clustering takes its time
        labels, num_clusters = self._labels(points, clusters, len(scores), ids)
        below = below_cap(scores, self.cap)
        groups = self._groups(rows, scores, below & (labels >= 0), labels, num_clusters)
        self.selected_ = self._take(rows, groups, scores, labels)
        self.cluster_labels_ = labels
        self.ranks_ = rank_groups(len(scores), groups)
        counts = count_clusters(scores, labels, below, groups, self.selected_)
        self.report_ = CDASReport(
            **self._counts(rows, sum(map(len, groups))),
            num_ifd_too_high=sum(cluster.num_ifd_too_high for cluster in counts),
            num_no_score=sum(cluster.num_no_score for cluster in counts),
            num_noise=int((labels < 0).sum()),
            clusters=counts,
        )
        self.reasons_ = explain(scores, labels, self.ranks_, counts, self.selected_, self.cap)
        return self

    def _check_authors_options(self) -> None:
        """The authors' rule takes a share of every cluster, and knows nothing else."""
        if not isinstance(self.budget, (float, np.floating)):
            raise InputError(
                "budget must be a float share in (0, 1] with exact_budget=False (the authors' "
                f"rule takes a share of every cluster), got {self.budget!r}"
            )
        if self.quotas != "proportional":
            raise InputError(
                f"quotas must be proportional with exact_budget=False, got {self.quotas!r}"
            )

    def _labels(
        self,
        embeddings: NDArray[np.float32] | None,
        clusters: Clusters | ArrayLike | None,
        num_examples: int,
        ids: Sequence[str] | None,
    ) -> tuple[NDArray[np.int32], int]:
        """Labels and the number of clusters: given, or by k-means."""
        if clusters is None:
            if embeddings is None:
                raise InputError("embeddings must be given when clusters are not, got None")
            clusters = cluster_kmeans(
                embeddings,
                num_clusters=self.num_clusters,
                seed=self.seed,
                algorithm="full" if self.exact_budget else "scikit-learn",
                ids=ids,
                device=self.device,
            )
        if isinstance(clusters, Clusters):
            labels = check_labels(clusters.cluster_labels, num_examples)
            return labels, max(clusters.num_clusters, int(labels.max()) + 1)
        labels = check_labels(clusters, num_examples)
        return labels, int(labels.max()) + 1

    def _groups(
        self,
        rows: Rows,
        scores: NDArray[np.float64],
        eligible: NDArray[np.bool_],
        labels: NDArray[np.int32],
        num_clusters: int,
    ) -> list[NDArray[np.int64]]:
        """The eligible rows of each cluster by falling IFD."""
        if self.exact_budget:
            order = rank_rows(rows, -scores, eligible)
        else:  # ties in row order
            members = np.flatnonzero(eligible)
            order = members[np.argsort(-scores[members], kind="stable")]
        order = order[np.argsort(labels[order], kind="stable")]
        ends = np.cumsum(np.bincount(labels[order], minlength=num_clusters))
        return np.split(order, ends[:-1]) if num_clusters else []

    def _take(
        self,
        rows: Rows,
        groups: list[NDArray[np.int64]],
        scores: NDArray[np.float64],
        labels: NDArray[np.int32],
    ) -> NDArray[np.int64]:
        """The kept rows, by cluster."""
        if not self.exact_budget:
            kept = [members[: int(len(members) * self.budget)] for members in groups]  # type: ignore[operator]
            return np.concatenate([np.zeros(0, np.int64), *kept])
        noise, no_score = labels < 0, np.isnan(scores)
        num_eligible = sum(map(len, groups))
        too_high = len(scores) - num_eligible - int((noise | no_score).sum())
        why = [f"{(no_score & ~noise).sum()} have no score", f"{noise.sum()} are in no cluster"]
        if self.cap is not None:
            why.insert(0, f"{too_high} have an IFD of {self.cap:g} or more")
        preference = self._preference(rows, groups, scores)
        return rows.take_groups(
            groups, self.budget, ", ".join(why), preference=preference, policy=self.quotas
        )

    def _preference(
        self, rows: Rows, groups: list[NDArray[np.int64]], scores: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Clusters by falling IFD of the row that one more place would keep."""
        by_count = self.quotas == "proportional" and not isinstance(self.budget, TokenBudget)
        total = rows.asked(self.budget) if by_count else 0
        num_eligible = max(1, sum(map(len, groups)))

        def next_row(group: int) -> tuple[float, int]:
            place = total * len(groups[group]) // num_eligible
            if place >= len(groups[group]):
                return 1.0, 0  # behind every other: none is left
            row = groups[group][place]
            return -float(scores[row]), int(rows.place[row])

        preference = np.empty(len(groups), dtype=np.int64)
        preference[sorted(range(len(groups)), key=next_row)] = np.arange(len(groups))
        return preference


def _check_lengths(num_examples: int, **columns: Sized | None) -> None:
    for name, column in columns.items():
        if column is not None and len(column) != num_examples:
            raise InputError(f"{name} must match ifd, {num_examples} rows, got {len(column)}")
