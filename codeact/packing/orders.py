"""The bins of each epoch before they are dealt to ranks, for each ``order`` of a plan."""

from __future__ import annotations

from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from codeact.ops.packing import pack_best_fit, pack_next_fit
from codeact.ops.shuffle import shuffled
from codeact.ops.windows import pack_windows
from codeact.packing.bins import Bins, Int32Array, Int64Array, indices_of_runs
from codeact.packing.seeds import derive_seed

Order = Literal["shuffle", "preserve", "compat"]
ORDERS: tuple[str, ...] = get_args(Order)

_BINS_PER_SPARE = 65536


class EpochPacking:
    """Packs the spans of a plan anew every epoch; knows nothing of ranks.

    Every epoch has at most ``num_bins`` bins: as many as best fit decreasing of the whole set or
    the first epoch takes, whichever is more, and one more for each 65536.

    Args:
        seqlens: (num_spans,) int32.
        packed: (num_packed,) int32, the spans that go into bins; None for all.
        capacity: tokens a bin may hold.
        order: see :func:`codeact.packing.plan_bins`.
        window: sequences packed together; None for all. Of a micro-batch under ``"compat"``.
        seed: of the shuffles.
    """

    def __init__(
        self,
        seqlens: Int32Array,
        packed: Int32Array | None,
        *,
        capacity: int,
        order: Order,
        window: int | None,
        seed: int,
    ) -> None:
        self.seqlens, self.packed, self.capacity = seqlens, packed, capacity
        self.order, self.window, self.seed = order, window, seed
        self.num_packed = len(seqlens) if packed is None else len(packed)
        self._last: tuple[int, Bins] | None = None

    @cached_property
    def num_bins(self) -> int:
        """Bins that every epoch fits into."""
        first = len(self._packed(0, None))
        if self.order != "shuffle":
            return first
        # Windowed epochs differ by a bin or two; packing millions again for them is not worth it.
        return max(first + first // _BINS_PER_SPARE, self._fewest_bins)

    @cached_property
    def _fewest_bins(self) -> int:
        """Bins of best fit decreasing on the whole set; they depend on the lengths alone."""
        lengths = self.seqlens if self.packed is None else self.seqlens[self.packed]
        return len(pack_best_fit(lengths, self.capacity)[1]) - 1

    def max_num_seqs(self) -> int:
        """How many of the shortest packed spans fit in a bin together."""
        lengths = self.seqlens if self.packed is None else self.seqlens[self.packed]
        most = min(len(lengths), self.capacity)  # as none is empty
        shortest = np.sort(np.partition(lengths, most - 1)[:most])
        return int(np.searchsorted(np.cumsum(shortest, dtype=np.int64), self.capacity, "right"))

    def pack(self, epoch: int) -> Bins:
        """At most ``num_bins`` bins of an epoch; under ``"shuffle"`` in the order they closed."""
        return self._packed(epoch, self.num_bins)

    def _packed(self, epoch: int, most: int | None) -> Bins:
        """Bins of an epoch, at most ``most``; the last ones are kept."""
        last = self._last
        if last is not None and last[0] == epoch:
            return last[1]
        self._last = last = None  # its memory is free for the new ones
        if self.order == "shuffle":
            bins = self._windows(epoch, most)
        else:
            bins = self._given() if self.order == "preserve" else self._compat(epoch)
        self._last = (epoch, bins)
        return bins

    def _stream(self, name: str, epoch: int) -> Int32Array:
        """All packed spans, shuffled."""
        mixed = shuffled(self.num_packed, seed=derive_seed(self.seed, name), epoch=epoch)
        return mixed if self.packed is None else self.packed[mixed]

    def _bins(self, order: Int32Array, offsets: Int64Array) -> Bins:
        return Bins(order, offsets[:-1], offsets[1:], self.seqlens)

    def _windows(self, epoch: int, most: int | None) -> Bins:
        stream = self._stream("examples", epoch)
        lengths = self.seqlens[stream]
        if self.window is None or self.window >= len(stream):
            order, offsets = pack_best_fit(lengths, self.capacity)
            return self._bins(stream[order], offsets)
        order, offsets = pack_windows(lengths, self.capacity, window=self.window)
        tail = self._tail(len(offsets) - 1, most, self.window)
        while most is not None and len(offsets) - 1 > most:
            # The whole set in one window takes as few bins as best fit decreasing can.
            tail = min(tail, len(stream))
            order, offsets = pack_windows(lengths, self.capacity, window=self.window, tail=tail)
            tail *= 4
        del lengths
        return self._bins(stream[order], offsets)

    def _tail(self, num_bins: int, most: int | None, window: int) -> int:
        """Sequences in a last window that is likely to save the bins that are too many."""
        if most is None or num_bins <= most:
            return window
        saved_by_all = max(1, num_bins - self._fewest_bins)
        return max(4 * window, 2 * self.num_packed * (num_bins - most) // saved_by_all)

    def _given(self) -> Bins:
        order = np.arange(self.num_packed, dtype=np.int32) if self.packed is None else self.packed
        return self._bins(order, pack_next_fit(self.seqlens[order], self.capacity))

    def _compat(self, epoch: int) -> Bins:
        stream = self._stream("micro-batches", 0)
        window = self.window or len(stream)
        order, offsets, num_rows = pack_micro_batches(self.seqlens[stream], self.capacity, window)
        bins = self._bins(stream[order], offsets)
        batches = shuffled(len(num_rows), seed=derive_seed(self.seed, "batches"), epoch=epoch)
        first = np.cumsum(num_rows) - num_rows
        return bins.take(indices_of_runs(first[batches], num_rows[batches]))


def pack_micro_batches(
    seqlens: Int32Array, capacity: int, batch_size: int
) -> tuple[Int32Array, Int64Array, Int64Array]:
    """The packing of CodeACT's released collator (arXiv:2408.02193): next fit in a micro-batch.

    Each run of ``batch_size`` sequences is sorted ascending and packed by next fit.

    Returns:
        ``order`` and ``offsets`` as of :func:`codeact.ops.pack_best_fit`, and (num_batches,) int64,
        how many bins each micro-batch became.
    """
    order = _sorted_in_batches(seqlens, batch_size)
    opens = _opens_a_bin(seqlens[order], capacity, batch_size)
    offsets = np.append(np.flatnonzero(opens), np.int64(len(order)))
    first = np.arange(0, len(order), batch_size)
    return order, offsets, np.add.reduceat(opens, first, dtype=np.int64)


def _sorted_in_batches(seqlens: Int32Array, batch_size: int) -> Int32Array:
    # The position below the length makes one sort of whole numbers stable.
    keys = seqlens.astype(np.int64) << 32 | np.arange(len(seqlens))
    num_even = len(keys) // batch_size * batch_size
    keys[:num_even].reshape(-1, batch_size).sort(axis=1)
    keys[num_even:].sort()
    return (keys & 0xFFFFFFFF).astype(np.int32)


def _opens_a_bin(seqlens: Int32Array, capacity: int, batch_size: int) -> NDArray[np.bool_]:
    """True at each sequence that next fit starts a bin with."""
    opens = np.zeros(len(seqlens), dtype=np.bool_)
    num_batches = len(seqlens) // batch_size
    if batch_size > num_batches:  # few and long: one call a batch
        for first in range(0, len(seqlens), batch_size):
            offsets = pack_next_fit(seqlens[first : first + batch_size], capacity)
            opens[first + offsets[:-1]] = True
        return opens
    # Many and short: all batches at once, one place after the other.
    num_even = num_batches * batch_size
    lengths = seqlens[:num_even].reshape(-1, batch_size)
    opens_even = opens[:num_even].reshape(-1, batch_size)
    used: Int64Array = np.full(num_batches, capacity, dtype=np.int64)
    for place in range(batch_size):
        opens_even[:, place] = (used + lengths[:, place] > capacity) | (place == 0)
        used[opens_even[:, place]] = 0
        used += lengths[:, place]
    if num_even < len(seqlens):
        opens[num_even + pack_next_fit(seqlens[num_even:], capacity)[:-1]] = True
    return opens
