"""The bins of an epoch: a view of one array of span numbers, with no object a bin."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]

# Lengths in tokens to what they cost, in whole units so that sums are exact on every machine.
Costs = Callable[[Int32Array], NDArray[np.integer[Any]]]

# Bins looked at for the costliest ones to split. Costs of all the bins of a large set take longer
# than the few splits it needs are worth.
_MAX_CANDIDATES = 65536


class Bins(Sequence[Int32Array]):
    """Bins in training order: ``bins[k]`` is a view of the numbers of the spans in bin k.

    Step-major and rank-minor: the bin of rank r in step s is ``bins[s * world_size + r]``. A slice
    gives :class:`Bins` on the same memory.

    Attributes:
        order: (num_packed,) int32 span numbers; the bins are runs of it, in any order.
        starts: (num_bins,) int64, where in ``order`` each bin starts.
        stops: (num_bins,) int64, where it ends.
        seqlens: (num_spans,) int32, tokens of every span.
    """

    def __init__(
        self, order: Int32Array, starts: Int64Array, stops: Int64Array, seqlens: Int32Array
    ) -> None:
        self.order, self.starts, self.stops, self.seqlens = order, starts, stops, seqlens

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> Int32Array: ...

    @overload
    def __getitem__(self, index: slice) -> Bins: ...

    def __getitem__(self, index: int | slice) -> Int32Array | Bins:
        if isinstance(index, slice):
            return self.take(index)
        return self.order[self.starts[index] : self.stops[index]]

    def __iter__(self) -> Iterator[Int32Array]:
        for start, stop in zip(self.starts.tolist(), self.stops.tolist(), strict=True):
            yield self.order[start:stop]

    def take(self, indices: NDArray[np.integer[Any] | np.bool_] | slice) -> Bins:
        """Some of the bins, or all of them in another order."""
        return Bins(self.order, self.starts[indices], self.stops[indices], self.seqlens)

    @property
    def num_spans(self) -> Int64Array:
        """(num_bins,) int64, how many spans each bin holds."""
        return self.stops - self.starts

    @cached_property
    def num_tokens(self) -> Int64Array:
        """(num_bins,) int64 tokens in each bin."""
        return self.costs(lambda lengths: lengths)

    def costs(self, costs: Costs) -> Int64Array:
        """(num_bins,) int64, what the spans of each bin cost together."""
        if 2 * int(self.num_spans.sum()) < len(self.order):
            return self.compact().costs(costs)
        values = costs(self.seqlens[self.order])
        if self._is_gapless():
            return np.add.reduceat(values, self.starts, dtype=np.int64)
        running = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum(values, out=running[1:])
        return running[self.stops] - running[self.starts]

    def compact(self) -> Bins:
        """The same bins, one after the other in an ``order`` of their own."""
        stops = np.cumsum(self.num_spans)
        order = self.order[indices_of_runs(self.starts, self.num_spans)]
        return Bins(order, stops - self.num_spans, stops, self.seqlens)

    def _is_gapless(self) -> bool:
        if not len(self) or self.starts[0] != 0 or self.stops[-1] != len(self.order):
            return False
        return bool((self.starts[1:] == self.stops[:-1]).all())


def indices_of_runs(starts: Int64Array, lengths: Int64Array) -> Int64Array:
    """``start, start + 1, ...`` of each run's ``length``, run after run."""
    shift = starts - (np.cumsum(lengths) - lengths)
    indices: Int64Array = np.arange(lengths.sum()) + np.repeat(shift, lengths)
    return indices


def split_bins(bins: Bins, num_bins: int, costs: Costs) -> Bins:
    """At least ``num_bins`` bins where sequences allow it: the costliest are split in halves.

    A split falls between two sequences, where the halves come closest in cost; they take the place
    of their bin, so the order of the sequences stays. Where every sequence is alone in its bin, the
    result has fewer bins than asked for. Of very many bins, the first 65536 are looked at.
    """
    num_missing = num_bins - len(bins)
    if num_missing <= 0:
        return bins
    splittable = np.flatnonzero(bins.num_spans > 1)[: max(_MAX_CANDIDATES, num_missing)]
    totals = bins.take(splittable).costs(costs)
    # A bin outside the costliest `num_missing` is never the costliest of what is left.
    chosen = splittable[np.argsort(-totals, kind="stable")[:num_missing]]
    cuts = _cuts(bins.take(chosen), num_missing, costs)
    bin_of_cut = np.repeat(chosen, [len(positions) for positions in cuts])
    positions = np.array([cut for positions in cuts for cut in positions], dtype=np.int64)
    by_bin = np.lexsort((positions, bin_of_cut))
    bin_of_cut, positions = bin_of_cut[by_bin], positions[by_bin]
    # A cut is the stop of one half and the start of the next.
    return Bins(
        bins.order,
        np.insert(bins.starts, bin_of_cut + 1, positions),
        np.insert(bins.stops, bin_of_cut, positions),
        bins.seqlens,
    )


def _cuts(bins: Bins, num_cuts: int, costs: Costs) -> list[list[int]]:
    """Where in ``order`` each bin is cut, costliest part first, ``num_cuts`` in all if possible."""
    running = [np.cumsum(costs(bins.seqlens[spans])) for spans in bins]
    cuts: list[list[int]] = [[] for _ in running]
    heap = [(-int(total[-1]), number, 0, len(total)) for number, total in enumerate(running)]
    heapq.heapify(heap)
    for _ in range(num_cuts):
        if not heap:
            break
        _, number, first, last = heapq.heappop(heap)
        middle = _middle(running[number], first, last)
        cuts[number].append(int(bins.starts[number]) + middle)
        for half in ((first, middle), (middle, last)):
            if half[1] - half[0] > 1:
                total = _between(running[number], *half)
                heapq.heappush(heap, (-total, number, *half))
    return cuts


def _middle(running: NDArray[np.integer[Any]], first: int, last: int) -> int:
    """Where to cut the sequences ``[first, last)`` so that the halves cost about the same."""
    before = int(running[first - 1]) if first else 0
    half = before + _between(running, first, last) / 2
    middle = first + 1 + int(np.searchsorted(running[first : last - 1], half))
    if middle - 1 > first and half - running[middle - 2] <= running[middle - 1] - half:
        middle -= 1
    return min(max(middle, first + 1), last - 1)


def _between(running: NDArray[np.integer[Any]], first: int, last: int) -> int:
    return int(running[last - 1]) - (int(running[first - 1]) if first else 0)


def add_fillers(bins: Bins, filler: int, num_fillers: int) -> Bins:
    """As many bins more at the end, each of the one span ``filler``."""
    first = len(bins.order) + np.arange(num_fillers)
    return Bins(
        np.append(bins.order, np.full(num_fillers, filler, dtype=np.int32)),
        np.append(bins.starts, first),
        np.append(bins.stops, first + 1),
        bins.seqlens,
    )
