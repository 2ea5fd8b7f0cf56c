"""What CDAS did, in counts and in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClusterCounts:
    """One cluster: ``size = eligible + num_ifd_too_high + num_no_score``, ``kept <= eligible``."""

    cluster: int
    size: int
    eligible: int
    kept: int
    num_ifd_too_high: int
    num_no_score: int


@dataclass(frozen=True)
class CDASReport:
    """Totals over the whole set, and the counts of every cluster.

    ``num_asked`` is what the budget stands for on the whole set; ``num_kept`` equals it when the
    budget is exact. Rows in no cluster (label -1) are counted in ``num_noise`` alone, so
    ``num_examples = num_eligible + num_ifd_too_high + num_no_score + num_noise``.
    """

    num_examples: int
    num_asked: int
    num_kept: int
    num_eligible: int
    num_ifd_too_high: int
    num_no_score: int
    num_noise: int
    clusters: tuple[ClusterCounts, ...]


def make_report(
    scores: NDArray[np.float64],
    labels: NDArray[np.int32],
    sizes: NDArray[np.int64],
    quotas: NDArray[np.int64],
    num_asked: int,
) -> CDASReport:
    """Count; ``sizes`` are the eligible rows of each cluster, ``quotas`` the kept ones."""
    num_clusters = len(sizes)
    in_cluster = labels >= 0
    too_high = np.bincount(labels[in_cluster & (scores >= 1)], minlength=num_clusters)
    no_score = np.bincount(labels[in_cluster & np.isnan(scores)], minlength=num_clusters)
    clusters = tuple(
        ClusterCounts(
            cluster=cluster,
            size=int(sizes[cluster] + too_high[cluster] + no_score[cluster]),
            eligible=int(sizes[cluster]),
            kept=int(quotas[cluster]),
            num_ifd_too_high=int(too_high[cluster]),
            num_no_score=int(no_score[cluster]),
        )
        for cluster in range(num_clusters)
    )
    return CDASReport(
        num_examples=len(scores),
        num_asked=num_asked,
        num_kept=int(quotas.sum()),
        num_eligible=int(sizes.sum()),
        num_ifd_too_high=int(too_high.sum()),
        num_no_score=int(no_score.sum()),
        num_noise=int((~in_cluster).sum()),
        clusters=clusters,
    )


def explain(
    scores: NDArray[np.float64],
    labels: NDArray[np.int32],
    ranks: NDArray[np.int32],
    sizes: NDArray[np.int64],
    quotas: NDArray[np.int64],
) -> tuple[str, ...]:
    """One reason a row, in the words of a report; places count from 1."""

    def reason(score: float, label: int, rank: int) -> str:
        if label < 0:
            return "dropped: in no cluster"
        if np.isnan(score):
            return "dropped: no IFD score"
        if rank < 0:
            return f"dropped: IFD {score:.4g} is not below 1, the prompt does not help"
        word = "kept" if rank < quotas[label] else "dropped"
        place = f"IFD place {rank + 1} of {sizes[label]} in cluster {label}"
        return f"{word}: {place}, which keeps {quotas[label]}"

    rows = zip(scores.tolist(), labels.tolist(), ranks.tolist(), strict=True)
    return tuple(reason(*row) for row in rows)
