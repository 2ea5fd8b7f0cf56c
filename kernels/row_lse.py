"""Log-sum-exp over all columns of each row of a product that is never stored.

z_ij = cap(scale * rows_i . columns_j + bias_j) / temperature. A program owns a block of rows and a
split of the columns; it keeps (max, sum of exponentials) a row and leaves 8 bytes a row and split
(12 with the expectation), which a second kernel merges in a fixed order: the result has the same
bits every time (online softmax, Milakov & Gimelshein, arXiv:1805.02867). Cost: 2 * num_rows *
num_columns * dim operations; the columns are read once for as many row blocks as fit the L2.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from codeact.kernels.product import (
    LN_2,
    LOG2_E,
    column_vector,
    finite_shift,
    labels_of_rows,
    product_tile,
    tiles_of_split,
    to_logits,
)
from codeact.kernels.schedule import lse_tile, plan

MERGE_BLOCK = 128
MERGE_WARPS = 4


# Counts change with every batch; a kernel for those divisible by 16 would buy nothing.
@triton.jit(do_not_specialize=["num_rows", "num_columns", "num_splits", "skip"])
def _row_lse_kernel(
    rows,  # (num_rows, dim): a descriptor or a pointer
    columns,  # (num_columns, dim)
    labels_ptr,  # (num_rows,) int64, or None
    bias_ptr,  # (num_columns,), or None
    maximum_ptr,  # (num_splits, num_rows) float32, out
    total_ptr,  # (num_splits, num_rows) float32, out: sum of exp(z - maximum)
    expected_ptr,  # (num_splits, num_rows) float32, out: sum of z * exp(z - maximum); or None
    label_logits_ptr,  # (num_rows,) float32, holds NaN; out where a label is a column
    num_rows,
    num_columns,
    dim,
    rows_stride,
    columns_stride,
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
    # Splits run fastest: programs in flight share a few row blocks and sweep the columns in step.
    # One grid axis, since the second stops at 65535.
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
    expected = tl.zeros([BLOCK_ROWS], tl.float32)
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
        logits = to_logits(products, bias, scale, softcap, inverse_temperature)
        if labels_ptr is not None:
            here = (labels >= first_col) & (labels < min(first_col + BLOCK_COLS, num_columns))
            # A label lies in one tile of hundreds, so most pay a test of BLOCK_ROWS labels only.
            if tl.max(here.to(tl.int32), axis=0) > 0:
                is_label = labels.to(tl.int32)[:, None] == column[None, :]
                label_logits = tl.sum(tl.where(is_label, logits, 0.0), axis=1)
                tl.store(label_logits_ptr + row, label_logits, mask=here)
        if first_col + BLOCK_COLS > num_columns:
            logits = tl.where((column < num_columns)[None, :], logits, float("-inf"))
        new_maximum = tl.maximum(maximum, tl.max(logits, axis=1))
        shift = finite_shift(new_maximum)
        # The difference comes before log2(e): scaling first would cost a logit of 1e4 three digits.
        weights = tl.exp2((logits - shift[:, None]) * LOG2_E)
        rescale = tl.exp2((maximum - shift) * LOG2_E)
        total = total * rescale + tl.sum(weights, axis=1)
        if expected_ptr is not None:
            # A logit of -inf has no weight, and 0 * -inf would be NaN.
            shares = tl.where(weights > 0.0, logits * weights, 0.0)
            expected = expected * rescale + tl.sum(shares, axis=1)
        maximum = new_maximum
    out = split.to(tl.int64) * num_rows + row
    tl.store(maximum_ptr + out, maximum, mask=row < num_rows)
    tl.store(total_ptr + out, total, mask=row < num_rows)
    if expected_ptr is not None:
        tl.store(expected_ptr + out, expected, mask=row < num_rows)


@triton.jit(do_not_specialize=["num_rows", "num_splits"])
def _merge_splits_kernel(
    maximum_ptr,  # (num_splits, num_rows) float32
    total_ptr,  # (num_splits, num_rows) float32
    weighted_ptr,  # (num_splits, num_rows) float32: a sum weighted by the exponentials; or None
    lse_ptr,  # (num_rows,) float32, out
    mean_ptr,  # (num_rows,) float32, out: the weighted sum over the total; or None
    num_rows,
    num_splits,
    BLOCK_ROWS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    valid = row < num_rows
    maximum = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
    here = row
    for _ in range(num_splits):
        maximum = tl.maximum(maximum, tl.load(maximum_ptr + here, mask=valid, other=0.0))
        here += num_rows
    shift = finite_shift(maximum)
    total = tl.zeros([BLOCK_ROWS], tl.float32)
    weighted = tl.zeros([BLOCK_ROWS], tl.float32)
    here = row
    for _ in range(num_splits):
        part = tl.load(maximum_ptr + here, mask=valid, other=0.0)
        rescale = tl.exp2((part - shift) * LOG2_E)
        total += rescale * tl.load(total_ptr + here, mask=valid, other=1.0)
        if weighted_ptr is not None:
            weighted += rescale * tl.load(weighted_ptr + here, mask=valid, other=0.0)
        here += num_rows
    tl.store(lse_ptr + row, maximum + tl.log2(total) * LN_2, mask=valid)
    if mean_ptr is not None:
        tl.store(mean_ptr + row, weighted / total, mask=valid)


def merge_splits(
    maximum: Tensor, total: Tensor, weighted: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """(lse, weighted mean) of rows whose partial sums are (num_splits, num_rows)."""
    num_splits, num_rows = maximum.shape
    lse = maximum.new_empty(num_rows)
    mean = None if weighted is None else maximum.new_empty(num_rows)
    _merge_splits_kernel[(triton.cdiv(num_rows, MERGE_BLOCK),)](
        maximum,
        total,
        weighted,
        lse,
        mean,
        num_rows,
        num_splits,
        BLOCK_ROWS=MERGE_BLOCK,
        num_warps=MERGE_WARPS,
        enable_fp_fusion=True,
    )
    return lse, mean


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
    *,
    num_splits: int | None = None,
    tma: bool | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(lse, label logits, sum_j softmax(z)_j z_j or None), each (num_rows,) float32.

    A label that is no column has the logit NaN. A block of rows whose labels all equal ``skip`` is
    left out: its lse means nothing.

    Args:
        rows, columns: (num_rows, dim) and (num_columns, dim) of one dtype: float32, float16 or
            bfloat16. Operands that 16-byte loads cannot read are copied.
        labels: (num_rows,) int64, contiguous, or None.
        bias: (num_columns,), contiguous, or None.
        num_splits, tma: for tests; see :func:`codeact.kernels.schedule.plan`.
    """
    num_rows = rows.shape[0]
    label_logits = torch.full((num_rows,), float("nan"), dtype=torch.float32, device=rows.device)
    if num_rows == 0:
        return label_logits, label_logits.clone(), label_logits.clone() if expectation else None
    cut = plan(rows, columns, lse_tile, num_splits=num_splits, tma=tma)
    rows, columns = cut.aligned(rows), cut.aligned(columns)
    maximum, total, *rest = label_logits.new_empty(
        (3 if expectation else 2, cut.num_splits, num_rows)
    )
    expected = rest[0] if rest else None
    with torch.cuda.device_of(rows):
        _row_lse_kernel[cut.grid](
            cut.operand(rows, cut.tile.rows),
            cut.operand(columns, cut.tile.cols),
            labels,
            bias,
            maximum,
            total,
            expected,
            label_logits,
            num_rows,
            columns.shape[0],
            cut.dim,
            rows.stride(0),
            columns.stride(0),
            cut.num_splits,
            skip,
            None if scale == 1.0 else scale,
            softcap,
            None if temperature == 1.0 else 1.0 / temperature,
            **cut.options(rows.dtype),
        )
        lse, mean = merge_splits(maximum, total, expected)
    return lse, label_logits, mean
