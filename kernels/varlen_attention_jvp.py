"""Causal attention of packed sequences with its forward-mode derivative, scores never stored.

One program attends a block of rows, a row being one query of one head; the query heads that share a
key head lie in the same block, so that keys are read once for all of them and a block covers few
positions. It walks over the keys between the first one any of its rows sees and its last row,
online (Milakov & Gimelshein, arXiv:1805.02867; FlashAttention, arXiv:2205.14135), in float32:

    m' = max(m, rowmax S)    a = 2^(m - m')     P = 2^(S - m')
    l  = a l + rowsum P      mu = a mu + rowsum(P dS)
    O  = a O + P V           dO = a dO + (P dS) V + P dV
    at the end               o = O / l          do = dO / l - (mu / l) o

with dS = scaling (dQ K^T + Q dK^T), times 1 - tanh^2 under a softcap. Blocks tile the flat stream,
not each sequence, so that short sequences share one; `first_key` says how far back a row sees. Six
matrix products where attention alone takes two.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from codeact.kernels.attention_operands import (
    Tiles,
    aligned,
    descriptor,
    first_keys,
    has_descriptors,
    packed_heads,
    tiles_for,
    to_unit,
)
from codeact.kernels.attention_step import attend, load_keys, load_rows
from codeact.kernels.schedule import interprets


@triton.jit
def _varlen_attention_jvp_kernel(
    query,  # (num_tokens, num_heads, head_dim)
    query_tangent,  # like query, or None, as the other tangents
    key,  # (num_tokens, num_kv_heads, head_dim) or, with DESCRIPTORS, a descriptor with the head
    key_tangent,  # first, as the next three
    value,
    value_tangent,
    first_key,  # (num_tokens,) int32, the first key each query sees; never falls
    unit,  # () float32, what a tangent of 1 stands for; None is 1
    out,  # (num_tokens, num_heads, head_dim) contiguous, as the next
    out_tangent,
    query_stride,  # between tokens
    query_head_stride,
    query_tangent_stride,
    query_tangent_head_stride,
    key_stride,
    key_head_stride,
    key_tangent_stride,
    key_tangent_head_stride,
    value_stride,
    value_head_stride,
    value_tangent_stride,
    value_tangent_head_stride,
    num_tokens,
    num_heads,
    head_dim,
    scaling,
    softcap,  # or None
    PACKED_HEADS: tl.constexpr,  # query heads in a block ...
    HEAD_BLOCKS: tl.constexpr,  # ... and blocks of them that share a key head
    BLOCK_ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUES: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    UPCAST: tl.constexpr,
):
    POSITIONS: tl.constexpr = BLOCK_ROWS // PACKED_HEADS
    # The last blocks of a long sequence have the most keys; they start first.
    begin = (tl.num_programs(0) - 1 - tl.program_id(0)) * POSITIONS
    last = tl.minimum(begin + POSITIONS, num_tokens) - 1
    kv_head = tl.program_id(1) // HEAD_BLOCKS
    column = tl.program_id(2) * BLOCK_VALUES
    row = tl.arange(0, BLOCK_ROWS)
    position = begin + row // PACKED_HEADS
    head = tl.program_id(1) * PACKED_HEADS + row % PACKED_HEADS
    # PACKED_HEADS need not divide BLOCK_ROWS; the rows left over belong to no query.
    is_query = (position < num_tokens) & (row < POSITIONS * PACKED_HEADS)
    q = load_rows(
        query, position, head, is_query, query_stride, query_head_stride, head_dim,
        BLOCK_DIM, UPCAST,
    )  # fmt: skip
    dq = None
    if query_tangent is not None:
        dq = load_rows(
            query_tangent, position, head, is_query, query_tangent_stride,
            query_tangent_head_stride, head_dim, BLOCK_DIM, UPCAST,
        )  # fmt: skip
    first = tl.load(first_key + position, mask=is_query, other=2**31 - 1)

    # Tiles of keys from the first that any row sees. In the middle of them lie those that every
    # row sees whole, since first keys never fall; they come first here and need no mask.
    start = tl.load(first_key + begin)
    num_tiles = tl.cdiv(last + 1 - start, BLOCK_KEYS)
    num_left = tl.cdiv(tl.load(first_key + last) - start, BLOCK_KEYS)
    num_whole = tl.maximum((begin + 1 - start) // BLOCK_KEYS - num_left, 0)
    num_left = tl.where(num_whole > 0, num_left, num_tiles)

    acc = tl.zeros([BLOCK_ROWS, BLOCK_VALUES], tl.float32)
    moved = tl.zeros([BLOCK_ROWS, BLOCK_VALUES], tl.float32)
    # Finite: a row that has seen nothing yet must shrink by 2^0, not by 2^(-inf + inf).
    row_max = tl.full([BLOCK_ROWS], -3.0e38, tl.float32)
    row_sum = tl.zeros([BLOCK_ROWS], tl.float32)
    row_moved = tl.zeros([BLOCK_ROWS], tl.float32)
    for masked in tl.static_range(2):
        for index in tl.range(0, num_tiles - num_whole if masked else num_whole):
            tile = index + num_left
            if masked:
                tile = tl.where(index < num_left, index, index + num_whole)
            at = start + tile * BLOCK_KEYS
            k = load_keys(
                key, kv_head, at, 0, key_stride, key_head_stride, num_tokens, head_dim,
                BLOCK_KEYS, BLOCK_DIM, DESCRIPTORS, UPCAST, masked,
            )  # fmt: skip
            v = load_keys(
                value, kv_head, at, column, value_stride, value_head_stride, num_tokens, head_dim,
                BLOCK_KEYS, BLOCK_VALUES, DESCRIPTORS, UPCAST, masked,
            )  # fmt: skip
            dk = None
            if key_tangent is not None:
                dk = load_keys(
                    key_tangent, kv_head, at, 0, key_tangent_stride, key_tangent_head_stride,
                    num_tokens, head_dim, BLOCK_KEYS, BLOCK_DIM, DESCRIPTORS, UPCAST, masked,
                )  # fmt: skip
            dv = None
            if value_tangent is not None:
                dv = load_keys(
                    value_tangent, kv_head, at, column, value_tangent_stride,
                    value_tangent_head_stride, num_tokens, head_dim, BLOCK_KEYS, BLOCK_VALUES,
                    DESCRIPTORS, UPCAST, masked,
                )  # fmt: skip
            seen = None
            if masked:
                keys = (at + tl.arange(0, BLOCK_KEYS))[None, :]
                seen = (keys >= first[:, None]) & (keys <= position[:, None])
            acc, moved, row_max, row_sum, row_moved = attend(
                acc, moved, row_max, row_sum, row_moved, q, dq, k, dk, v, dv, seen, scaling, softcap
            )

    acc /= row_sum[:, None]
    moved = moved / row_sum[:, None] - (row_moved / row_sum)[:, None] * acc
    if unit is not None:
        moved *= tl.load(unit)
    columns = column + tl.arange(0, BLOCK_VALUES)
    inside = is_query[:, None] & (columns < head_dim)[None, :]
    offsets = ((position.to(tl.int64) * num_heads + head) * head_dim)[:, None] + columns[None, :]
    tl.store(out + offsets, acc.to(out.dtype.element_ty), mask=inside)
    tl.store(out_tangent + offsets, moved.to(out_tangent.dtype.element_ty), mask=inside)


def varlen_attention_jvp(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_tangent: Tensor | None,
    key_tangent: Tensor | None,
    value_tangent: Tensor | None,
    cu_seqlens: Tensor,
    scaling: float,
    sliding_window: int | None,
    softcap: float | None,
    *,
    tiles: Tiles | None = None,
    descriptors: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Launch; the inputs of :func:`codeact.ops.varlen_attention_jvp`, its output and tangent."""
    out, out_tangent = (
        torch.empty(query.shape, dtype=query.dtype, device=query.device) for _ in range(2)
    )
    if out.numel() == 0:
        return out, out_tangent
    tiles = tiles or tiles_for(query)
    if descriptors is None:
        descriptors = has_descriptors(query)
    unit, tangents = None, [query_tangent, key_tangent, value_tangent]
    if query.dtype == torch.float16:
        unit, tangents = to_unit(tangents)
    with torch.cuda.device_of(query):
        _launch(
            [aligned(x) for x in (query, key, value)],
            [None if x is None else aligned(x) for x in tangents],
            [
                first_keys(cu_seqlens, len(query), sliding_window, query.device),
                unit,
                out,
                out_tangent,
            ],
            [float(scaling), None if softcap is None else float(softcap)],
            tiles,
            descriptors,
        )
    return out, out_tangent


def _launch(
    inputs: list[Tensor],
    tangents: list[Tensor | None],
    others: list[Tensor | None],
    factors: list[float | None],
    tiles: Tiles,
    descriptors: bool,
) -> None:
    num_tokens, num_heads, head_dim = inputs[0].shape
    groups = num_heads // inputs[1].shape[1]
    packed = packed_heads(groups)
    block_dim = max(16, triton.next_power_of_2(head_dim))
    block_values = min(tiles.values, block_dim)
    operands: list[Any] = []
    strides: list[int] = []
    for x, tangent, columns in zip(inputs, tangents, (None, block_dim, block_values), strict=True):
        for operand in (x, tangent):
            strides += (x if operand is None else operand).stride()[:2]
            if operand is not None and columns is not None and descriptors:
                operands.append(descriptor(operand, tiles.keys, columns))
            else:
                operands.append(operand)
    grid = (
        triton.cdiv(num_tokens, tiles.rows // packed),
        num_heads // packed,
        triton.cdiv(head_dim, block_values),
    )
    _varlen_attention_jvp_kernel[grid](
        *operands,
        *others,
        *strides,
        num_tokens,
        num_heads,
        head_dim,
        *factors,
        PACKED_HEADS=packed,
        HEAD_BLOCKS=groups // packed,
        BLOCK_ROWS=tiles.rows,
        BLOCK_KEYS=tiles.keys,
        BLOCK_DIM=block_dim,
        BLOCK_VALUES=block_values,
        DESCRIPTORS=descriptors,
        UPCAST=inputs[0].dtype == torch.bfloat16 and interprets(),
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
        enable_fp_fusion=True,  # Triton 3.10 turns it off unless asked
    )
