"""The main loop that the streamed reductions share: one tile of ``rows @ columns.T`` in registers.

A program keeps a float32 accumulator of BLOCK_ROWS x BLOCK_COLS and walks along ``dim``; what it
then makes of the products (a log-sum-exp, a maximum) never leaves the chip either. Operands come
through TMA descriptors where the device has them, through pointers elsewhere.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def operand_tile(
    operand,  # (count, dim): a descriptor of [BLOCK, BLOCK_DIM] blocks, or a pointer
    first,  # first of BLOCK rows of the operand
    start,  # first of BLOCK_DIM elements along dim
    count,
    dim,
    stride,
    BLOCK: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    EVEN_DIM: tl.constexpr,
    TMA: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """[BLOCK, BLOCK_DIM] of an operand, zero beyond ``dim``; rows beyond ``count`` mean nothing."""
    if TMA:
        tile = operand.load([first, start])
    else:
        # Clamped, not masked: a repeated last row is legal to load and costs no predicate.
        row = tl.minimum(first + tl.arange(0, BLOCK), count - 1).to(tl.int64)
        element = start + tl.arange(0, BLOCK_DIM)
        pointers = operand + row[:, None] * stride + element[None, :]
        if EVEN_DIM:
            tile = tl.load(pointers)
        else:
            tile = tl.load(pointers, mask=(element < dim)[None, :], other=0.0)
    # The interpreter keeps bfloat16 as uint16 and multiplies the bits; hardware needs no cast.
    if UPCAST:
        tile = tile.to(tl.float32)
    return tile


@triton.jit
def product_tile(
    rows,  # (num_rows, dim), see operand_tile
    columns,  # (num_columns, dim)
    first_row,
    first_col,
    num_rows,
    num_columns,
    dim,
    rows_stride,
    columns_stride,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    EVEN_DIM: tl.constexpr,
    TMA: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """float32 [BLOCK_ROWS, BLOCK_COLS] products; those beyond the operands' ends mean nothing."""
    products = tl.zeros([BLOCK_ROWS, BLOCK_COLS], tl.float32)
    for start in range(0, dim, BLOCK_DIM):
        left = operand_tile(
            rows, first_row, start, num_rows, dim, rows_stride,
            BLOCK_ROWS, BLOCK_DIM, EVEN_DIM, TMA, UPCAST,
        )  # fmt: skip
        right = operand_tile(
            columns, first_col, start, num_columns, dim, columns_stride,
            BLOCK_COLS, BLOCK_DIM, EVEN_DIM, TMA, UPCAST,
        )  # fmt: skip
        # Half precision does not look at the option; float32 must not turn into TF32.
        products = tl.dot(left, right.T, products, input_precision="ieee")
    return products


@triton.jit
def tanh(x):
    # libdevice does not run in the interpreter, and tanh.approx has 11 bits. Absolute error 1e-7;
    # the exponential's overflow gives 1, its underflow -1.
    return 1.0 - 2.0 / (1.0 + tl.exp2(x * (2.0 * LOG2_E)))


@triton.jit
def to_capped(products, bias, scale, softcap):
    """cap(scale * product + bias); an absent option is None and costs nothing."""
    if scale is not None:
        products = products * scale
    if bias is not None:
        products = products + bias
    if softcap is not None:
        products = softcap * tanh(products * (1.0 / softcap))
    return products


@triton.jit
def to_logits(products, bias, scale, softcap, inverse_temperature):
    """to_capped(...) / temperature: what a softmax is taken of."""
    logits = to_capped(products, bias, scale, softcap)
    if inverse_temperature is not None:
        logits = logits * inverse_temperature
    return logits


@triton.jit
def column_vector(vector_ptr, column, num_columns):
    """float32 [1, BLOCK_COLS] of a (num_columns,) vector."""
    # Loaded in one dimension: a load of [1, BLOCK_COLS] takes the layout of the product and spills.
    values = tl.load(vector_ptr + column, mask=column < num_columns, other=0.0)
    return values.to(tl.float32)[None, :]


@triton.jit
def finite_shift(maximum):
    # While every logit is -inf the maximum is too, and -inf - (-inf) would be NaN.
    return tl.where(maximum == float("-inf"), 0.0, maximum)


@triton.jit
def labels_of_rows(labels_ptr, row, num_rows):
    """(BLOCK_ROWS,) int64 labels; -1 beyond the last row."""
    return tl.load(labels_ptr + row, mask=row < num_rows, other=-1)


@triton.jit
def tiles_of_split(split, num_splits, num_columns, BLOCK_COLS: tl.constexpr):
    """First tile of columns of a split and the one after its last; equal in an empty split."""
    num_tiles = tl.cdiv(num_columns, BLOCK_COLS)
    return split * num_tiles // num_splits, (split + 1) * num_tiles // num_splits
