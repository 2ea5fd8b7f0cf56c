"""Bin packing of sequence lengths: of a whole set, and in the given order."""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
import numpy.typing as npt

from codeact import _C
from codeact.ops._seqlens import Seqlens, as_int32, checked_int, lengths_for


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
    capacity = checked_int("capacity", capacity)
    return _C.pack_best_fit(lengths_for(seqlens, capacity), capacity)


def pack_next_fit(seqlens: Seqlens, capacity: int) -> npt.NDArray[np.int64]:
    """Cut sequences, in the given order, into bins: a new bin where the next does not fit.

    Args:
        seqlens: (num_seqs,) lengths in tokens, as :func:`pack_best_fit` takes them.
        capacity: Tokens a bin may hold, from 1 to 2**31 - 1.

    Returns:
        ``offsets``, (num_bins + 1,) int64: bin k holds sequences ``offsets[k]`` to
        ``offsets[k + 1] - 1``. ``pack_next_fit([3, 4, 2, 5], 7)`` is ``[0, 2, 4]``.

    Raises:
        ValueError: as :func:`pack_best_fit`.
    """
    capacity = checked_int("capacity", capacity)
    return _C.pack_next_fit(lengths_for(seqlens, capacity), capacity)


def pack_best_fit_reference(
    seqlens: Seqlens, capacity: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The definition of :func:`pack_best_fit`, one sequence at a time.

    Number and fill of the bins are equal; which of several equal bins or equal sequences is taken,
    and the order of the bins, may differ.
    """
    lengths = as_int32(seqlens).tolist()
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


def pack_next_fit_reference(seqlens: Seqlens, capacity: int) -> npt.NDArray[np.int64]:
    """The definition of :func:`pack_next_fit`, one sequence at a time."""
    offsets, used = [0], 0
    for seq, seqlen in enumerate(lengths := as_int32(seqlens).tolist()):
        used += seqlen
        if used > capacity:
            offsets.append(seq)
            used = seqlen
    if lengths:
        offsets.append(len(lengths))
    return np.array(offsets, dtype=np.int64)
