"""The streamed reductions on the CPU: a matrix product into a tile, then SIMD over its rows.

The tile is float32 memory of one call that every step writes anew, so it stays in the cache and
calls from several threads do not meet. Half precision is upcast tile by tile: a processor without
matrix instructions for it emulates the product 20 times slower (note in torch's
LinearCrossEntropyOptions).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from codeact import _C

# 2 MiB of products. On one core of a Zen 3 server (head of 49152 x 576, 500 rows) any shape from
# 256 x 1024 to 512 x 2048 runs at 70 to 77 GFLOP/s, as does the bare product; 128 rows lose 10 %,
# for the product packs the columns anew for each block of rows.
_TILE_ROWS = 512
_TILE_COLS = 1024


class _Tile(NamedTuple):
    """``values[i, j]`` is the product of row ``first_row + i`` and column ``first_col + j``."""

    first_row: int
    first_col: int
    values: Tensor  # (num_rows, num_cols) float32, columns adjacent
    tangent: Tensor | None  # the same of its derivative


def row_lse(
    rows: Tensor,
    columns: Tensor,
    labels: Tensor | None,
    bias: Tensor | None,
    scale: float,
    softcap: float | None,
    temperature: float,
    skip: int | None,
    expectation: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    maximum, total, label = (_filled(len(rows), start) for start in (-math.inf, 0.0, math.nan))
    expected = _filled(len(rows), 0.0) if expectation else None
    bias = _float32(bias)
    for tile in _tiles(rows, columns):
        _C.lse_rows(
            tile.values.data_ptr(),
            tile.values.shape[0],
            tile.values.shape[1],
            tile.values.stride(0),
            _address(bias, tile.first_col),
            scale,
            softcap or 0.0,
            temperature,
            _address(labels, tile.first_row),
            tile.first_col,
            _address(maximum, tile.first_row),
            _address(total, tile.first_row),
            _address(label, tile.first_row),
            _address(expected, tile.first_row),
            torch.get_num_threads(),
        )
    mean = None if expected is None else expected / total
    return maximum + torch.log(total), label, mean


def row_lse_tangent(
    rows: Tensor,
    columns: Tensor,
    labels: Tensor,
    rows_tangent: Tensor | None,
    columns_tangent: Tensor | None,
    bias: Tensor | None,
    bias_tangent: Tensor | None,
    scale: float,
    softcap: float | None,
    temperature: float,
    skip: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    maximum, total, label, weighted, label_tangent = (
        _filled(len(rows), start) for start in (-math.inf, 0.0, math.nan, 0.0, math.nan)
    )
    bias, bias_tangent = _float32(bias), _float32(bias_tangent)
    for tile in _tiles(rows, columns, rows_tangent, columns_tangent, tangent=True):
        _C.lse_tangent_rows(
            tile.values.data_ptr(),
            _address(tile.tangent, 0),
            tile.values.shape[0],
            tile.values.shape[1],
            tile.values.stride(0),
            _address(bias, tile.first_col),
            _address(bias_tangent, tile.first_col),
            scale,
            softcap or 0.0,
            temperature,
            _address(labels, tile.first_row),
            tile.first_col,
            _address(maximum, tile.first_row),
            _address(total, tile.first_row),
            _address(label, tile.first_row),
            _address(weighted, tile.first_row),
            _address(label_tangent, tile.first_row),
            torch.get_num_threads(),
        )
    return maximum + torch.log(total), label, weighted / total, label_tangent


def row_max(
    rows: Tensor, columns: Tensor, bias: Tensor | None, excluded: Tensor | None
) -> tuple[Tensor, Tensor]:
    best = _filled(len(rows), -math.inf)
    index = torch.full_like(best, -1, dtype=torch.int64)
    bias = _float32(bias)
    for tile in _tiles(rows, columns):
        _C.max_rows(
            tile.values.data_ptr(),
            tile.values.shape[0],
            tile.values.shape[1],
            tile.values.stride(0),
            _address(bias, tile.first_col),
            _address(excluded, tile.first_row),
            tile.first_col,
            _address(best, tile.first_row),
            _address(index, tile.first_row),
            torch.get_num_threads(),
        )
    return best, index


def _tiles(
    rows: Tensor,
    columns: Tensor,
    rows_tangent: Tensor | None = None,
    columns_tangent: Tensor | None = None,
    *,
    tangent: bool = False,
) -> Iterator[_Tile]:
    """Products of row blocks with column blocks, in memory that the next tile overwrites."""
    # Rows grow with the threads, not columns: the order of a row's sums must not depend on them.
    num_rows = min(_TILE_ROWS * min(torch.get_num_threads(), 8), max(len(rows), 1))
    num_cols = min(_TILE_COLS, len(columns))
    memory = rows.new_empty((2 if tangent else 1, num_rows, num_cols), dtype=torch.float32)
    num_upcast = 0 if rows.dtype == torch.float32 else 2 if columns_tangent is not None else 1
    upcast = rows.new_empty((num_upcast, num_cols, rows.shape[1]), dtype=torch.float32)
    for first_row in range(0, len(rows), num_rows):
        here = slice(first_row, first_row + num_rows)
        block = rows[here].float()
        moved = None if rows_tangent is None else rows_tangent[here].float()
        for first_col in range(0, len(columns), num_cols):
            there = slice(first_col, first_col + num_cols)
            these = _float(columns[there], upcast[:1])
            moving = None if columns_tangent is None else _float(columns_tangent[there], upcast[1:])
            tile = memory[:, : len(block), : len(these)]
            torch.mm(block, these.t(), out=tile[0])
            if tangent:
                _product_tangent(block, these, moved, moving, tile[1])
            yield _Tile(first_row, first_col, tile[0], tile[1] if tangent else None)


def _product_tangent(
    rows: Tensor,
    columns: Tensor,
    rows_tangent: Tensor | None,
    columns_tangent: Tensor | None,
    out: Tensor,
) -> None:
    if rows_tangent is None:
        out.zero_()
    else:
        torch.mm(rows_tangent, columns.t(), out=out)
    if columns_tangent is not None:
        out.addmm_(rows, columns_tangent.t())


def _float(values: Tensor, memory: Tensor) -> Tensor:
    """``values`` as float32: themselves, or a copy in ``memory[0]``."""
    if values.dtype == torch.float32:
        return values
    return memory[0, : len(values)].copy_(values)


def _filled(num_rows: int, start: float) -> Tensor:
    """What is known of each row before the first column; a label that is not met stays NaN."""
    # PyTorch's defaults for both are the caller's to set, and C++ gets no more than an address.
    return torch.full((num_rows,), start, dtype=torch.float32, device="cpu")


def _float32(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.float()


def _address(values: Tensor | None, index: int) -> int:
    """Where element ``index`` of a vector, or row of a matrix, lies; 0 for None."""
    return 0 if values is None else values.data_ptr() + index * values.stride(0) * values.itemsize
