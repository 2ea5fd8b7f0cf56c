"""Rows on a plane: near each other where their embeddings are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_SHOWN = 2000  # points that a page draws at once and that t-SNE places in seconds
_NUM_COMPONENTS = 50
_LEAST_FOR_TSNE = 50  # fewer rows have no neighbourhoods to keep
_PERPLEXITY = 30.0


@dataclass(frozen=True)
class RowMap:
    """Places of some rows.

    Attributes:
        rows: (num_shown,) int64 row indices.
        places: (num_shown, 2) float64.
        method: How they were placed, in words.
    """

    rows: NDArray[np.int64]
    places: NDArray[np.float64]
    method: str


def map_rows(
    embeddings: NDArray[np.float32],
    ids: Sequence[str],
    *,
    seed: int = 0,
    max_shown: int = MAX_SHOWN,
) -> RowMap:
    """Place at most ``max_shown`` random rows on a plane.

    Their embeddings are reduced to 50 principal components, then by t-SNE (van der Maaten and
    Hinton, JMLR 2008; Barnes-Hut, perplexity 30, started from the first two components). Fewer than
    50 rows stand at their first two components. Which rows are drawn depends on ``ids`` and seed
    alone, and the map is the same for the same rows in another order.

    Args:
        embeddings: (num_rows, dim), finite.
        ids: (num_rows,) unique names.
        seed: Of the draw and of t-SNE.
        max_shown: Most rows on the map.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    from codeact.selection.rows import Rows

    rows = np.argsort(Rows(len(ids), ids).keys(seed, "map"), kind="stable")[:max_shown]
    points = np.asarray(embeddings[rows], dtype=np.float64)
    num_components = min(_NUM_COMPONENTS, *points.shape)
    with np.errstate(invalid="ignore"):  # rows that are all alike explain no variance
        reduced: Any = PCA(num_components, svd_solver="full").fit_transform(points)
    if len(rows) < _LEAST_FOR_TSNE or num_components < 2:
        plane = np.zeros((len(rows), 2))
        plane[:, : min(2, num_components)] = reduced[:, :2]
        return RowMap(rows, plane, "principal components")
    with threadpool_limits(1):  # sums of several threads come in any order
        places = TSNE(
            init="pca", random_state=seed, perplexity=min(_PERPLEXITY, (len(rows) - 1) / 3)
        ).fit_transform(reduced.astype(np.float32))
    return RowMap(rows, places.astype(np.float64), "t-SNE")
