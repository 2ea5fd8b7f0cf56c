"""Nearest neighbours of points among themselves, exact, without a matrix of distances.

Distances come from streamed float32 products as lower bounds (``_neighbour_candidates``): the sum
of the squares less what rounding may have taken. The candidates with the least bounds are measured
by the difference of the two points in float64; a row is done where the bounds rule out all others,
and the few that are not, near-duplicates mostly, are streamed again with all that may matter
measured. So near-duplicates, whose distances a product cancels, come out right.
"""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import torch
from torch import Tensor

from codeact.ops import _neighbour_candidates as candidates
from codeact.ops._backend import Backend, resolve_backend
from codeact.ops._derivatives import refuse_derivatives

_LOGGER = logging.getLogger(__name__)

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

# Of four times this a bound is made.
_LARGEST_SQUARE = 1e36
# Candidates beyond k: of 17000 MiniLM embeddings 8 leave none to be streamed again.
_SPARE = 8
# Rows streamed again at a time, or as many as make one block: their candidates make a list, which
# near-copies make as long as that block.
_AGAIN = 1024


class NearestK(NamedTuple):
    """The nearest other points of each point, nearest first, of equally near ones the lowest."""

    indices: Tensor  # (num_points, k) int64
    distances: Tensor  # (num_points, k) float64, Euclidean


class NearestOutside(NamedTuple):
    """For each row the nearest point of another component."""

    indices: Tensor  # (num_rows,) int64, -1 where there is no other component
    distances: Tensor  # (num_rows,) float64, inf there


class PointCloud:
    """Points prepared to be searched, at the price of one copy of them.

    Args:
        points: (num_points, dim) float32, finite, on any device; searches run there.

    Raises:
        ValueError: Another shape or dtype, or no point. On a CPU also points that are not finite,
            or whose squared distances from their mean float32 does not hold; a GPU would have to be
            waited for.
        RuntimeError: A gradient or tangent is wanted: there is none.
    """

    def __init__(self, points: Tensor) -> None:
        if points.ndim != 2 or 0 in points.shape or points.dtype != torch.float32:
            raise ValueError(
                "points must be (num_points, dim) float32 with a row and a column, got "
                f"{tuple(points.shape)} {points.dtype}"
            )
        refuse_derivatives("PointCloud", points)
        self.points = points.contiguous()
        mean = points.mean(dim=0, dtype=torch.float64).float()
        self.centred = self.points - mean
        # A sum of dim rounded products is off by sqrt(dim) roundings (by dim only if all errors
        # point one way), what is done to it by 8; and |x|^2 + |w|^2 bounds 2 |x . w|.
        rounding = (8 + math.sqrt(points.shape[1])) * 2.0**-24
        self.squares = self.centred.square().sum(dim=1) * (1 - rounding)
        if points.is_cpu and not bool((self.squares < _LARGEST_SQUARE).all()):
            raise ValueError(
                "points must be finite and within 1e18 of their mean, so that float32 holds squares"
            )

    def __len__(self) -> int:
        return len(self.points)


def nearest_k(points: Tensor | PointCloud, k: int, *, backend: Backend = "auto") -> NearestK:
    """The ``k`` nearest other points of each point.

    Args:
        points: (num_points, dim) float32, or a :class:`PointCloud` of it.
        k: From 1 to ``num_points - 1``.
        backend: ``"auto"`` is ``"cpu"`` (a product into a tile, then SIMD) for CPU tensors and
            ``"reference"`` (the same product by blocks of rows, ``torch.topk``) elsewhere.

    Raises:
        ValueError: ``k`` or the points differ from these.
    """
    cloud = points if isinstance(points, PointCloud) else PointCloud(points)
    num_points, device = len(cloud), cloud.points.device
    if not 1 <= k < num_points:
        raise ValueError(f"k must be from 1 to {num_points - 1}, one less than the points, got {k}")
    chosen = resolve_backend(backend, cloud.points, supported=("cpu",))
    count = min(num_points - 1, k + _SPARE)
    search = candidates.nearest_cpu if chosen == "cpu" else candidates.nearest_blocks
    bounds, indices = search(cloud.centred, cloud.squares, count)
    itself = torch.arange(num_points, device=device)
    distances = _measure(cloud, itself.repeat_interleave(count), indices.flatten())
    distances, indices = _by_distance(distances.view(num_points, count), indices)
    distances, indices = distances[:, :k].clone(), indices[:, :k].clone()
    farthest = distances[:, -1]
    done = (farthest.square() <= bounds[:, -1]) | (farthest == 0)
    again = (~done).nonzero()[:, 0] if count < num_points - 1 else itself[:0]
    floors, core = cloud.squares.new_zeros(num_points), farthest.new_zeros(num_points)
    for rows in _split(cloud, again):
        near = candidates.within(cloud.centred, cloud.squares, floors, itself, rows, farthest[rows])
        distances[rows], indices[rows] = _least(cloud, core, rows, *near, k)
    _LOGGER.debug("nearest_k: %d of %d rows streamed again", len(again), num_points)
    return NearestK(indices, distances)


def nearest_outside(
    points: Tensor | PointCloud,
    components: Tensor,
    core: Tensor,
    *,
    rows: Tensor | None = None,
    backend: Backend = "auto",
) -> NearestOutside:
    """The nearest point of another component by mutual reachability, for each of ``rows``.

    The distance of i and j is ``max(core[i], core[j], |x_i - x_j|)`` (Campello, Moulavi and Sander,
    2013). Where several j are equally near the choice among them is the backend's.

    Args:
        points: (num_points, dim) float32, or a :class:`PointCloud` of it.
        components: (num_points,) integers below 2**31.
        core: (num_points,) float64, at least 0.
        rows: (num_rows,) integers, points to search from; all of them by default.
        backend: ``"auto"`` is ``"triton"`` on a GPU that has it and ``"cpu"`` for CPU tensors;
            ``"reference"`` is plain PyTorch, by blocks of rows.

    Raises:
        ValueError: Shapes or dtypes differ from these; on a CPU also rows that are no points.
    """
    cloud = points if isinstance(points, PointCloud) else PointCloud(points)
    device = cloud.points.device
    if rows is None:
        rows = torch.arange(len(cloud), device=device)
    _check_outside(cloud, components, core, rows)
    components, core = components.to(device, torch.int32).contiguous(), core.to(device)
    rows = rows.to(device, torch.int64)
    # Rounded down: a bound must not be above what it bounds.
    floors = (core.square() * (1 - 2.0**-22)).float()
    chosen = resolve_backend(backend, cloud.points, supported=("triton", "cpu"))
    search = {
        "cpu": candidates.reach_cpu,
        "triton": candidates.reach_triton,
        "reference": candidates.reach_blocks,
    }[chosen]
    found = search(cloud.centred, cloud.squares, floors, components, rows)
    reached = found.indices >= 0
    nearest = found.indices.clamp(min=0)
    distances = torch.maximum(_measure(cloud, rows, nearest), core[nearest])
    distances = torch.maximum(distances, core[rows]).masked_fill_(~reached, math.inf)
    done = (distances <= core[rows]) | (distances.square() <= found.second) | ~reached
    again = (~done).nonzero()[:, 0]
    for places in _split(cloud, again):
        here = rows[places]
        near = candidates.within(
            cloud.centred, cloud.squares, floors, components, here, distances[places]
        )
        least, indices = _least(cloud, core, here, *near, 1)
        distances[places] = torch.maximum(least[:, 0], core[here])
        found.indices[places] = indices[:, 0]
    _LOGGER.debug("nearest_outside: %d of %d rows streamed again", len(again), len(rows))
    return NearestOutside(found.indices, distances)


def _split(cloud: PointCloud, again: Tensor) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = again.split(min(_AGAIN, candidates.rows_at_once(cloud.points)))
    return parts


def _measure(cloud: PointCloud, left: Tensor, right: Tensor) -> Tensor:
    squared = candidates.pair_squares(cloud.points, left.contiguous(), right.contiguous())
    return squared.sqrt_()


def _by_distance(distances: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Each row in the order of distance, equal ones in the order of their indices."""
    indices, order = indices.sort(dim=1)
    distances, again = distances.gather(1, order).sort(dim=1, stable=True)
    return distances, indices.gather(1, again)


def _least(
    cloud: PointCloud, core: Tensor, rows: Tensor, places: Tensor, columns: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """The k least ``max(core[column], distance)`` of each row, and their columns.

    The pairs are (rows[places], columns); each row is in at least k of them.
    """
    distances = torch.maximum(_measure(cloud, rows[places], columns), core[columns])
    order = columns.argsort(stable=True)
    order = order[distances[order].argsort(stable=True)]
    order = order[places[order].argsort(stable=True)]
    counts = torch.bincount(places, minlength=len(rows))
    first = counts.cumsum(0) - counts
    chosen = order[first[:, None] + torch.arange(k, device=first.device)]
    return distances[chosen], columns[chosen]


def _check_outside(cloud: PointCloud, components: Tensor, core: Tensor, rows: Tensor) -> None:
    integers = not components.is_floating_point() and rows.dtype in _INTEGERS
    shape = (len(cloud),)
    if components.shape != shape or core.shape != shape or rows.ndim != 1 or not integers:
        raise ValueError(
            f"nearest_outside expects {len(cloud)} integer components and core distances, one a "
            f"point, and a vector of rows, got {tuple(components.shape)} {components.dtype}, "
            f"{tuple(core.shape)} and {tuple(rows.shape)} {rows.dtype}"
        )
    if core.dtype != torch.float64:
        raise ValueError(f"core must be float64, got {core.dtype}")
    if rows.is_cpu and len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(cloud):
        raise ValueError(f"rows must be from 0 to {len(cloud) - 1}, got {rows.min()}, {rows.max()}")
