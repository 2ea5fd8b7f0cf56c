"""Sums of the values between consecutive offsets, in float64, one program a segment.

Each lane adds every BLOCK_SIZE-th value and the lanes are added last, in a fixed order: the same
bits every time. Cost: the values read once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Segments are answers, of some hundred tokens.
BLOCK_SIZE = 256
NUM_WARPS = 2


@triton.jit
def _segment_sums_kernel(
    values_ptr,  # (num_values,)
    offsets_ptr,  # (num_segments + 1,) integers
    sums_ptr,  # (num_segments,) float64, out
    BLOCK_SIZE: tl.constexpr,
):
    segment = tl.program_id(0).to(tl.int64)
    start = tl.load(offsets_ptr + segment).to(tl.int64)
    end = tl.load(offsets_ptr + segment + 1).to(tl.int64)
    sums = tl.zeros([BLOCK_SIZE], tl.float64)
    for first in range(start, end, BLOCK_SIZE):
        place = first + tl.arange(0, BLOCK_SIZE)
        values = tl.load(values_ptr + place, mask=place < end, other=0.0)
        if values_ptr.dtype.element_ty != tl.float64:
            values = values.to(tl.float32).to(tl.float64)
        sums += values
    tl.store(sums_ptr + segment, tl.sum(sums, axis=0))


def segment_sums(values: Tensor, offsets: Tensor) -> Tensor:
    """(num_segments,) float64 sums of contiguous (num_values,) floating-point values.

    ``offsets`` is (num_segments + 1,) int32 or int64, contiguous, rising, within the values.
    """
    num_segments = offsets.numel() - 1
    sums = torch.empty(num_segments, dtype=torch.float64, device=values.device)
    if num_segments == 0:
        return sums
    with torch.cuda.device_of(values):
        _segment_sums_kernel[(num_segments,)](
            values,
            offsets,
            sums,
            BLOCK_SIZE=BLOCK_SIZE,
            num_warps=NUM_WARPS,
            enable_fp_fusion=True,
        )
    return sums
