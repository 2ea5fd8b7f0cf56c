"""Best-fit-decreasing bin packing of sequence lengths."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from codeact import _C

Seqlens = npt.NDArray[Any] | Tensor | Sequence[int]

_MAX_INT32 = np.iinfo(np.int32).max


def pack_best_fit(
    seqlens: Seqlens, capacity: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Assign sequences to bins, longest first, each into the fullest bin that holds it.

    Best fit decreasing on the histogram of lengths: equal sequences and equal bins are handled
    together (the idea of histogram packing, Krell et al., arXiv:2107.02027, with real indices as
    the result). As many bins, and as full, as the plain algorithm makes.

    Args:
        seqlens: (num_seqs,) lengths in tokens, of any integer dtype. Without a copy if int32 and
            contiguous. A length of 0 takes a place and no space.
        capacity: Tokens a bin may hold, from 1 to 2**31 - 1.

    Returns:
        ``order``, (num_seqs,) int32, the indices of the sequences bin after bin, and ``offsets``,
        (num_bins + 1,) int64: bin k holds ``order[offsets[k]:offsets[k + 1]]``, longest first.
        The same input gives the same result everywhere. ``pack_best_fit([3, 4, 2, 5], 7)`` is
        ``[1, 0, 3, 2]`` and ``[0, 2, 4]``.

    Raises:
        ValueError: ``seqlens`` is not 1-D or not integers, ``capacity`` is out of range, or a
            length is negative or above ``capacity``.
    """
    if not isinstance(capacity, (int, np.integer)) or not 0 < capacity <= _MAX_INT32:
        raise ValueError(f"capacity must be an integer from 1 to {_MAX_INT32}, got {capacity!r}")
    return _C.pack_best_fit(_as_int32(seqlens, int(capacity)), int(capacity))


def pack_best_fit_reference(
    seqlens: Seqlens, capacity: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The definition of :func:`pack_best_fit`, one sequence at a time.

    Number and fill of the bins are equal; which of several equal bins or equal sequences is taken,
    and the order of the bins, may differ.
    """
    lengths = _as_int32(seqlens, capacity).tolist()
    bins: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (remaining capacity, bin), ascending
    for seq in sorted(range(len(lengths)), key=lambda seq: -lengths[seq]):
        position = bisect_left(free, (lengths[seq], 0))
        if position < len(free):
            remaining, bin_index = free.pop(position)
        else:
            remaining, bin_index = capacity, len(bins)
            bins.append([])
        bins[bin_index].append(seq)
        insort(free, (remaining - lengths[seq], bin_index))
    order = np.array([seq for members in bins for seq in members], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, bins)], dtype=np.int64)
    return order, offsets


def _as_int32(seqlens: Seqlens, capacity: int) -> npt.NDArray[np.int32]:
    """Lengths as the native code takes them; what int32 cannot hold is refused here."""
    if isinstance(seqlens, Tensor):
        if seqlens.dtype.is_floating_point or seqlens.dtype.is_complex:
            raise ValueError(f"seqlens must be integers, got {seqlens.dtype}")
        seqlens = seqlens.detach().cpu().numpy()
    lengths = np.asarray(seqlens)
    if lengths.size == 0 and not isinstance(seqlens, np.ndarray):
        lengths = lengths.astype(np.int32)  # an empty list has no dtype of its own
    if lengths.ndim != 1:
        raise ValueError(f"seqlens must be 1-D, got {lengths.ndim}-D")
    if not np.issubdtype(lengths.dtype, np.integer):
        raise ValueError(f"seqlens must be integers, got {lengths.dtype}")
    if lengths.dtype.itemsize >= 4 and lengths.dtype != np.int32:
        outside = (lengths < 0) | (lengths > _MAX_INT32)
        if outside.any():
            seq = int(outside.argmax())
            rule = "is negative" if lengths[seq] < 0 else f"does not fit a bin of {capacity} tokens"
            raise ValueError(f"seqlens[{seq}] = {lengths[seq]} {rule}")
    return np.ascontiguousarray(lengths, dtype=np.int32)
