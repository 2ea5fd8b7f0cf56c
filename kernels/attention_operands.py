"""The operands of packed attention as a launch wants them: aligned, in range, in tiles."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from codeact.kernels.schedule import ALIGNMENT

# More query heads in one block would leave it too few positions for a tile of keys.
MAX_PACKED_HEADS = 16


class Tiles(NamedTuple):
    """Rows, keys and columns of values that a program holds, and the options of its launch."""

    rows: int
    keys: int
    values: int
    num_warps: int
    num_stages: int


# By whether keys come by TMA (Hopper, datacentre Blackwell), then by the head_dim that fits. Up to
# 128 none spills on sm_80, sm_90 and sm_100; 256 on sm_90 spills some 80 bytes a thread, which
# costs less than the scores once more for every 64 columns of values. Three stages, since with two
# the loads of a tile only start when the one before is done. 113 KiB at head_dim 64 let two
# programs share a Hopper SM, and one computes exponentials while the other multiplies; the other
# devices may have only 99 KiB.
TILES = {
    True: {
        64: Tiles(64, 64, 64, 4, 3),
        128: Tiles(128, 32, 128, 8, 3),
        256: Tiles(64, 32, 128, 4, 2),
    },
    False: {
        64: Tiles(64, 32, 64, 4, 3),
        128: Tiles(64, 32, 64, 4, 3),
        256: Tiles(64, 16, 64, 4, 2),
    },
}


def tiles_for(query: Tensor) -> Tiles:
    """The tiles of a launch on ``query``; its head_dim has been checked."""
    fitting = TILES[has_descriptors(query)]
    return fitting[min(dim for dim in fitting if dim >= query.shape[-1])]


def has_descriptors(x: Tensor) -> bool:
    """Whether tiles of keys can come by TMA: on the device, and a head at a multiple of 16 bytes.

    Consumer Blackwell (12.x) has TMA too, but neither the memory nor the matrix instructions.
    """
    if not x.is_cuda or (x.shape[-1] * x.element_size()) % ALIGNMENT != 0:
        return False
    return torch.cuda.get_device_capability(x.device)[0] in (9, 10)


def packed_heads(groups: int) -> int:
    """How many of the query heads of one key head share a block."""
    return max(n for n in range(1, min(groups, MAX_PACKED_HEADS) + 1) if groups % n == 0)


def first_keys(
    cu_seqlens: Tensor, num_tokens: int, sliding_window: int | None, device: torch.device
) -> Tensor:
    """(num_tokens,) int32, the first key each query sees; made on the device, which goes on."""
    tokens = torch.arange(num_tokens, dtype=torch.int32, device=device)
    cu_seqlens = cu_seqlens.to(device, torch.int32)
    first = cu_seqlens[torch.searchsorted(cu_seqlens[1:], tokens, right=True)]
    return first if sliding_window is None else torch.maximum(first, tokens - (sliding_window - 1))


def to_unit(tangents: list[Tensor | None]) -> tuple[Tensor | None, list[Tensor | None]]:
    """A power of two near the largest entry, (), and the tangents divided by it.

    A kernel rounds ``P dS`` to the operands' dtype, which in float16 would overflow or vanish; the
    result is linear in the tangents, and a power of two costs no digit. bfloat16 has the range of
    float32 and needs none of this.
    """
    given = [t for t in tangents if t is not None]
    if not given:
        return None, tangents
    largest = torch.stack([t.abs().amax() for t in given]).amax().float()
    unit = torch.exp2(torch.log2(largest).ceil()).nan_to_num(nan=1.0).clamp(2.0**-24, 2.0**16)
    return unit, [None if t is None else (t.float() / unit).to(t.dtype) for t in tangents]


def aligned(x: Tensor) -> Tensor:
    """``x``, copied unless its rows are contiguous and begin at whole vectors."""
    pitch = [s * x.element_size() for s, n in zip(x.stride()[:2], x.shape, strict=False) if n > 1]
    if x.data_ptr() % ALIGNMENT != 0:  # contiguous() would leave a contiguous one where it is
        return x.clone(memory_format=torch.contiguous_format)
    well = x.stride(2) == 1 and all(p > 0 and p % ALIGNMENT == 0 for p in pitch)
    return x if well else x.contiguous()


def descriptor(x: Tensor, block_keys: int, block_columns: int) -> Any:
    """A TMA descriptor of an aligned (num_tokens, heads, head_dim), by (head, token, dim)."""
    shape = [x.shape[1], x.shape[0], x.shape[2]]
    # Where there is one token or one head its stride is never used, but must look aligned.
    strides = [x.stride(d) if x.shape[d] > 1 else x.shape[2] for d in (1, 0)]
    return TensorDescriptor(x, shape, [*strides, 1], [1, block_keys, block_columns])
