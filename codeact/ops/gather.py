"""From a flat array of tokens to the flat stream of a batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codeact import _C
from codeact.ops._seqlens import Seqlens, as_int32, checked_int

TOKEN_DTYPES = tuple(map(np.dtype, (np.int16, np.uint16, np.int32, np.uint32, np.int64)))
"""What :func:`gather_tokens` reads."""


class PackLayout(NamedTuple):
    """Where each token of sequences laid end to end belongs, as CPU tensors.

    Attributes:
        position_ids: (num_tokens,) int64, restarting at 0 in each sequence.
        seq_idx: (num_tokens,) int32, the index of each token's sequence.
        cu_seqlens: (num_seqs + 1,) int32, running sum of the lengths from 0.
    """

    position_ids: Tensor
    seq_idx: Tensor
    cu_seqlens: Tensor


def gather_tokens(
    values: NDArray[np.integer[Any]],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Segments of a flat array laid end to end: ``concatenate([values[a:b] for a, b in ...])``.

    One native call without the GIL, so threads gather beside each other and a memory-mapped array
    is read in the background.

    Args:
        values: (num_values,) int16, uint16, int32, uint32 or int64, contiguous; may be a
            ``np.memmap``.
        starts: (num_segments,) int64, first value of each segment.
        stops: (num_segments,) int64, the value after its last.
        out: int64 CPU tensor to write to, contiguous, as long as the segments together; pinned
            memory lets the copy to a GPU run beside other work. None allocates.

    Returns:
        (sum of the lengths,) int64; ``out`` if given.

    Raises:
        ValueError: A dtype or shape differs from these, or a segment does not lie in ``values``.
    """
    if not isinstance(values, np.ndarray) or values.dtype not in TOKEN_DTYPES:
        kinds = ", ".join(dtype.name for dtype in TOKEN_DTYPES)
        raise ValueError(f"values must be a NumPy array of {kinds}, got {_described(values)}")
    if not (values.flags.c_contiguous and values.flags.aligned):
        raise ValueError("values must be contiguous and aligned")
    starts, stops = _bounds("starts", starts), _bounds("stops", stops)
    target = None if out is None else _writable("out", out, torch.int64)
    gathered = _C.gather_tokens(values, starts, stops, target)
    return torch.from_numpy(gathered) if out is None else out


def gather_tokens_reference(
    values: NDArray[np.integer[Any]], starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> Tensor:
    """The definition of :func:`gather_tokens`."""
    segments = [values[start:stop] for start, stop in zip(starts, stops, strict=True)]
    return torch.from_numpy(np.concatenate([np.empty(0, np.int64), *segments]).astype(np.int64))


def pack_layout(
    seqlens: Seqlens, *, num_tokens: int | None = None, out: PackLayout | None = None
) -> PackLayout:
    """The layout of sequences laid end to end, in one native call.

    Args:
        seqlens: (num_seqs,) lengths in tokens, of any integer dtype.
        num_tokens: Length of the stream if it is to be longer than the sequences: what remains is
            laid out as one more sequence, for padding.
        out: Contiguous CPU tensors of the dtypes and sizes of the result, to write to.

    Raises:
        ValueError: A length is negative; the sum is above 2**31 - 1 (``cu_seqlens`` is int32) or
            above ``num_tokens``; a tensor of ``out`` has another dtype or size.
    """
    lengths = as_int32(seqlens)
    if num_tokens is not None:
        rest = checked_int("num_tokens", num_tokens, least=0) - int(lengths.sum(dtype=np.int64))
        if rest < 0:
            raise ValueError(f"seqlens sum to {num_tokens - rest} tokens, above {num_tokens=}")
        if rest > 0:
            lengths = np.append(lengths, np.int32(rest))
    if out is None:
        return PackLayout(*map(torch.from_numpy, _C.pack_layout(lengths)))
    _C.pack_layout(
        lengths,
        _writable("position_ids", out.position_ids, torch.int64),
        _writable("seq_idx", out.seq_idx, torch.int32),
        _writable("cu_seqlens", out.cu_seqlens, torch.int32),
    )
    return out


def pack_layout_reference(seqlens: Seqlens) -> PackLayout:
    """The definition of :func:`pack_layout`, without its options."""
    lengths = torch.from_numpy(as_int32(seqlens)).long()
    ends = lengths.cumsum(0)
    seq_idx = torch.repeat_interleave(lengths)
    return PackLayout(
        torch.arange(len(seq_idx)) - (ends - lengths)[seq_idx],
        seq_idx.int(),
        torch.cat([ends.new_zeros(1), ends]).int(),
    )


def _described(value: object) -> str:
    return str(value.dtype) if isinstance(value, np.ndarray) else type(value).__name__


def _bounds(name: str, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    if not isinstance(bounds, np.ndarray) or bounds.dtype != np.int64 or bounds.ndim != 1:
        raise ValueError(f"{name} must be a 1-D NumPy array of int64, got {_described(bounds)}")
    return np.require(bounds, requirements=["C", "A"])


def _writable(name: str, tensor: Tensor, dtype: torch.dtype) -> NDArray[Any]:
    """The memory of a CPU tensor as the native code takes it."""
    if tensor.dtype != dtype or tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise ValueError(
            f"{name} must be a contiguous {dtype} CPU tensor, "
            f"got {tensor.dtype} on {tensor.device} with strides {tensor.stride()}"
        )
    array: NDArray[Any] = tensor.detach().numpy()
    return array
