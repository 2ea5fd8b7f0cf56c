"""How dispensable a row is among the others: nearest query, density, nearest neighbour.

The metrics of Tsai et al., "Code Less, Align More" (arXiv:2407.05040), exact and without a matrix
of all pairs. Vectors are (num_rows, dim) float32 of unit length; results are (num_rows,) float64.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from codeact.errors import InputError
from codeact.ops import log_density, min_distance, row_max
from codeact.ops.device import resolve_device
from codeact.selection.clustering import check_embeddings

# Rows at a time where float64 copies are made: 2048 x 1536 are 24 MiB.
_BLOCK = 2048

# Directions with less than this share of the largest variance are rounding: float32 coordinates
# give about 1e-14.
_NO_VARIANCE = 1e-11

# Up to here ops.min_distance takes differences throughout, on the CPU.
_FEW_DIMS = 32

Floats = NDArray[np.float32]


def diversity_scores(
    vectors: Floats, queries: NDArray[np.int64], *, device: str = "auto"
) -> NDArray[np.float64]:
    """Cosine distance of each row to the nearest of some rows, itself not counted.

    ``min over x in queries, x != x_i, of 1 - vectors[i] . vectors[x]``, as ``|a - b|^2 / 2``, which
    is the same for unit vectors and cancels nothing. In more than 32 dimensions the nearest query
    is found by float32 products; the distance of another that these confuse with it differs by
    about 1e-7. The paper writes the dot product as a distance; it is a similarity, so the distance
    is one minus it.

    Args:
        vectors: Of unit length.
        queries: (num_queries,) rows to measure against; the paper takes a random tenth.
        device: "auto", "cpu" or "cuda".

    Returns:
        inf for a row that is the only query itself.

    Raises:
        InputError: No query, or one that is no row.
    """
    vectors, queries = check_embeddings(vectors), np.unique(queries)
    whole = queries.dtype.kind in "iu" and len(queries) > 0
    if not whole or not 0 <= queries[0] <= queries[-1] < len(vectors):
        got = ", ".join(str(query) for query in queries[[0, -1]]) if len(queries) else "none"
        raise InputError(f"queries must be rows from 0 to {len(vectors) - 1}, got {got}")
    position = np.full(len(vectors), -1)
    position[queries] = np.arange(len(queries))
    return _half_squares(vectors, vectors[queries], position, device)


def nearest_neighbour_distances(vectors: Floats, *, device: str = "auto") -> NDArray[np.float64]:
    """Euclidean distance of each row to the nearest other row; inf for a row alone."""
    vectors = check_embeddings(vectors)
    return np.sqrt(2 * _half_squares(vectors, vectors, np.arange(len(vectors)), device))


def density_scores(
    vectors: Floats, *, whiten: bool = True, device: str = "auto"
) -> NDArray[np.float64]:
    """Gaussian kernel density of all rows at each row, as a natural logarithm.

    The value of ``scipy.stats.gaussian_kde(vectors.T).logpdf``: the kernel's covariance is Scott's
    ``n^(-1 / (d + 4))`` squared times the covariance of the data. The rows are whitened in float64,
    then it is one isotropic kernel. Directions without variance are left out, and ``d`` counts the
    others: for rows that span all their dimensions nothing changes, for others scipy raises.

    ``whiten=False`` is ``sklearn.neighbors.KernelDensity(bandwidth="scott")``: the same factor as a
    plain standard deviation, whatever the scale of the data. Unit vectors in 10 dimensions have
    standard deviations near 0.3, so that it smooths about three times as widely.

    The error is about 1e-6 in up to 32 dimensions on the CPU, else that of :func:`log_density`.

    Returns:
        Zeros where the rows do not differ at all.
    """
    points, log_volume = check_embeddings(vectors), 0.0
    num_rows, dim = points.shape
    if whiten:
        points, log_volume = _whitened(points)
        dim = points.shape[1]
    if dim == 0:
        return np.zeros(num_rows)
    on_device = torch.from_numpy(points).to(resolve_device(device))
    found = log_density(on_device, on_device, bandwidth=num_rows ** (-1 / (dim + 4)))
    return found.double().cpu().numpy() - log_volume


def _whitened(vectors: Floats) -> tuple[Floats, float]:
    """Rows of mean 0 and covariance I, and half the log-determinant of the covariance they had."""
    num_rows, dim = vectors.shape
    mean = vectors.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((dim, dim))
    for start in range(0, num_rows, _BLOCK):
        centred = vectors[start : start + _BLOCK] - mean
        covariance += centred.T @ centred
    variances, directions = np.linalg.eigh(covariance / max(1, num_rows - 1))
    varies = variances > _NO_VARIANCE * max(variances[-1], np.finfo(np.float32).tiny)
    scales = np.sqrt(variances[varies])
    points = np.empty((num_rows, len(scales)), dtype=np.float32)
    for start in range(0, num_rows, _BLOCK):
        rows = slice(start, start + _BLOCK)
        points[rows] = (vectors[rows] - mean) @ (directions[:, varies] / scales)
    return points, float(np.log(scales).sum())


def _half_squares(
    vectors: Floats, others: Floats, excluded: NDArray[np.int64], device: str
) -> NDArray[np.float64]:
    """Half the squared distance of each row to the nearest of ``others``; inf where none counts."""
    place = resolve_device(device)
    points, targets = (torch.from_numpy(x).to(place) for x in (vectors, others))
    left_out = torch.from_numpy(excluded).to(place)
    if vectors.shape[1] <= _FEW_DIMS:
        nearest = min_distance(points, targets, metric="euclidean", excluded=left_out)
        found = nearest.double().square() / 2
    else:
        indices = row_max(points, targets, excluded=left_out).indices
        found = points.new_empty(len(points), dtype=torch.float64)
        for start in range(0, len(points), _BLOCK):
            rows = slice(start, start + _BLOCK)
            gaps = points[rows] - targets[indices[rows].clamp(min=0)]
            found[rows] = gaps.square_().sum(dim=1, dtype=torch.float64) / 2
        found.masked_fill_(indices < 0, torch.inf)
    half_squares: NDArray[np.float64] = found.cpu().numpy()
    return half_squares
