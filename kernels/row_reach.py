"""The nearest point of another component for each row, by mutual reachability.

reach_ij = max(row_squares_i + column_squares_j - 2 rows_i . columns_j, floor_j), where i and j are
of different components. Kept of each row are the least reach, its column, and the least reach of
all other columns, by which the caller knows whether rounding can have hidden a nearer one. The
schedule is that of row_max: a program owns a block of rows and a split of the columns, a second
kernel merges the splits. Cost: 2 * num_rows * num_columns * dim operations.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from codeact.kernels.product import column_vector, product_tile, tiles_of_split
from codeact.kernels.schedule import lse_tile, plan

FAR = tl.constexpr(2**30)  # beyond any column
MERGE_BLOCK = 128
MERGE_WARPS = 4


@triton.jit
def _joined(best, index, second, other_best, other_index, other_second):
    """The two least of two sets; of equal values the first set's column, which is the lower."""
    second = tl.minimum(tl.minimum(second, other_second), tl.maximum(best, other_best))
    nearer = other_best < best
    return tl.where(nearer, other_best, best), tl.where(nearer, other_index, index), second


@triton.jit(do_not_specialize=["num_rows", "num_columns", "num_splits"])
def _row_reach_kernel(
    rows,  # (num_rows, dim): a descriptor or a pointer
    columns,  # (num_columns, dim)
    row_squares_ptr,  # (num_rows,) float32
    column_squares_ptr,  # (num_columns,) float32
    floor_ptr,  # (num_columns,) float32
    row_component_ptr,  # (num_rows,) int32
    column_component_ptr,  # (num_columns,) int32
    best_ptr,  # (num_splits, num_rows) float32, out
    index_ptr,  # (num_splits, num_rows) int32, out: -1 where there is no other component
    second_ptr,  # (num_splits, num_rows) float32, out
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
    row_squares = tl.load(row_squares_ptr + row, mask=row < num_rows, other=0.0)
    row_component = tl.load(row_component_ptr + row, mask=row < num_rows, other=0)
    best = tl.full([BLOCK_ROWS], float("inf"), tl.float32)
    index = tl.full([BLOCK_ROWS], -1, tl.int32)
    second = tl.full([BLOCK_ROWS], float("inf"), tl.float32)
    for tile in range(first_tile, end_tile):
        first_col = tile * BLOCK_COLS
        products = product_tile(
            rows, columns, first_row, first_col, num_rows, num_columns, dim, rows_stride,
            columns_stride, BLOCK_ROWS, BLOCK_COLS, BLOCK_DIM, EVEN_DIM, TMA, UPCAST,
        )  # fmt: skip
        column = first_col + tl.arange(0, BLOCK_COLS)
        squares = row_squares[:, None] + column_vector(column_squares_ptr, column, num_columns)
        reach = squares - 2.0 * products
        reach = tl.maximum(reach, column_vector(floor_ptr, column, num_columns))
        component = tl.load(column_component_ptr + column, mask=column < num_columns, other=0)
        counts = (component[None, :] != row_component[:, None]) & (column < num_columns)[None, :]
        reach = tl.where(counts, reach, float("inf"))
        least = tl.min(reach, axis=1)
        place = tl.min(tl.where(reach == least[:, None], column[None, :], FAR), axis=1)
        others = tl.where(column[None, :] == place[:, None], float("inf"), reach)
        place = tl.where(least == float("inf"), -1, place)
        best, index, second = _joined(best, index, second, least, place, tl.min(others, axis=1))
    out = split.to(tl.int64) * num_rows + row
    tl.store(best_ptr + out, best, mask=row < num_rows)
    tl.store(index_ptr + out, index, mask=row < num_rows)
    tl.store(second_ptr + out, second, mask=row < num_rows)


@triton.jit(do_not_specialize=["num_rows", "num_splits"])
def _merge_reaches_kernel(
    best_ptr,  # (num_splits, num_rows) float32
    index_ptr,  # (num_splits, num_rows) int32
    second_ptr,  # (num_splits, num_rows) float32
    bests_ptr,  # (num_rows,) float32, out
    indices_ptr,  # (num_rows,) int64, out
    seconds_ptr,  # (num_rows,) float32, out
    num_rows,
    num_splits,
    BLOCK_ROWS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    valid = row < num_rows
    best = tl.full([BLOCK_ROWS], float("inf"), tl.float32)
    index = tl.full([BLOCK_ROWS], -1, tl.int32)
    second = tl.full([BLOCK_ROWS], float("inf"), tl.float32)
    here = row
    for _ in range(num_splits):
        other = tl.load(best_ptr + here, mask=valid, other=0.0)
        place = tl.load(index_ptr + here, mask=valid, other=0)
        beside = tl.load(second_ptr + here, mask=valid, other=0.0)
        best, index, second = _joined(best, index, second, other, place, beside)
        here += num_rows
    tl.store(bests_ptr + row, best, mask=valid)
    tl.store(indices_ptr + row, index.to(tl.int64), mask=valid)
    tl.store(seconds_ptr + row, second, mask=valid)


def row_reach(
    rows: Tensor,
    columns: Tensor,
    row_squares: Tensor,
    column_squares: Tensor,
    floors: Tensor,
    row_components: Tensor,
    column_components: Tensor,
    *,
    num_splits: int | None = None,
    tma: bool | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(best float32, indices int64, second float32), each (num_rows,).

    Of equal values the lowest column. Where no column is of another component best is inf and the
    index -1; second is inf where one column at most is.

    Args:
        rows: (num_rows, dim) float32.
        columns: (num_columns, dim) float32.
        row_squares, column_squares: (num_rows,), (num_columns,) float32.
        floors: (num_columns,) float32.
        row_components, column_components: (num_rows,), (num_columns,) int32.
        num_splits, tma: for tests; see :func:`codeact.kernels.schedule.plan`.
    """
    num_rows = rows.shape[0]
    bests, seconds = torch.empty((2, num_rows), dtype=torch.float32, device=rows.device)
    indices = torch.empty(num_rows, dtype=torch.int64, device=rows.device)
    if num_rows == 0:
        return bests, indices, seconds
    cut = plan(rows, columns, lse_tile, num_splits=num_splits, tma=tma)
    rows, columns = cut.aligned(rows), cut.aligned(columns)
    best, second = bests.new_empty((2, cut.num_splits, num_rows))
    index = torch.empty_like(best, dtype=torch.int32)
    with torch.cuda.device_of(rows):
        _row_reach_kernel[cut.grid](
            cut.operand(rows, cut.tile.rows),
            cut.operand(columns, cut.tile.cols),
            row_squares,
            column_squares,
            floors,
            row_components,
            column_components,
            best,
            index,
            second,
            num_rows,
            columns.shape[0],
            cut.dim,
            rows.stride(0),
            columns.stride(0),
            cut.num_splits,
            **cut.options(rows.dtype),
        )
        _merge_reaches_kernel[(triton.cdiv(num_rows, MERGE_BLOCK),)](
            best,
            index,
            second,
            bests,
            indices,
            seconds,
            num_rows,
            cut.num_splits,
            BLOCK_ROWS=MERGE_BLOCK,
            num_warps=MERGE_WARPS,
            enable_fp_fusion=True,
        )
    return bests, indices, seconds
