"""One row for each centroid, none twice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_BLOCK = 1 << 24  # elements of a block of products: 64 MiB


def nearest_untaken(points: Tensor, centroids: Tensor) -> NDArray[np.int64]:
    """(num_centroids,) row of the largest product with each centroid that none before it took.

    Centroids choose in their order; of equal products the first row is taken.

    Args:
        points: (num_rows, dim) float32, at least as many as centroids.
        centroids: (num_centroids, dim) float32.
    """
    chosen = np.empty(len(centroids), dtype=np.int64)
    size = max(1, _BLOCK // len(points))
    for first in range(0, len(centroids), size):
        products = (centroids[first : first + size] @ points.t()).cpu().numpy()
        products[:, chosen[:first]] = -np.inf
        for number, row in enumerate(products, start=first):
            row[chosen[first:number]] = -np.inf
            chosen[number] = np.argmax(row)
    return chosen
