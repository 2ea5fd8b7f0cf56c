"""How badly rows cover each other: the losses of a facility location, a tile at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Similarity = Literal["euclidean", "cosine"]

_TILE = 1024  # rows and columns of a tile: 4 MiB
# Squared distances below this share of a row's square are measured from the difference: from
# products they are wrong by about 1e-6 of it, which the root of a near duplicate would not forgive.
_NEAR = 1e-4
_GATHERED = 1 << 22  # elements gathered at a time for that, 16 MiB


class Reach(NamedTuple):
    """The rows that a candidate covers better than the rows kept do, and its loss for each."""

    rows: NDArray[np.int32]
    losses: NDArray[np.float32]


class Coverage:
    """Losses ``1 - similarity`` in [0, 1], exact to rounding for near rows too.

    ``euclidean``: the similarity is ``exp(-distance / dim)``, what submodlib's dense kernel of that
    name holds. ``cosine``: ``max(0, cosine)``, for points of unit length.

    Args:
        points: (num_rows, dim) float32 on any device.
        similarity: One of the two.
    """

    def __init__(self, points: Tensor, similarity: Similarity) -> None:
        self.points = points
        self.squares = points.square().sum(dim=1)
        self.similarity = similarity

    def __len__(self) -> int:
        return len(self.points)

    def losses(self, rows: Tensor | slice, columns: Tensor | slice) -> Tensor:
        """(num_rows, num_columns) float32 losses between rows of the set, by index or slice."""
        left, right = self.points[rows], self.points[columns]
        squared = torch.addmm(self.squares[columns], left, right.t(), alpha=-2)
        squared += self.squares[rows].unsqueeze(1)
        close = (squared < _NEAR * self.squares[rows].unsqueeze(1)).nonzero()
        for part in close.split(max(1, _GATHERED // self.points.shape[1])):
            i, j = part.unbind(1)
            squared[i, j] = (left[i] - right[j]).square_().sum(dim=1)
        if self.similarity == "cosine":  # |a - b|^2 = 2 - 2 cos
            return squared.mul_(0.5).clamp_(max=1)
        return squared.sqrt_().mul_(-1 / self.points.shape[1]).expm1_().neg_()

    def gains(self, covered: NDArray[np.float32] | None) -> NDArray[np.float64]:
        """Gain of each row as the next one kept: ``sum_i max(0, covered[i] - losses[i, j])``.

        ``covered`` are the losses of all rows under those kept; None is no row kept, where the
        gain of a row is the sum of its similarities. Losses are symmetric: half are computed.
        """
        device = self.points.device
        gains = torch.zeros(len(self), dtype=torch.float64, device=device)
        known = None if covered is None else torch.from_numpy(covered).to(device)
        for rows in _slices(0, len(self), _TILE):
            for columns in _slices(rows.start, len(self), _TILE):
                losses = self.losses(rows, columns)
                gains[columns] += _gains(losses, None if known is None else known[rows])
                if columns != rows:
                    gains[rows] += _gains(losses.t(), None if known is None else known[columns])
        return gains.cpu().numpy()

    def reaches(
        self, candidates: NDArray[np.int64], covered: NDArray[np.float32]
    ) -> Iterator[Reach]:
        """The reach of each candidate, given the losses of all rows under those kept."""
        device = self.points.device
        known = torch.from_numpy(covered).to(device)
        columns = torch.from_numpy(candidates).to(device)
        found: list[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]] = []
        for rows in _slices(0, len(self), max(_TILE, _TILE * _TILE // len(candidates))):
            losses = self.losses(columns, rows)
            column, row = (losses < known[rows]).nonzero(as_tuple=True)
            values = losses[column, row].cpu().numpy()
            row = (row + rows.start).to(torch.int32)
            found.append((column.cpu().numpy(), row.cpu().numpy(), values))
        for number in range(len(candidates)):
            parts = [
                (rows[slice(*np.searchsorted(column, (number, number + 1)))],
                 values[slice(*np.searchsorted(column, (number, number + 1)))])
                for column, rows, values in found
            ]  # fmt: skip
            yield Reach(
                np.concatenate([rows for rows, _ in parts]),
                np.concatenate([values for _, values in parts]),
            )


def _slices(start: int, stop: int, size: int) -> Iterator[slice]:
    return (slice(first, min(first + size, stop)) for first in range(start, stop, size))


def _gains(losses: Tensor, covered: Tensor | None) -> Tensor:
    """What each column wins over ``covered``, the losses of the rows, or over nothing."""
    if covered is None:
        return len(losses) - losses.sum(dim=0).double()
    return (covered.unsqueeze(1) - losses).clamp_(min=0).sum(dim=0).double()
