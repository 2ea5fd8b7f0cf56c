"""Cross-entropy of rows of logits and its gradient, one program a row, in place if wanted.

With z = cap(u) / temperature and u = scale * logit + bias, nll = logsumexp(z) - z[label] and its
gradient with respect to u is (softmax(z) - onehot(label)) * cap'(u) / temperature. A row is read
twice and written once. The first pass, online (Milakov & Gimelshein, arXiv:1805.02867), walks from
the last column to the first, so that the second, which walks forward, begins with what the L2 still
holds.

The gradient may lie in the memory of the logits: element for element in the same dtype, or in half
the bytes, row r starting where row r of float32 logits starts. Then block b of the gradient covers
the logits of block b // 2, which have been read: by all threads, since a barrier stands between the
loads and the stores of a block. This is why the second pass cannot walk backward.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from codeact.kernels.product import LN_2, LOG2_E, finite_shift, to_capped

# 64 KiB of float32 in flight a program, over three times what an H100's SM needs to hide the
# memory's latency, and 16 columns a thread: 64 registers, the most that 32 warps leave.
MAX_BLOCK_SIZE = 16384
COLUMNS_PER_WARP = 512
MAX_WARPS = 32


@triton.jit
def _load_capped(row_ptr, bias_ptr, column, vocab_size, scale, softcap):
    logits = tl.load(row_ptr + column, mask=column < vocab_size, other=float("-inf"))
    bias = None
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + column, mask=column < vocab_size, other=0.0).to(tl.float32)
    return to_capped(logits.to(tl.float32), bias, scale, softcap)


@triton.jit
def _row_statistics(
    row_ptr, bias_ptr, vocab_size, scale, softcap, inverse_temperature,
    BLOCK_SIZE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Maximum of a row of logits z and sum of exp(z - maximum)."""
    # Running values for every WIDTH columns, which are one thread's: warps meet once a row, not
    # once a block, and an exponential to rescale is shared by WIDTH columns.
    place = tl.reshape(tl.arange(0, BLOCK_SIZE), [BLOCK_SIZE // WIDTH, WIDTH])
    maxima = tl.full([BLOCK_SIZE // WIDTH], float("-inf"), tl.float32)
    totals = tl.zeros([BLOCK_SIZE // WIDTH], tl.float32)
    num_blocks = tl.cdiv(vocab_size, BLOCK_SIZE)
    for block in range(num_blocks):
        column = (num_blocks - 1 - block) * BLOCK_SIZE + place
        logits = _load_capped(row_ptr, bias_ptr, column, vocab_size, scale, softcap)
        if inverse_temperature is not None:
            logits = logits * inverse_temperature
        logits = tl.where(column < vocab_size, logits, float("-inf"))
        new_maxima = tl.maximum(maxima, tl.max(logits, axis=1))
        shift = finite_shift(new_maxima)
        totals *= tl.exp2((maxima - shift) * LOG2_E)
        totals += tl.sum(tl.exp2((logits - shift[:, None]) * LOG2_E), axis=1)
        maxima = new_maxima
    maximum = tl.max(maxima, axis=0)
    return maximum, tl.sum(totals * tl.exp2((maxima - finite_shift(maximum)) * LOG2_E), axis=0)


@triton.jit
def _fill_row(row_ptr, value, vocab_size, BLOCK_SIZE: tl.constexpr):
    for start in range(0, vocab_size, BLOCK_SIZE):
        column = start + tl.arange(0, BLOCK_SIZE)
        values = tl.full([BLOCK_SIZE], value, tl.float32)
        tl.store(row_ptr + column, values.to(row_ptr.dtype.element_ty), mask=column < vocab_size)


@triton.jit(do_not_specialize=["ignore_index"])
def _softmax_gradient_kernel(
    logits_ptr,  # (num_tokens, vocab_size), rows `logits_stride` apart
    labels_ptr,  # (num_tokens,) int64
    row_weights_ptr,  # (num_tokens,) float32, or None
    bias_ptr,  # (vocab_size,), or None
    nll_ptr,  # (num_tokens,) float32, out
    out_ptr,  # (num_tokens, vocab_size), rows `out_stride` apart; may share the logits' memory
    logits_stride,
    out_stride,
    vocab_size,
    ignore_index,
    scale,
    softcap,
    inverse_temperature,
    BLOCK_SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)  # int32 would overflow at token * stride >= 2**31
    label = tl.load(labels_ptr + token)
    row_ptr = logits_ptr + token * logits_stride
    out_row_ptr = out_ptr + token * out_stride
    if label == ignore_index:
        tl.store(nll_ptr + token, 0.0)
        _fill_row(out_row_ptr, 0.0, vocab_size, BLOCK_SIZE)
        return
    if (label < 0) | (label >= vocab_size):
        tl.store(nll_ptr + token, float("nan"))
        _fill_row(out_row_ptr, float("nan"), vocab_size, BLOCK_SIZE)
        return
    maximum, total = _row_statistics(
        row_ptr, bias_ptr, vocab_size, scale, softcap, inverse_temperature, BLOCK_SIZE, WIDTH
    )
    label_logit = _load_capped(row_ptr, bias_ptr, label, vocab_size, scale, softcap)
    factor = 1.0
    if inverse_temperature is not None:
        label_logit = label_logit * inverse_temperature
        factor = factor * inverse_temperature
    tl.store(nll_ptr + token, tl.log2(total) * LN_2 + (maximum - label_logit))
    if row_weights_ptr is not None:
        factor = factor * tl.load(row_weights_ptr + token)
    shift = finite_shift(maximum)
    share_of_total = 1.0 / total
    for start in range(0, vocab_size, BLOCK_SIZE):
        column = start + tl.arange(0, BLOCK_SIZE)
        capped = _load_capped(row_ptr, bias_ptr, column, vocab_size, scale, softcap)
        tl.debug_barrier()  # stores below may hit what other threads load above
        logits = capped
        if inverse_temperature is not None:
            logits = logits * inverse_temperature
        # The label's entry is p - 1 in float32, before it is rounded to the gradient's dtype.
        gradient = tl.exp2((logits - shift) * LOG2_E) * share_of_total
        gradient = gradient - (column == label).to(tl.float32)
        if softcap is not None:
            share = capped * (1.0 / softcap)
            gradient = gradient * (1.0 - share * share)
        gradient = (gradient * factor).to(out_ptr.dtype.element_ty)
        tl.store(out_row_ptr + column, gradient, mask=column < vocab_size)


def softmax_gradient(
    logits: Tensor,
    labels: Tensor,
    row_weights: Tensor | None,
    out: Tensor,
    bias: Tensor | None,
    scale: float,
    softcap: float | None,
    temperature: float,
    ignore_index: int,
) -> Tensor:
    """Write row_weight * d nll / d u to ``out``; returns nll (num_tokens,) float32, unweighted.

    Rows whose label is ``ignore_index`` score 0, get zeros and are not read; a label that is no
    column gives NaN.

    Args:
        logits: (num_tokens, vocab_size), rows contiguous.
        labels: (num_tokens,) int64, contiguous.
        row_weights: (num_tokens,) float32, contiguous, or None for ones.
        out: of the shape of ``logits``, rows contiguous; ``logits`` itself, memory of its own, or
            a 16-bit view of float32 ``logits``: ``logits.view(torch.bfloat16)[:, :vocab_size]``.
        bias: (vocab_size,), contiguous, or None.
    """
    num_tokens, vocab_size = logits.shape
    nll = torch.empty(num_tokens, dtype=torch.float32, device=logits.device)
    if num_tokens == 0:
        return nll
    block_size = min(MAX_BLOCK_SIZE, max(128, triton.next_power_of_2(vocab_size)))
    with torch.cuda.device_of(logits):
        _softmax_gradient_kernel[(num_tokens,)](
            logits,
            labels,
            row_weights,
            bias,
            nll,
            out,
            logits.stride(0),
            out.stride(0),
            vocab_size,
            ignore_index,
            None if scale == 1.0 else scale,
            softcap,
            None if temperature == 1.0 else 1.0 / temperature,
            BLOCK_SIZE=block_size,
            WIDTH=16 // logits.element_size(),  # 16 bytes, what one thread loads at once
            num_warps=min(MAX_WARPS, max(1, block_size // COLUMNS_PER_WARP)),
            enable_fp_fusion=True,
        )
    return nll
