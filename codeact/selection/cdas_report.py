"""What CDAS did, in counts and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codeact.selection.selector import SelectionReport


@dataclass(frozen=True)
class ClusterCounts:
    """One cluster: ``size = eligible + num_ifd_too_high + num_no_score``, ``kept <= eligible``."""

    cluster: int
    size: int
    eligible: int
    kept: int
    num_ifd_too_high: int
    num_no_score: int


@dataclass(frozen=True, kw_only=True)
class CDASReport(SelectionReport):
    """Totals over the whole set, and the counts of every cluster.

    Rows in no cluster (label -1) are counted in ``num_noise`` alone, so
    ``num_examples = num_eligible + num_ifd_too_high + num_no_score + num_noise``. With the authors'
    rule ``num_kept`` falls short of ``num_asked``.
    """

    num_ifd_too_high: int
    num_no_score: int
    num_noise: int
    clusters: tuple[ClusterCounts, ...]

    @property
    def num_clusters_without_eligible(self) -> int:
        """Clusters that have rows, but none below the cap: nothing of them is kept."""
        return sum(cluster.size > 0 and cluster.eligible == 0 for cluster in self.clusters)


def count_clusters(
    scores: NDArray[np.float64],
    labels: NDArray[np.int32],
    below: NDArray[np.bool_],
    groups: Sequence[NDArray[np.int64]],
    selected: NDArray[np.int64],
) -> tuple[ClusterCounts, ...]:
    """Count; ``groups`` are the eligible rows of each cluster, ``below`` those under the cap."""
    in_cluster, no_score = labels >= 0, np.isnan(scores)

    def count(mask: NDArray[np.bool_]) -> list[int]:
        return np.bincount(labels[mask & in_cluster], minlength=len(groups)).tolist()  # type: ignore[no-any-return]

    columns = (
        count(in_cluster),
        np.bincount(labels[selected], minlength=len(groups)).tolist(),
        count(~below & ~no_score),
        count(no_score),
    )
    return tuple(
        ClusterCounts(cluster, size, len(members), kept, num_ifd_too_high, num_no_score)
        for cluster, (members, size, kept, num_ifd_too_high, num_no_score) in enumerate(
            zip(groups, *columns, strict=True)
        )
    )


def explain(
    scores: NDArray[np.float64],
    labels: NDArray[np.int32],
    ranks: NDArray[np.int32],
    clusters: Sequence[ClusterCounts],
    selected: NDArray[np.int64],
    cap: float | None,
) -> tuple[str, ...]:
    """One reason a row, in the words of a report; places count from 1."""
    kept = np.zeros(len(scores), dtype=bool)
    kept[selected] = True
    helps = ", the prompt does not help" if cap == 1 else ""

    def reason(score: float, label: int, rank: int, is_kept: bool) -> str:
        if label < 0:
            return "dropped: in no cluster"
        if np.isnan(score):
            return "dropped: no IFD score"
        if rank < 0:
            return f"dropped: IFD {score:.4g} is not below {cap:g}{helps}"
        word = "kept" if is_kept else "dropped"
        place = f"IFD place {rank + 1} of {clusters[label].eligible} in cluster {label}"
        return f"{word}: {place}, which keeps {clusters[label].kept}"

    rows = zip(scores.tolist(), labels.tolist(), ranks.tolist(), kept.tolist(), strict=True)
    return tuple(reason(*row) for row in rows)
