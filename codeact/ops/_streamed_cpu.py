"""The streamed reductions on the CPU: a matrix product into a tile, then SIMD over its rows.

The tile is float32 memory of one call that every step writes anew, so it stays in the cache and
calls from several threads do not meet. Half precision is upcast tile by tile: a processor without
matrix instructions for it emulates the product 20 times slower (note in torch's
LinearCrossEntropyOptions).
"""

from __future__ import annotations

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
    values: Tensor  # (num_rows, num_cols) float32, contiguous
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
    num_rows = len(rows)
    maximum, total, label = _running(num_rows)
    expected = torch.zeros(num_rows) if expectation else None
    bias, labels = _plain(bias), None if labels is None else labels.contiguous()
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
    maximum, total, label = _running(len(rows))
    weighted, label_tangent = torch.zeros(len(rows)), torch.full((len(rows),), float("nan"))
    bias, bias_tangent, labels = _plain(bias), _plain(bias_tangent), labels.contiguous()
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
    best = torch.full((len(rows),), float("-inf"))
    index = torch.full((len(rows),), -1, dtype=torch.int64)
    bias, excluded = _plain(bias), None if excluded is None else excluded.contiguous()
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
    memory = torch.empty(2 if tangent else 1, num_rows, num_cols)
    upcast = torch.empty(0 if rows.dtype == torch.float32 else 2, num_cols, rows.shape[1])
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


def _running(num_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Maximum, sum and label's logit before the first column; a label never met stays NaN."""
    negative = torch.full((num_rows,), float("-inf"))
    return negative, torch.zeros(num_rows), torch.full((num_rows,), float("nan"))


def _plain(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.float().contiguous()


def _address(values: Tensor | None, index: int) -> int:
    """Where element ``index`` of a vector, or row of a matrix, lies; 0 for None."""
    return 0 if values is None else values.data_ptr() + index * values.stride(0) * values.itemsize
