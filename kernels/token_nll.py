"""Negative log-likelihood of target tokens from logits: one program a row, logits read once.

Online softmax (Milakov & Gimelshein, arXiv:1805.02867) over blocks of columns, in float32. The
cost is the traffic of the logits of rows that carry a loss; a row whose target is ``ignore_index``
is not read.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# 8192 bfloat16 columns are 16 KiB in flight a program, enough for Hopper's memory latency; much
# wider blocks spill.
MAX_BLOCK_SIZE = 8192
NUM_WARPS = 8


@triton.jit
def _token_nll_kernel(
    logits_ptr,  # (num_tokens, vocab_size), rows `logits_stride` apart
    targets_ptr,  # (num_tokens,) int64
    nll_ptr,  # (num_tokens,) float32, out
    logits_stride,
    vocab_size,
    ignore_index,
    BLOCK_SIZE: tl.constexpr,
):
    LOG2_E: tl.constexpr = 1.4426950408889634
    token = tl.program_id(0).to(tl.int64)  # int32 would overflow at token * stride >= 2**31
    target = tl.load(targets_ptr + token)
    if target == ignore_index:
        tl.store(nll_ptr + token, 0.0)
        return
    row_ptr = logits_ptr + token * logits_stride
    row_max = float("-inf")
    row_sum = 0.0
    for start in range(0, vocab_size, BLOCK_SIZE):
        columns = start + tl.arange(0, BLOCK_SIZE)
        logits = tl.load(row_ptr + columns, mask=columns < vocab_size, other=float("-inf"))
        logits = logits.to(tl.float32)
        new_max = tl.maximum(row_max, tl.max(logits, axis=0))
        # While every logit is -inf the maximum is too, and -inf - (-inf) would be NaN.
        shift = tl.where(new_max == float("-inf"), 0.0, new_max)
        # The difference comes before log2(e): scaling first would cost a logit of 1e4 three digits.
        row_sum = row_sum * tl.exp2((row_max - shift) * LOG2_E)
        row_sum += tl.sum(tl.exp2((logits - shift) * LOG2_E), axis=0)
        row_max = new_max
    # A target that is no column reads nothing and scores NaN.
    is_column = (target >= 0) & (target < vocab_size)
    label = tl.load(row_ptr + target, mask=is_column, other=float("nan")).to(tl.float32)
    tl.store(nll_ptr + token, tl.log2(row_sum) / LOG2_E + (row_max - label))


def token_nll(logits: torch.Tensor, targets: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """Launch on (num_tokens, vocab_size) logits with contiguous rows and contiguous targets."""
    num_tokens, vocab_size = logits.shape
    nll = torch.empty(num_tokens, dtype=torch.float32, device=logits.device)
    if num_tokens == 0:
        return nll
    with torch.cuda.device_of(logits):
        _token_nll_kernel[(num_tokens,)](
            logits,
            targets,
            nll,
            logits.stride(0),
            vocab_size,
            ignore_index,
            BLOCK_SIZE=min(MAX_BLOCK_SIZE, triton.next_power_of_2(vocab_size)),
            num_warps=NUM_WARPS,
        )
    return nll
