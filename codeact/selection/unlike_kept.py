"""Rows in their order, each kept only if it resembles no row kept before it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codeact.ops import row_max
from codeact.selection.room import Room

_BLOCK = 1024  # rows compared with the kept ones at a time, and then with each other


class UnlikeKept(NamedTuple):
    """What the filter did with the rows it looked at, as numbers of rows, in order."""

    kept: NDArray[np.int64]
    alike: NDArray[np.int64]  # too similar to a kept row
    similarities: NDArray[np.float32]  # (num_rows,) the cosine that decided; NaN if not looked at


def unlike_kept(
    points: Tensor, order: NDArray[np.int64], threshold: float, room: Room
) -> UnlikeKept:
    """Walk through ``order`` and keep what fits and has no kept row of a larger cosine.

    It ends when no row of ``order`` that is left would fit. A row that does not fit is passed over:
    it is not kept, and later rows are not compared with it.

    Args:
        points: (num_rows, dim) float32, of unit length.
        order: Rows, best first.
        threshold: A cosine above it is too similar.
        room: Left for the rows; those kept are taken from it.
    """
    similarities = np.full(len(points), np.nan, dtype=np.float32)
    memory = points.new_empty((min(len(order), room.left, 1024), points.shape[1]))
    kept: list[int] = []
    alike: list[int] = []
    smallest = np.minimum.accumulate(room.costs[order][::-1])[::-1]
    for first in range(0, len(order), _BLOCK):
        if smallest[first] > room.left:
            break
        block = order[first : first + _BLOCK]
        rows = points[torch.from_numpy(block).to(points.device)]
        nearest = np.full(len(block), -np.inf, dtype=np.float32)
        if kept:
            nearest = row_max(rows, memory[: len(kept)]).values.cpu().numpy()
        among = (rows @ rows.t()).cpu().numpy()
        before = len(kept)
        for number, row in enumerate(block.tolist()):
            if not room.fits(row):
                continue
            similarities[row] = nearest[number] if kept else np.nan
            if nearest[number] > threshold:
                alike.append(row)
                continue
            room.take(row)
            kept.append(row)
            np.maximum(nearest, among[number], out=nearest)
        memory = _append(memory, points, kept[before:], before)
    return UnlikeKept(np.array(kept, np.int64), np.array(alike, np.int64), similarities)


def _append(memory: Tensor, points: Tensor, rows: list[int], filled: int) -> Tensor:
    """``memory`` with these rows behind the ``filled`` first, in twice as much where needed."""
    while filled + len(rows) > len(memory):
        memory = torch.cat([memory, torch.empty_like(memory)])
    memory[filled : filled + len(rows)] = points[torch.tensor(rows, dtype=torch.int64)]
    return memory
