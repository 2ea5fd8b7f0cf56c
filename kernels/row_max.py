"""The largest entry of each row of a product that is never stored, and the column it stands in.

value_ij = rows_i . columns_j + bias_j. A program owns a block of rows and a split of the columns; a
second kernel merges the splits in the order of the columns, so that of equal values the lowest
column wins whatever the schedule. Cost: 2 * num_rows * num_columns * dim operations.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from codeact.kernels.product import (
    column_vector,
    labels_of_rows,
    product_tile,
    tiles_of_split,
    to_logits,
)
from codeact.kernels.schedule import lse_tile, plan

# Beyond any column. Columns of NaN are counted from its negative, which puts them first.
FAR = tl.constexpr(2**30)
MERGE_BLOCK = 128
MERGE_WARPS = 4


@triton.jit
def _better(value, index, best, best_index):
    """(best, best_index) after a value that stands in a later column; NaN beats all."""
    better = (value > best) | ((value != value) & (best == best))
    return tl.where(better, value, best), tl.where(better, index, best_index)


@triton.jit(do_not_specialize=["num_rows", "num_columns", "num_splits"])
def _row_max_kernel(
    rows,  # (num_rows, dim): a descriptor or a pointer
    columns,  # (num_columns, dim)
    bias_ptr,  # (num_columns,), or None
    excluded_ptr,  # (num_rows,) int64: a column that does not count; or None
    best_ptr,  # (num_splits, num_rows) float32, out
    index_ptr,  # (num_splits, num_rows) int32, out: -1 where nothing is above -inf
    num_rows,
    num_columns,
    dim,
    rows_stride,
    columns_stride,
    num_splits,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    EVEN_DIM: tl.constexpr,
    TMA: tl.constexpr,
    UPCAST: tl.constexpr,
):
    split = tl.program_id(0) % num_splits
    first_row = tl.program_id(0) // num_splits * BLOCK_ROWS
    row = first_row + tl.arange(0, BLOCK_ROWS)
    first_tile, end_tile = tiles_of_split(split, num_splits, num_columns, BLOCK_COLS)
    if excluded_ptr is not None:
        excluded = labels_of_rows(excluded_ptr, row, num_rows).to(tl.int32)
    best = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
    index = tl.full([BLOCK_ROWS], -1, tl.int32)
    for tile in range(first_tile, end_tile):
        first_col = tile * BLOCK_COLS
        products = product_tile(
            rows, columns, first_row, first_col, num_rows, num_columns, dim, rows_stride,
            columns_stride, BLOCK_ROWS, BLOCK_COLS, BLOCK_DIM, EVEN_DIM, TMA, UPCAST,
        )  # fmt: skip
        column = first_col + tl.arange(0, BLOCK_COLS)
        bias = None
        if bias_ptr is not None:
            bias = column_vector(bias_ptr, column, num_columns)
        values = to_logits(products, bias, None, None, None)
        if excluded_ptr is not None:
            here = (excluded >= first_col) & (excluded < first_col + BLOCK_COLS)
            if tl.max(here.to(tl.int32), axis=0) > 0:
                is_excluded = excluded[:, None] == column[None, :]
                values = tl.where(is_excluded, float("-inf"), values)
        if first_col + BLOCK_COLS > num_columns:
            values = tl.where((column < num_columns)[None, :], values, float("-inf"))
        largest = tl.max(values, axis=1)  # of those that are numbers
        place = tl.where(values == largest[:, None], column[None, :], FAR)
        place = tl.where(values != values, column[None, :] - FAR, place)
        place = tl.min(place, axis=1)
        largest = tl.where(place < 0, float("nan"), largest)
        place = tl.where(place < 0, place + FAR, place)
        best, index = _better(largest, place, best, index)
    out = split.to(tl.int64) * num_rows + row
    tl.store(best_ptr + out, best, mask=row < num_rows)
    tl.store(index_ptr + out, index, mask=row < num_rows)


@triton.jit(do_not_specialize=["num_rows", "num_splits"])
def _merge_maxima_kernel(
    best_ptr,  # (num_splits, num_rows) float32
    index_ptr,  # (num_splits, num_rows) int32
    values_ptr,  # (num_rows,) float32, out
    indices_ptr,  # (num_rows,) int64, out
    num_rows,
    num_splits,
    BLOCK_ROWS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    valid = row < num_rows
    best = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
    index = tl.full([BLOCK_ROWS], -1, tl.int32)
    here = row
    for _ in range(num_splits):
        value = tl.load(best_ptr + here, mask=valid, other=0.0)
        place = tl.load(index_ptr + here, mask=valid, other=0)
        best, index = _better(value, place, best, index)
        here += num_rows
    tl.store(values_ptr + row, best, mask=valid)
    tl.store(indices_ptr + row, index.to(tl.int64), mask=valid)


def row_max(
    rows: Tensor,
    columns: Tensor,
    bias: Tensor | None,
    excluded: Tensor | None,
    *,
    num_splits: int | None = None,
    tma: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """(values float32, indices int64), each (num_rows,).

    Of equal values the lowest column; a NaN counts as the largest. A row without any value above
    -inf has the index -1.

    Args:
        rows, columns, bias: as in :func:`codeact.kernels.row_lse.row_lse`.
        excluded: (num_rows,) int64, contiguous: the column that does not count, -1 for none.
        num_splits, tma: for tests; see :func:`codeact.kernels.schedule.plan`.
    """
    num_rows = rows.shape[0]
    values = torch.empty(num_rows, dtype=torch.float32, device=rows.device)
    indices = torch.empty(num_rows, dtype=torch.int64, device=rows.device)
    if num_rows == 0:
        return values, indices
    cut = plan(rows, columns, lse_tile, num_splits=num_splits, tma=tma)
    rows, columns = cut.aligned(rows), cut.aligned(columns)
    best = values.new_empty((cut.num_splits, num_rows))
    index = torch.empty_like(best, dtype=torch.int32)
    with torch.cuda.device_of(rows):
        _row_max_kernel[cut.grid](
            cut.operand(rows, cut.tile.rows),
            cut.operand(columns, cut.tile.cols),
            bias,
            excluded,
            best,
            index,
            num_rows,
            columns.shape[0],
            cut.dim,
            rows.stride(0),
            columns.stride(0),
            cut.num_splits,
            **cut.options(rows.dtype),
        )
        _merge_maxima_kernel[(triton.cdiv(num_rows, MERGE_BLOCK),)](
            best,
            index,
            values,
            indices,
            num_rows,
            cut.num_splits,
            BLOCK_ROWS=MERGE_BLOCK,
            num_warps=MERGE_WARPS,
            enable_fp_fusion=True,
        )
    return values, indices
