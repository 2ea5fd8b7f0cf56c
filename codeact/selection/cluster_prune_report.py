"""What cluster pruning did, in counts and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from codeact.selection.selector import SelectionReport


@dataclass(frozen=True, kw_only=True)
class ClusterPruneReport(SelectionReport):
    """Counts of the clusters, by label.

    ``num_noise`` rows were in no cluster as found or given; with ``noise="singletons"`` each of
    them counts as a cluster too, and is eligible. ``num_clusters`` are those that hold a row.
    ``explained_variance`` is the share that the principal components keep of the variance of what
    they were fitted on, None without PCA.
    """

    num_clusters: int
    num_noise: int
    explained_variance: float | None
    cluster_sizes: tuple[int, ...]
    cluster_kept: tuple[int, ...]


class Options(Protocol):
    """The options of the pruner that a reason names."""

    metric: str
    sampling: str


def explain(
    labels: NDArray[np.int32],
    ranks: NDArray[np.int32],
    kept: NDArray[np.bool_],
    metric: NDArray[np.float64],
    sizes: NDArray[np.int64],
    options: Options,
) -> list[str]:
    """One reason a row; places count from 1."""
    name = {"density": "log density", "nearest": "distance to its nearest neighbour"}.get(
        options.metric, options.metric
    )
    drawn = options.sampling == "proportional" or options.metric == "random"

    def reason(label: int, rank: int, is_kept: bool, value: float) -> str:
        if label < 0:
            return "dropped: noise, in no cluster"
        word = "kept" if is_kept else "dropped"
        place = f"place {rank + 1} of {sizes[label]} in cluster {label}"
        if options.metric == "random":
            return f"{word}: {place}, drawn at random"
        how = "drawn with a weight from" if drawn else "by"
        return f"{word}: {place}, {how} {name} {value:.4g}"

    rows = zip(labels.tolist(), ranks.tolist(), kept.tolist(), metric.tolist(), strict=True)
    return [reason(*row) for row in rows]
