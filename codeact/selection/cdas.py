"""CDAS: per cluster, the examples that are hardest to follow and still helped by their prompt."""

from __future__ import annotations

from collections.abc import Sequence, Sized

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from codeact.errors import InputError
from codeact.selection.budget import resolve_budget, split_by_largest_remainder
from codeact.selection.cdas_report import explain, make_report
from codeact.selection.clustering import (
    Clusters,
    check_embeddings,
    check_labels,
    cluster_kmeans,
)


class CDAS(BaseEstimator):  # type: ignore[misc]
    """Complexity and Diversity Aware Sampling (arXiv:2408.02193).

    K-means on the embeddings; in each cluster, rows whose IFD is 1 or more are dropped (there the
    prompt makes the response less likely), the rest is sorted by falling IFD and the top is kept.

    ``exact_budget=False`` is the rule of the authors' code: each cluster keeps
    ``int(eligible * budget)``, ties stay in row order. It keeps less than asked, because the share
    is taken of what survives the cap and is rounded down in every cluster, and it can keep nothing
    at all when clusters are tiny. ``exact_budget=True`` keeps exactly
    ``resolve_budget(budget, num_examples)`` rows: quotas proportional to the eligible rows by
    largest remainder, ties broken by ``ids`` (else by the embeddings), so that for given cluster
    labels the kept set does not depend on the order of the rows.

    Rows without a score (NaN or None) are never kept. The authors' code scores such rows 0, which
    leaves them in the pool at its end: pass 0 for them to get that.

    Args:
        budget: A count, or a float share in (0, 1]; only a share with ``exact_budget=False``.
        num_clusters: Clusters of the k-means, unless ``fit`` gets ``clusters``.
        seed: Of the k-means.
        exact_budget: See above.

    Attributes:
        selected_: (num_kept,) int64 row indices, by cluster, then by falling IFD.
        cluster_labels_: (num_examples,) int32.
        ranks_: (num_examples,) int32, from 0 for the highest IFD below 1 in its cluster; -1 for
            rows that are not ranked.
        reasons_: One plain-word reason a row; places count from 1.
        report_: CDASReport.
    """

    def __init__(
        self,
        budget: int | float = 0.4,
        num_clusters: int = 10,
        seed: int = 42,
        exact_budget: bool = True,
    ) -> None:
        self.budget = budget
        self.num_clusters = num_clusters
        self.seed = seed
        self.exact_budget = exact_budget

    def fit(
        self,
        embeddings: ArrayLike | None,
        ifd: ArrayLike,
        *,
        clusters: Clusters | ArrayLike | None = None,
        ids: Sequence[str] | None = None,
    ) -> CDAS:
        """Choose rows.

        Args:
            embeddings: (num_examples, dim); may be None when ``clusters`` is given.
            ifd: (num_examples,) ``ifd_ppl`` (or ``ifd_loss``); NaN or None where there is none.
            clusters: A clustering made before, or its (num_examples,) integer labels, -1 for noise.
            ids: Names that order ties; only used by the exact budget.

        Raises:
            InputError: Lengths differ, an IFD is negative, the budget is out of range, or fewer
                rows are eligible than an exact budget asks for.
        """
        scores = _check_ifd(ifd)
        num_asked = self._num_asked(len(scores))
        points = None if embeddings is None else check_embeddings(embeddings)
        _check_lengths(len(scores), embeddings=points, ids=ids)
        labels, num_clusters = self._labels(points, clusters, len(scores))

        eligible = np.flatnonzero((scores < 1.0) & (labels >= 0))  # NaN < 1 is False
        ties = np.arange(len(scores))
        if self.exact_budget:
            ties[eligible] = _content_ranks(scores, eligible, ids, points)
        order = eligible[np.lexsort((ties[eligible], -scores[eligible], labels[eligible]))]
        sizes = np.bincount(labels[eligible], minlength=num_clusters).astype(np.int64)
        starts = np.cumsum(sizes) - sizes
        if self.exact_budget:
            _check_enough(self.budget, num_asked, scores, len(eligible))
            quotas = _exact_quotas(num_asked, order, starts, sizes, scores, ties)
        else:
            quotas = np.array([int(int(size) * self.budget) for size in sizes], dtype=np.int64)

        self.cluster_labels_ = labels
        self.ranks_ = np.full(len(scores), -1, dtype=np.int32)
        self.ranks_[order] = np.arange(len(order)) - starts[labels[order]]
        self.selected_ = order[self.ranks_[order] < quotas[labels[order]]]
        self.reasons_ = explain(scores, labels, self.ranks_, sizes, quotas)
        self.report_ = make_report(scores, labels, sizes, quotas, num_asked)
        return self

    def _num_asked(self, num_examples: int) -> int:
        num_asked = resolve_budget(self.budget, num_examples)
        if not self.exact_budget and not isinstance(self.budget, (float, np.floating)):
            raise InputError(
                "budget must be a float share in (0, 1] with exact_budget=False (the authors' "
                f"rule takes a share of every cluster), got {self.budget!r}"
            )
        return num_asked

    def _labels(
        self,
        embeddings: NDArray[np.float32] | None,
        clusters: Clusters | ArrayLike | None,
        num_examples: int,
    ) -> tuple[NDArray[np.int32], int]:
        """Labels and the number of clusters: given, or by k-means."""
        if clusters is None:
            if embeddings is None:
                raise InputError("embeddings must be given when clusters are not, got None")
            clusters = cluster_kmeans(embeddings, num_clusters=self.num_clusters, seed=self.seed)
        if isinstance(clusters, Clusters):
            labels = check_labels(clusters.cluster_labels, num_examples)
            return labels, clusters.num_clusters
        labels = check_labels(clusters, num_examples)
        return labels, int(labels.max()) + 1


def _check_ifd(ifd: ArrayLike) -> NDArray[np.float64]:
    """The scores as float64 with NaN for None."""
    try:
        scores = np.asarray(ifd, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"ifd must be numbers, NaN or None, got: {error}") from None
    if scores.ndim != 1 or len(scores) == 0:
        raise InputError(f"ifd must be one number an example, got shape {scores.shape}")
    if (scores < 0).any():
        row = int(np.flatnonzero(scores < 0)[0])
        raise InputError(f"ifd must be 0 or more, got {scores[row]} in row {row}")
    return scores


def _check_lengths(num_examples: int, **columns: Sized | None) -> None:
    for name, column in columns.items():
        if column is not None and len(column) != num_examples:
            raise InputError(f"{name} must match ifd, {num_examples} rows, got {len(column)}")


def _check_enough(
    budget: int | float, num_asked: int, scores: NDArray[np.float64], num_eligible: int
) -> None:
    if num_asked <= num_eligible:
        return
    too_high, no_score = int((scores >= 1).sum()), int(np.isnan(scores).sum())
    noise = len(scores) - num_eligible - too_high - no_score
    raise InputError(
        f"budget = {budget!r} asks for {num_asked} of {len(scores)} examples but only "
        f"{num_eligible} can be kept: {too_high} have an IFD of 1 or more, {no_score} have no "
        f"score, {noise} are in no cluster"
    )


def _content_ranks(
    scores: NDArray[np.float64],
    eligible: NDArray[np.int64],
    ids: Sequence[str] | None,
    embeddings: NDArray[np.float32] | None,
) -> NDArray[np.int64]:
    """A rank for each eligible row that depends on what it holds, not on where it stands."""
    if ids is not None:
        names = [str(ids[row]) for row in eligible]
        place = {name: rank for rank, name in enumerate(sorted(set(names)))}
        return np.array([place[name] for name in names], dtype=np.int64)
    ranks = np.zeros(len(eligible), dtype=np.int64)
    if embeddings is None:
        return ranks
    _, inverse, counts = np.unique(scores[eligible], return_inverse=True, return_counts=True)
    tied = np.flatnonzero(counts[inverse] > 1)  # bytes are compared only where they decide
    by_content = sorted(tied, key=lambda place: embeddings[eligible[place]].tobytes())
    ranks[np.array(by_content, dtype=np.int64)] = np.arange(len(tied))
    return ranks


def _exact_quotas(
    total: int,
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    scores: NDArray[np.float64],
    ties: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Largest remainder; equal remainders go to the cluster whose next row has the highest IFD."""
    base = total * sizes // max(1, int(sizes.sum()))
    has_next = base < sizes
    next_rows = order[(starts + base)[has_next]]
    preference = np.full(len(sizes), len(sizes), dtype=np.int64)
    by_row = np.lexsort((ties[next_rows], -scores[next_rows]))
    preference[np.flatnonzero(has_next)[by_row]] = np.arange(len(next_rows))
    return split_by_largest_remainder(total, sizes, preference)
