"""One tile of keys in an online softmax attention that also carries a tangent."""

from __future__ import annotations

import triton
import triton.language as tl

from codeact.kernels.product import LOG2_E


@triton.jit
def load_rows(
    source,  # (num_tokens, num_heads, head_dim)
    position,  # (rows,), as the next two
    head,
    is_query,
    stride,  # between tokens
    head_stride,
    head_dim,
    BLOCK_DIM: tl.constexpr,
    UPCAST: tl.constexpr,
):
    dim = tl.arange(0, BLOCK_DIM)
    at = position.to(tl.int64) * stride + head.to(tl.int64) * head_stride
    inside = is_query[:, None] & (dim < head_dim)[None, :]
    tile = tl.load(source + at[:, None] + dim[None, :], mask=inside, other=0.0)
    return tile.to(tl.float32) if UPCAST else tile


@triton.jit
def load_keys(
    source,  # (num_tokens, num_kv_heads, head_dim), or a descriptor with the head first
    head,
    start,
    column,
    stride,
    head_stride,
    num_tokens,
    head_dim,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    UPCAST: tl.constexpr,
    BOUNDED: tl.constexpr,  # the tile may reach past the last token
):
    if DESCRIPTORS:  # reads zeros outside
        tile = source.load([head, start, column]).reshape(BLOCK_KEYS, BLOCK_COLUMNS)
    else:
        keys = tl.arange(0, BLOCK_KEYS)
        columns = column + tl.arange(0, BLOCK_COLUMNS)
        inside = (columns < head_dim)[None, :]
        if BOUNDED:
            inside &= (keys < num_tokens - start)[:, None]
        source += head.to(tl.int64) * head_stride + start.to(tl.int64) * stride
        tile = tl.load(source + keys[:, None] * stride + columns[None, :], mask=inside, other=0.0)
    return tile.to(tl.float32) if UPCAST else tile


@triton.jit
def attend(
    out,  # (rows, values) float32: this and the next four are the running state
    out_tangent,
    row_max,
    row_sum,
    row_moved,
    query,  # (rows, dim)
    query_tangent,  # a tangent that is None takes its products away
    key,  # (keys, dim)
    key_tangent,
    value,  # (keys, values)
    value_tangent,
    seen,  # (rows, keys), or None: all are
    scaling,
    softcap,  # or None
):
    score = tl.dot(query, tl.trans(key), input_precision="ieee")
    moved = None
    if query_tangent is not None:
        moved = tl.dot(query_tangent, tl.trans(key), input_precision="ieee")
        if key_tangent is not None:
            moved = tl.dot(query, tl.trans(key_tangent), moved, input_precision="ieee")
    elif key_tangent is not None:
        moved = tl.dot(query, tl.trans(key_tangent), input_precision="ieee")
    if softcap is not None:
        # 1 - tanh(x) = 2 / (1 + e^2x) =: c, so tanh = 1 - c and 1 - tanh^2 = c (2 - c).
        rest = 2.0 / (1.0 + tl.exp2(score * (2.0 * LOG2_E * scaling / softcap)))
        score = 1.0 - rest
        to_log2 = softcap * LOG2_E
        if moved is not None:
            moved *= rest * (2.0 - rest)
    else:
        to_log2 = scaling * LOG2_E
    if seen is not None:
        score = tl.where(seen, score, float("-inf"))
    # The factor is positive: the maximum is taken before it, and a weight costs one FMA and exp2.
    new_max = tl.maximum(row_max, tl.max(score, axis=1) * to_log2)
    weight = tl.exp2(score * to_log2 - new_max[:, None])
    shrink = tl.exp2(row_max - new_max)
    row_sum = row_sum * shrink + tl.sum(weight, axis=1)
    out, out_tangent = out * shrink[:, None], out_tangent * shrink[:, None]
    rounded = weight.to(value.dtype)
    out = tl.dot(rounded, value, out, input_precision="ieee")
    if value_tangent is not None:
        out_tangent = tl.dot(rounded, value_tangent, out_tangent, input_precision="ieee")
    if moved is not None:
        moved = weight * (moved * scaling)
        row_moved = row_moved * shrink + tl.sum(moved, axis=1)
        out_tangent = tl.dot(moved.to(value.dtype), value, out_tangent, input_precision="ieee")
    return out, out_tangent, new_max, row_sum, row_moved
