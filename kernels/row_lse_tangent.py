"""The log-sum-exp of rows of a product together with its forward-mode tangent.

Beside z_ij = cap(scale * rows_i . columns_j + bias_j) / temperature a program forms its tangent
    zd_ij = (scale * (rows'_i . columns_j + rows_i . columns'_j) + bias'_j) * cap' / temperature
and keeps one more running sum, of zd weighted by the exponentials: the tangent of the log-sum-exp
is their mean. Everything else is as in row_lse. Cost: two matrix products, three if the columns
move.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from codeact.kernels.product import (
    LOG2_E,
    column_vector,
    finite_shift,
    labels_of_rows,
    operand_tile,
    tiles_of_split,
    to_capped,
)
from codeact.kernels.row_lse import merge_splits
from codeact.kernels.schedule import narrow_tangent_tile, plan, tangent_tile


@triton.jit
def _dual_product_tile(
    rows,
    columns,
    rows_tangent,
    columns_tangent,
    first_row,
    first_col,
    num_rows,
    num_columns,
    dim,
    rows_stride,
    columns_stride,
    rows_tangent_stride,
    columns_tangent_stride,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    EVEN_DIM: tl.constexpr,
    TMA: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """float32 [BLOCK_ROWS, BLOCK_COLS] products and their tangents, as product_tile."""
    products = tl.zeros([BLOCK_ROWS, BLOCK_COLS], tl.float32)
    tangents = tl.zeros([BLOCK_ROWS, BLOCK_COLS], tl.float32)
    for start in range(0, dim, BLOCK_DIM):
        left = operand_tile(
            rows, first_row, start, num_rows, dim, rows_stride,
            BLOCK_ROWS, BLOCK_DIM, EVEN_DIM, TMA, UPCAST,
        )  # fmt: skip
        right = operand_tile(
            columns, first_col, start, num_columns, dim, columns_stride,
            BLOCK_COLS, BLOCK_DIM, EVEN_DIM, TMA, UPCAST,
        )  # fmt: skip
        products = tl.dot(left, right.T, products, input_precision="ieee")
        if rows_tangent is not None:
            left_tangent = operand_tile(
                rows_tangent, first_row, start, num_rows, dim, rows_tangent_stride,
                BLOCK_ROWS, BLOCK_DIM, EVEN_DIM, TMA, UPCAST,
            )  # fmt: skip
            tangents = tl.dot(left_tangent, right.T, tangents, input_precision="ieee")
        if columns_tangent is not None:
            right_tangent = operand_tile(
                columns_tangent, first_col, start, num_columns, dim, columns_tangent_stride,
                BLOCK_COLS, BLOCK_DIM, EVEN_DIM, TMA, UPCAST,
            )  # fmt: skip
            tangents = tl.dot(left, right_tangent.T, tangents, input_precision="ieee")
    return products, tangents


@triton.jit
def _to_tangents(tangents, capped, bias_tangent, scale, softcap, inverse_temperature):
    """Tangents of the logits, from those of the products and the capped values."""
    if scale is not None:
        tangents = tangents * scale
    if bias_tangent is not None:
        tangents = tangents + bias_tangent
    if softcap is not None:
        share = capped * (1.0 / softcap)  # the tanh, whose slope is 1 - tanh ** 2
        tangents = tangents * (1.0 - share * share)
    if inverse_temperature is not None:
        tangents = tangents * inverse_temperature
    return tangents


@triton.jit(do_not_specialize=["num_rows", "num_columns", "num_splits", "skip"])
def _row_lse_tangent_kernel(
    rows,  # (num_rows, dim): a descriptor or a pointer
    columns,  # (num_columns, dim)
    rows_tangent,  # (num_rows, dim), or None
    columns_tangent,  # (num_columns, dim), or None
    labels_ptr,  # (num_rows,) int64, or None
    bias_ptr,  # (num_columns,), or None
    bias_tangent_ptr,  # (num_columns,), or None
    maximum_ptr,  # (num_splits, num_rows) float32, out
    total_ptr,  # (num_splits, num_rows) float32, out: sum of exp(z - maximum)
    weighted_ptr,  # (num_splits, num_rows) float32, out: sum of zd * exp(z - maximum)
    label_logits_ptr,  # (num_rows,) float32, holds NaN; out where a label is a column
    label_tangents_ptr,  # (num_rows,) float32, likewise
    num_rows,
    num_columns,
    dim,
    rows_stride,
    columns_stride,
    rows_tangent_stride,
    columns_tangent_stride,
    num_splits,
    skip,  # label of a row that needs no result, or None
    scale,
    softcap,
    inverse_temperature,
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
    if labels_ptr is not None:
        labels = labels_of_rows(labels_ptr, row, num_rows)
        if skip is not None:
            wanted = tl.max(((labels != skip) & (row < num_rows)).to(tl.int32), axis=0)
            end_tile = tl.where(wanted > 0, end_tile, first_tile)
    maximum = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_ROWS], tl.float32)
    weighted = tl.zeros([BLOCK_ROWS], tl.float32)
    for tile in range(first_tile, end_tile):
        first_col = tile * BLOCK_COLS
        products, tangents = _dual_product_tile(
            rows, columns, rows_tangent, columns_tangent, first_row, first_col, num_rows,
            num_columns, dim, rows_stride, columns_stride, rows_tangent_stride,
            columns_tangent_stride, BLOCK_ROWS, BLOCK_COLS, BLOCK_DIM, EVEN_DIM, TMA, UPCAST,
        )  # fmt: skip
        column = first_col + tl.arange(0, BLOCK_COLS)
        bias = None
        if bias_ptr is not None:
            bias = column_vector(bias_ptr, column, num_columns)
        logits = to_capped(products, bias, scale, softcap)
        bias_tangent = None
        if bias_tangent_ptr is not None:
            bias_tangent = column_vector(bias_tangent_ptr, column, num_columns)
        tangents = _to_tangents(tangents, logits, bias_tangent, scale, softcap, inverse_temperature)
        if inverse_temperature is not None:
            logits = logits * inverse_temperature
        if labels_ptr is not None:
            here = (labels >= first_col) & (labels < min(first_col + BLOCK_COLS, num_columns))
            if tl.max(here.to(tl.int32), axis=0) > 0:
                is_label = labels.to(tl.int32)[:, None] == column[None, :]
                label_logits = tl.sum(tl.where(is_label, logits, 0.0), axis=1)
                tl.store(label_logits_ptr + row, label_logits, mask=here)
                label_tangents = tl.sum(tl.where(is_label, tangents, 0.0), axis=1)
                tl.store(label_tangents_ptr + row, label_tangents, mask=here)
        if first_col + BLOCK_COLS > num_columns:
            logits = tl.where((column < num_columns)[None, :], logits, float("-inf"))
        new_maximum = tl.maximum(maximum, tl.max(logits, axis=1))
        shift = finite_shift(new_maximum)
        weights = tl.exp2((logits - shift[:, None]) * LOG2_E)
        rescale = tl.exp2((maximum - shift) * LOG2_E)
        total = total * rescale + tl.sum(weights, axis=1)
        weighted = weighted * rescale + tl.sum(weights * tangents, axis=1)
        maximum = new_maximum
    out = split.to(tl.int64) * num_rows + row
    tl.store(maximum_ptr + out, maximum, mask=row < num_rows)
    tl.store(total_ptr + out, total, mask=row < num_rows)
    tl.store(weighted_ptr + out, weighted, mask=row < num_rows)


def row_lse_tangent(
    rows: Tensor,
    columns: Tensor,
    labels: Tensor | None,
    rows_tangent: Tensor | None,
    columns_tangent: Tensor | None,
    bias: Tensor | None,
    bias_tangent: Tensor | None,
    scale: float,
    softcap: float | None,
    temperature: float,
    skip: int | None,
    *,
    num_splits: int | None = None,
    tma: bool | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(lse, label logits, tangent of lse, tangent of label logits), each (num_rows,) float32.

    Arguments as in :func:`codeact.kernels.row_lse.row_lse`; a tangent has the shape and dtype of
    what it belongs to, and None is zero.
    """
    num_rows = rows.shape[0]
    label_logits, label_tangents = torch.full(
        (2, num_rows), float("nan"), dtype=torch.float32, device=rows.device
    )
    if num_rows == 0:
        return label_logits, label_logits.clone(), label_tangents, label_tangents.clone()
    crowded = softcap is not None and bias_tangent is not None
    tile_of = narrow_tangent_tile if crowded else tangent_tile
    cut = plan(rows, columns, tile_of, num_splits=num_splits, tma=tma)
    rows, columns = cut.aligned(rows), cut.aligned(columns)
    rows_moved, columns_moved = (
        None if tangent is None else cut.aligned(tangent)
        for tangent in (rows_tangent, columns_tangent)
    )
    maximum, total, weighted = label_logits.new_empty((3, cut.num_splits, num_rows))
    with torch.cuda.device_of(rows):
        _row_lse_tangent_kernel[cut.grid](
            cut.operand(rows, cut.tile.rows),
            cut.operand(columns, cut.tile.cols),
            None if rows_moved is None else cut.operand(rows_moved, cut.tile.rows),
            None if columns_moved is None else cut.operand(columns_moved, cut.tile.cols),
            labels,
            bias,
            bias_tangent,
            maximum,
            total,
            weighted,
            label_logits,
            label_tangents,
            num_rows,
            columns.shape[0],
            cut.dim,
            rows.stride(0),
            columns.stride(0),
            None if rows_moved is None else rows_moved.stride(0),
            None if columns_moved is None else columns_moved.stride(0),
            cut.num_splits,
            skip,
            None if scale == 1.0 else scale,
            softcap,
            None if temperature == 1.0 else 1.0 / temperature,
            **cut.options(rows.dtype),
        )
        lse, lse_tangent = merge_splits(maximum, total, weighted)
    assert lse_tangent is not None
    return lse, label_logits, lse_tangent, label_tangents
