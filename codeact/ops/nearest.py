"""Nearest neighbours and densities by streaming distances through a row reduction.

Squared distances are ``|x|^2 - 2 (x . w - |w|^2 / 2)``, so that the nearest point is a maximum and
a Gaussian density a log-sum-exp over products with a bias. Both cancel where ``|x|`` is large
beside the distance; therefore everything is first moved by the mean of the ``w``. What is left: two
candidates whose squared distances differ by less than about ``1e-6 * r^2``, ``r`` the largest
distance from that mean, may be told apart wrongly. The distance returned is that of the candidate
chosen, from the difference of the two points, and cancels nothing.

In up to 32 dimensions the CPU backend takes differences throughout, ``sum_d (x_d - w_d)^2``, which
there is faster than a product and cancels nothing: candidates are told apart to a few roundings of
their own squared distances.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from codeact.ops import _squares_cpu
from codeact.ops._backend import Backend
from codeact.ops._derivatives import refuse_derivatives
from codeact.ops.streamed import Logits, choose_backend, row_lse, row_max

_BLOCK = 1 << 22  # elements of gathered points held at a time, 16 MiB


class NearestCentroid(NamedTuple):
    """For each point the centroid nearest to it, and how far it is."""

    labels: Tensor  # (num_points,) int64; of equally near ones, as computed, the lowest
    distances: Tensor  # (num_points,) float32, squared Euclidean, >= 0


def nearest_centroid(
    points: Tensor, centroids: Tensor, *, backend: Backend = "auto"
) -> NearestCentroid:
    """The assignment step of k-means, without a (num_points, num_centroids) matrix.

    Args:
        points: (num_points, dim) of any floating dtype; float16 and bfloat16 are upcast, float64
            goes to the reference.
        centroids: (num_centroids, dim), of the same dtype.
        backend: as in :func:`codeact.ops.row_max`.

    Raises:
        ValueError: Shapes, dtypes or devices differ from these.
        RuntimeError: A gradient or tangent is wanted: there is none.
    """
    labels, distances = _nearest("nearest_centroid", points, centroids, None, backend)
    return NearestCentroid(labels, distances.float())


def min_distance(
    points: Tensor,
    queries: Tensor,
    *,
    metric: Literal["cosine", "euclidean"] = "cosine",
    excluded: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Distance of each point to the nearest query: the diversity of Tsai et al., arXiv:2407.05040.

    Args:
        points: (num_points, dim), of unit length for ``metric="cosine"``.
        queries: (num_queries, dim), of the same dtype.
        metric: ``"cosine"`` is one minus the dot product of the vectors as given, ``"euclidean"``
            the length of their difference.
        excluded: (num_points,) int64, the query that is the point itself and does not count, -1 for
            none; or None.
        backend: as in :func:`codeact.ops.row_max`.

    Returns:
        (num_points,) float32, inf where no query counts.

    Raises:
        ValueError: Shapes, dtypes, devices or the metric differ from these.
        RuntimeError: A gradient or tangent is wanted: there is none.
    """
    if metric == "cosine":
        return (1 - row_max(points, queries, excluded=excluded, backend=backend).values).float()
    if metric != "euclidean":
        raise ValueError(f"metric must be cosine or euclidean, got {metric!r}")
    labels, squared = _nearest("min_distance", points, queries, excluded, backend)
    return squared.sqrt().float().masked_fill(labels < 0, float("inf"))


def log_density(
    points: Tensor, samples: Tensor, *, bandwidth: float, backend: Backend = "auto"
) -> Tensor:
    """Gaussian kernel density of ``samples`` at each point, as a natural logarithm.

    ``log mean_j N(points[i]; samples[j], bandwidth^2 I)``, normalised like
    ``scipy.stats.gaussian_kde`` with that covariance. The absolute error grows with the square of
    the spread of the data in bandwidths: about ``2e-7 * (r / bandwidth)^2``, ``r`` the largest
    distance from the mean of the samples. For more than that, pass float64. In up to 32 dimensions
    on the CPU, ``r`` is but the distance of the samples that matter to the point.

    Args:
        points: (num_points, dim) of any floating dtype; float16 and bfloat16 are upcast, float64
            goes to the reference.
        samples: (num_samples, dim), of the same dtype.
        bandwidth: Standard deviation of the kernel.
        backend: as in :func:`codeact.ops.row_lse`.

    Returns:
        (num_points,) float32.

    Raises:
        ValueError: Shapes, dtypes or devices differ from these, or a bandwidth not above 0.
        RuntimeError: A gradient or tangent is wanted: there is none.
    """
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be above 0, got {bandwidth}")
    points, samples = _checked("log_density", points, samples)
    per_square = 1 / (2 * bandwidth**2)
    normaliser = math.log(len(samples)) + points.shape[1] * math.log(
        bandwidth * math.sqrt(2 * math.pi)
    )
    if choose_backend(backend, points) == "cpu" and _squares_cpu.takes(points, samples):
        lse = _squares_cpu.square_lse(points, samples, 2 * per_square)
        return (lse - normaliser).float()
    points, samples = _centred(points, samples)
    lse = row_lse(
        points,
        samples,
        None,
        bias=-per_square * _squares(samples),
        logits=Logits(scale=2 * per_square),
        backend=backend,
    ).lse
    return (lse - per_square * _squares(points) - normaliser).float()


def _nearest(
    operation: str, points: Tensor, targets: Tensor, excluded: Tensor | None, backend: Backend
) -> tuple[Tensor, Tensor]:
    """Index of the nearest target of each point (-1: none counts), and the squared distance."""
    points, targets = _checked(operation, points, targets)
    if excluded is not None and (
        excluded.shape != points.shape[:1]
        or excluded.dtype != torch.int64
        or excluded.device != points.device
    ):
        raise ValueError(
            f"{operation} expects excluded to be {len(points)} int64 on {points.device}, "
            f"got {tuple(excluded.shape)} {excluded.dtype} on {excluded.device}"
        )
    if choose_backend(backend, points) == "cpu" and _squares_cpu.takes(points, targets):
        return _squares_cpu.square_nearest(points, targets, excluded)
    points, targets = _centred(points, targets)
    nearest = row_max(
        points, targets, bias=-0.5 * _squares(targets), excluded=excluded, backend=backend
    ).indices
    distances = points.new_empty(len(points))
    block = max(1, _BLOCK // max(1, points.shape[1]))
    for start in range(0, len(points), block):
        rows = slice(start, start + block)
        chosen = targets[nearest[rows].clamp(min=0)]
        distances[rows] = _squares(points[rows] - chosen)
    return nearest, distances


def _checked(operation: str, points: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32 or float64."""
    if (
        points.ndim != 2
        or others.ndim != 2
        or len(others) == 0
        or points.shape[1] != others.shape[1]
        or points.dtype != others.dtype
        or points.device != others.device
    ):
        raise ValueError(
            f"{operation} expects two matrices of one dtype and device with as many columns, the "
            f"second with a row, got {tuple(points.shape)} {points.dtype} on {points.device} and "
            f"{tuple(others.shape)} {others.dtype} on {others.device}"
        )
    refuse_derivatives(operation, points, others)
    dtype = torch.promote_types(points.dtype, torch.float32)
    return points.to(dtype), others.to(dtype)


def _centred(points: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Both moved by the mean of ``others``."""
    mean = others.mean(dim=0, dtype=torch.float64).to(others.dtype)
    return points - mean, others - mean


def _squares(vectors: Tensor) -> Tensor:
    return vectors.square().sum(dim=1)
