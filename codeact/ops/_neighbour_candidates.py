"""What may be near: lower bounds of squared distances from streamed float32 products.

Every backend takes ``squares``, which are a little below ``|x|^2`` (see ``PointCloud``), so that
``squares[i] + squares[j] - 2 x_i . x_j`` is a lower bound of the squared distance whatever the
product's rounding. No backend holds more than a block of rows of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from codeact import _C
from codeact.ops._products import exact_products

# 2 MiB of products, as the other streamed operations on the CPU.
_TILE_ROWS = 512
_TILE_COLS = 1024
# Elements of a block of products in plain PyTorch: 64 MiB on a CPU, 1 GiB on a GPU, where short
# blocks leave it idle.
_BLOCK = {"cpu": 1 << 24, "cuda": 1 << 28}


class Reach(NamedTuple):
    """For each row the column of another component with the least lower bound."""

    best: Tensor  # (num_rows,) float32, inf where there is no other component
    indices: Tensor  # (num_rows,) int64, -1 there
    second: Tensor  # (num_rows,) float32, the least bound of all other columns, inf for none


def nearest_cpu(points: Tensor, squares: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` least bounds of each point, itself left out, ascending, and their columns."""
    bounds = points.new_full((len(points), count), math.inf)
    indices = torch.full_like(bounds, -1, dtype=torch.int64)
    itself = torch.arange(len(points), device=points.device)
    memory = _tile_memory(points, len(points))
    for row in range(0, len(points), memory.shape[0]):
        rows = points[row : row + memory.shape[0]]
        for col in range(0, len(points), memory.shape[1]):
            tile = _product(rows, points[col : col + memory.shape[1]], memory)
            _C.nearest_rows(
                tile.data_ptr(),
                tile.shape[0],
                tile.shape[1],
                tile.stride(0),
                squares[row:].data_ptr(),
                squares[col:].data_ptr(),
                col,
                itself[row:].data_ptr(),
                count,
                bounds[row:].data_ptr(),
                indices[row:].data_ptr(),
                torch.get_num_threads(),
            )
    return bounds, indices


def nearest_blocks(points: Tensor, squares: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The same in plain PyTorch, on any device."""
    found = []
    for first, block in _bound_blocks(
        points, squares, torch.arange(len(points), device=points.device)
    ):
        row = torch.arange(len(block), device=points.device)
        block[row, first + row] = math.inf
        found.append(block.topk(count, largest=False))
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def reach_cpu(
    points: Tensor, squares: Tensor, floors: Tensor, components: Tensor, rows: Tensor
) -> Reach:
    """The least ``max(bound, floors[j])`` over the points ``j`` of another component."""
    best, second = points.new_full((2, len(rows)), math.inf)
    indices = torch.full_like(rows, -1)
    memory = _tile_memory(points, len(rows))
    for row in range(0, len(rows), memory.shape[0]):
        here = rows[row : row + memory.shape[0]]
        taken, row_squares, row_components = points[here], squares[here], components[here]
        for col in range(0, len(points), memory.shape[1]):
            tile = _product(taken, points[col : col + memory.shape[1]], memory)
            _C.reach_rows(
                tile.data_ptr(),
                tile.shape[0],
                tile.shape[1],
                tile.stride(0),
                row_squares.data_ptr(),
                squares[col:].data_ptr(),
                col,
                floors[col:].data_ptr(),
                row_components.data_ptr(),
                components[col:].data_ptr(),
                best[row:].data_ptr(),
                indices[row:].data_ptr(),
                second[row:].data_ptr(),
                torch.get_num_threads(),
            )
    return Reach(best, indices, second)


def reach_blocks(
    points: Tensor, squares: Tensor, floors: Tensor, components: Tensor, rows: Tensor
) -> Reach:
    """The same in plain PyTorch, on any device."""
    best, second = points.new_full((2, len(rows)), math.inf)
    indices = torch.full_like(rows, -1)
    for first, block in _bound_blocks(points, squares, rows):
        here = slice(first, first + len(block))
        block = torch.maximum(block, floors)
        block.masked_fill_(components[rows[here], None] == components, math.inf)
        least = block.topk(min(2, len(points)), largest=False)
        best[here] = least.values[:, 0]
        indices[here] = least.indices[:, 0].masked_fill(best[here].isinf(), -1)
        if len(points) > 1:
            second[here] = least.values[:, 1]
    return Reach(best, indices, second)


def reach_triton(
    points: Tensor, squares: Tensor, floors: Tensor, components: Tensor, rows: Tensor
) -> Reach:
    """The same by the kernel, which holds no products at all."""
    from codeact.kernels.row_reach import row_reach  # Triton is optional

    return Reach(
        *row_reach(
            points[rows], points, squares[rows], squares, floors, components[rows], components
        )
    )


def within(
    points: Tensor,
    squares: Tensor,
    floors: Tensor,
    components: Tensor,
    rows: Tensor,
    limits: Tensor,
) -> tuple[Tensor, Tensor]:
    """All (place in ``rows``, point of another component) with a bound of at most ``limits^2``."""
    limits = (limits.square() * (1 + 2.0**-22)).float()  # rounded up
    places, columns = [rows[:0]], [rows[:0]]
    for first, block in _bound_blocks(points, squares, rows):
        here = slice(first, first + len(block))
        inside = torch.maximum(block, floors) <= limits[here, None]
        inside &= components[rows[here], None] != components
        place, column = inside.nonzero(as_tuple=True)
        places.append(place + first)
        columns.append(column)
    return torch.cat(places), torch.cat(columns)


def rows_at_once(points: Tensor) -> int:
    """Rows whose bounds to all points make one block."""
    return max(1, _BLOCK[points.device.type] // len(points))


def pair_squares(points: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """(num_pairs,) float64 squared distances from the differences: these cancel nothing."""
    squared = torch.empty(len(left), dtype=torch.float64, device=points.device)
    if points.is_cpu:
        _C.squared_distances(
            points.data_ptr(),
            points.shape[1],
            points.stride(0),
            left.data_ptr(),
            right.data_ptr(),
            len(left),
            squared.data_ptr(),
            torch.get_num_threads(),
        )
        return squared
    step = max(1, _BLOCK["cuda"] // 16 // points.shape[1])
    for start in range(0, len(left), step):
        pairs = slice(start, start + step)
        difference = points[left[pairs]].double() - points[right[pairs]].double()
        squared[pairs] = difference.square_().sum(dim=1)
    return squared


def _bound_blocks(points: Tensor, squares: Tensor, rows: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first place in ``rows``, (block, num_points) bounds) of one block after the other."""
    step = rows_at_once(points)
    for first in range(0, len(rows), step):
        here = rows[first : first + step]
        with exact_products(points.device, points.dtype):
            block = points[here] @ points.T
        yield first, block.mul_(-2).add_(squares).add_(squares[here, None])


def _tile_memory(points: Tensor, num_rows: int) -> Tensor:
    # Rows grow with the threads, not columns: the order of a row's sums must not depend on them.
    rows = _TILE_ROWS * min(torch.get_num_threads(), 8)
    return points.new_empty(min(rows, max(num_rows, 1)), min(_TILE_COLS, len(points)))


def _product(rows: Tensor, columns: Tensor, memory: Tensor) -> Tensor:
    tile = memory[: len(rows), : len(columns)]
    torch.mm(rows, columns.T, out=tile)
    return tile
