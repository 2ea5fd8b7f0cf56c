"""Farthest-first traversal, exact, with most distances never computed one centre at a time.

The plain loop reads all rows once per centre: for 100 000 x 384 and 10 000 centres 1.5 TB. A row's
distance to the centres only falls, so a distance from an earlier moment is an upper bound. A round
takes the rows with the largest bounds into a pool, brings those up to date with one product against
all centres that they have not met, and picks within the pool for as long as its farthest row is
above every bound outside. A row is multiplied with a centre at most about once, in large products,
and only while its bound is among the largest.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codeact.ops import row_max
from codeact.selection.room import Room

# Rows of a pool. It doubles when a round picks more than a quarter of it and halves below a
# thirty-second, so that neither the products nor the walks through all bounds dominate.
_SMALLEST_POOL = 256
_LARGEST_POOL = 4096
_BLOCK = 512  # rows brought up to date in one product
# Relative slack of a squared distance from float32 products, in units of the largest square.
_SLACK = 1e-5


class FarthestFirst(NamedTuple):
    """The rows picked, in order, and how far each row is from them."""

    order: NDArray[np.int64]
    gaps: NDArray[np.float32]  # of each pick: its distance to the picks before; inf for the first
    distances: NDArray[np.float32]  # (num_rows,) to the nearest pick


def farthest_first(points: Tensor, start: int, room: Room) -> FarthestFirst:
    """Greedy k-centre (Gonzalez, 1985): again and again the row farthest from those picked.

    Distances are Euclidean, measured from differences in float32; which of two picks is nearer is
    decided by products, so that ties within about ``1e-6 * r^2`` of a squared distance (``r`` the
    radius of the set) may go either way. Of equal rows the first is picked.

    Args:
        points: (num_rows, dim) float32, centred, on any device.
        start: First row picked, if it fits; else the nearest to it that does.
        room: For at least one row; rows that do not fit when it is their turn are passed over.
    """
    traversal = _Traversal(points, room)
    size = _SMALLEST_POOL
    traversal.begin(start)
    while (room.fitting() & traversal.is_open).any():
        picked = traversal.round(size)
        size = min(size * 2, _LARGEST_POOL) if picked > size // 8 else size
        size = max(size // 2, _SMALLEST_POOL) if picked < size // 32 else size
    return traversal.result()


class _Traversal:
    def __init__(self, points: Tensor, room: Room) -> None:
        self.points = points
        self.room = room
        self.squares = points.square().sum(dim=1)
        self.slack = _SLACK * float(self.squares.max())
        self.bounds = np.full(len(points), np.inf, dtype=np.float32)  # squared distances
        self.num_met = np.zeros(len(points), dtype=np.int64)  # centres that a bound knows
        self.is_open = np.ones(len(points), dtype=bool)  # neither picked nor passed over
        self.order: list[int] = []
        self.gaps: list[float] = []
        self.centres = points.new_empty((1024, points.shape[1]))
        self.halves = points.new_empty(1024)

    def begin(self, start: int) -> None:
        """Pick the row nearest to ``start`` that fits, and measure all rows from there."""
        away = (self.points - self.points[start]).square().sum(dim=1).cpu().numpy()
        away[~self.room.fitting()] = np.inf
        self.pick(int(np.argmin(away)), np.inf)
        self.bring_up_to_date(np.arange(len(self.points)))

    def pick(self, row: int, gap: float) -> None:
        num = len(self.order)
        if num == len(self.centres):
            self.centres = torch.cat([self.centres, torch.empty_like(self.centres)])
            self.halves = torch.cat([self.halves, torch.empty_like(self.halves)])
        self.centres[num] = self.points[row]
        self.halves[num] = -0.5 * self.squares[row]
        self.order.append(row)
        self.gaps.append(gap)
        self.is_open[row] = False
        self.room.take(row)

    def bring_up_to_date(self, rows: NDArray[np.int64]) -> None:
        """Lower the bounds of ``rows`` to their distances to all centres."""
        num = len(self.order)
        rows = rows[np.argsort(self.num_met[rows], kind="stable")]
        rows = rows[: np.searchsorted(self.num_met[rows], num)]
        for begin in range(0, len(rows), _BLOCK):
            block = rows[begin : begin + _BLOCK]
            first = int(self.num_met[block[0]])
            points = self.points[torch.from_numpy(block).to(self.points.device)]
            found = row_max(points, self.centres[first:num], bias=self.halves[first:num])
            nearest = self.centres[first:num][found.indices]
            squared = (points - nearest).square_().sum(dim=1).cpu().numpy()
            self.bounds[block] = np.minimum(self.bounds[block], squared)
        self.num_met[rows] = num

    def round(self, size: int) -> int:
        """Pick within the ``size`` rows of the largest bounds; returns how many were picked."""
        bounds = np.where(self.is_open & self.room.fitting(), self.bounds, -1)
        pool = _largest(bounds, size)
        bounds[pool] = -1
        rival = int(np.argmax(bounds))  # the first of the largest bounds outside
        limit = float(bounds[rival])
        self.bring_up_to_date(pool)
        index = torch.from_numpy(pool).to(self.points.device)
        points, squares = self.points[index], self.squares[index]
        values = self.bounds[pool].copy()
        num_before = len(self.order)
        while True:
            open_values = np.where(self.is_open[pool] & self._fits(pool), values, -1)
            best = int(np.argmax(open_values))
            value = float(open_values[best])
            if value < limit or value < 0 or (value == limit and pool[best] > rival):
                break
            self.pick(int(pool[best]), value**0.5)
            _lower(values, points, squares, best, self.slack)
        self.bounds[pool] = values
        self.num_met[pool] = len(self.order)
        return len(self.order) - num_before

    def _fits(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        return self.room.costs[rows] <= self.room.left

    def result(self) -> FarthestFirst:
        self.bring_up_to_date(np.arange(len(self.points)))
        order = np.array(self.order, dtype=np.int64)
        self.bounds[order] = 0
        return FarthestFirst(order, np.array(self.gaps, dtype=np.float32), np.sqrt(self.bounds))


def _largest(bounds: NDArray[np.float32], size: int) -> NDArray[np.int64]:
    """The ``size`` rows of the largest bounds, of equal ones the first, in ascending order."""
    if size >= len(bounds):
        return np.flatnonzero(bounds >= 0)
    edge = np.partition(bounds, len(bounds) - size)[len(bounds) - size]
    above = np.flatnonzero(bounds > max(edge, -0.5))
    if edge < 0:
        return above
    level = np.flatnonzero(bounds == edge)[: size - len(above)]
    return np.sort(np.concatenate([above, level]))


def _lower(
    values: NDArray[np.float32], points: Tensor, squares: Tensor, centre: int, slack: float
) -> None:
    """Lower the squared distances of a pool by those to one of its rows, in place.

    A product finds the rows that may come nearer, the difference of the points says how near.
    """
    roughly = squares + squares[centre] - 2 * (points @ points[centre])
    near = np.flatnonzero(roughly.cpu().numpy() <= values + slack)
    index = torch.from_numpy(near).to(points.device)
    exact = (points[index] - points[centre]).square_().sum(dim=1).cpu().numpy()
    values[near] = np.minimum(values[near], exact)
