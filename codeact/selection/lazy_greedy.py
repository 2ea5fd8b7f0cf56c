"""Lazy greedy maximisation of a facility location, exact, without a matrix of similarities.

A gain only falls while rows are kept, so a gain from an earlier moment is an upper bound, and a row
whose fresh gain tops all bounds is the next one (Minoux, 1978). Two things make it stream: bounds
that must be renewed come in batches, one product each. And the rows that a candidate covers better
than the rows kept do only become fewer, so that a list of them, once made, renews its gain without
a product for good: of 8000 real embeddings it is 3 % after ten rows kept, 0.3 % after a hundred.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codeact.selection.coverage import Coverage, Reach
from codeact.selection.room import Room

# Gains that differ by less than this share count as equal. Two rows that cover nobody but each
# other have the same gain, and float32, which errs by about a tenth of this, must not decide.
_TIE = 2e-6
_DENSE_BATCH = 64  # candidates measured against all rows at a time
_LISTED_BATCH = 32  # candidates renewed from their lists at a time
# A list is kept if it has at most a sixteenth of the rows, or so few, and while all lists together
# have no more entries than 512 MiB hold.
_LIST_SHARE = 16
_SHORT_LIST = 1024
_LIST_ENTRIES = 1 << 26


class LazyGreedy(NamedTuple):
    """The rows kept, best first, and what is known of them and of all."""

    order: NDArray[np.int64]
    gains: NDArray[np.float64]  # of each kept row, when it was taken; never rises
    losses: NDArray[np.float32]  # (num_rows,) 1 - similarity to the most similar kept row
    num_measured: int  # candidates measured against all rows, the two first passes left out


def lazy_greedy(coverage: Coverage, room: Room) -> LazyGreedy:
    """Greedy ``max f(S) = sum_i max_{j in S} similarity(i, j)`` within a budget.

    The row with the largest gain among those that still fit comes next; of rows with equal gains
    (to 2e-6 of them) the first.
    """
    return _Greedy(coverage, room).run()


class _Greedy:
    def __init__(self, coverage: Coverage, room: Room) -> None:
        self.coverage = coverage
        self.room = room
        self.lists: dict[int, Reach] = {}
        self.num_entries = 0
        self.num_measured = 0
        self.covered = np.ones(len(coverage), dtype=np.float32)
        self.order: list[int] = []
        self.gains: list[float] = []
        self.heap: list[tuple[float, int, int]] = []  # (-bound, row, rows kept when it was made)

    def run(self) -> LazyGreedy:
        losses = len(self.covered) - self.coverage.gains(None)
        losses[~self.room.fitting()] = np.inf
        best = int(np.argmax(losses <= losses.min() * (1 + _TIE)))
        if self.room.fits(best):
            self._keep(best, len(self.covered) - float(losses[best]))
            gains = self.coverage.gains(self.covered).tolist()
            self.heap = [(-gain, row, 1) for row, gain in enumerate(gains) if row != best]
            heapq.heapify(self.heap)
        while self.room.left > 0 and self.heap:
            if self.heap[0][2] == len(self.order):
                self._choose()
            else:
                self._freshen(0.0)
        return LazyGreedy(
            np.array(self.order, dtype=np.int64),
            np.array(self.gains),
            self.covered,
            self.num_measured,
        )

    def _choose(self) -> None:
        """Keep the first of the rows whose gains count as the largest; the top one is fresh."""
        limit = self.heap[0][0] * (1 - _TIE)
        ties = [heapq.heappop(self.heap)]
        # Of gains of 0, which can be very many, the top is the first already.
        while limit < 0 and self.heap and self.heap[0][0] <= limit:
            if self.heap[0][2] < len(self.order):
                self._freshen(limit)
            else:
                ties.append(heapq.heappop(self.heap))
        ties = [tie for tie in ties if self.room.fits(tie[1])]  # what does not fit never will
        if ties:
            best = min(ties, key=lambda tie: tie[1])
            for tie in ties:
                if tie is not best:
                    heapq.heappush(self.heap, tie)
            self._keep(best[1], -best[0])

    def _freshen(self, limit: float) -> None:
        """Renew a batch of the stale gains on top of the heap, those from ``-limit`` on."""
        listed: list[int] = []
        dense: list[int] = []
        while self.heap and len(listed) < _LISTED_BATCH and len(dense) < _DENSE_BATCH:
            bound, row, made = self.heap[0]
            if made == len(self.order) or bound > limit:
                break
            heapq.heappop(self.heap)
            if self.room.fits(row):
                (listed if row in self.lists else dense).append(row)
        for rows in (listed, dense):
            for row, gain in zip(rows, self._renew(rows, rows is listed), strict=True):
                heapq.heappush(self.heap, (-gain, row, len(self.order)))

    def _renew(self, rows: list[int], listed: bool) -> list[float]:
        """Fresh gains of ``rows``; those that reach few enough rows get or keep a list."""
        if not rows:
            return []
        if listed:
            reaches = [self.lists[row] for row in rows]
        else:
            self.num_measured += len(rows)
            reaches = list(self.coverage.reaches(np.array(rows), self.covered))
        places = np.concatenate([reach.rows for reach in reaches])
        won = np.maximum(
            self.covered[places] - np.concatenate([reach.losses for reach in reaches]), 0
        )
        ends = np.cumsum([len(reach.rows) for reach in reaches])
        gains = []
        for row, reach, end in zip(rows, reaches, ends.tolist(), strict=True):
            mine = won[end - len(reach.rows) : end]
            gains.append(float(mine.sum(dtype=np.float64)))
            alive = mine > 0
            if not listed or 2 * int(alive.sum()) < len(reach.rows):
                self._list(row, Reach(reach.rows[alive], reach.losses[alive]))
        return gains

    def _list(self, row: int, reach: Reach) -> None:
        self._drop(row)
        length = len(reach.rows)
        is_short = length <= max(_SHORT_LIST, len(self.covered) // _LIST_SHARE)
        if is_short and self.num_entries + length <= _LIST_ENTRIES:
            self.lists[row] = reach
            self.num_entries += length

    def _drop(self, row: int) -> None:
        if row in self.lists:
            self.num_entries -= len(self.lists.pop(row).rows)

    def _keep(self, row: int, gain: float) -> None:
        self.order.append(row)
        self.gains.append(gain)
        self.room.take(row)
        reach = self.lists.get(row)
        if reach is None:
            reach = next(self.coverage.reaches(np.array([row]), self.covered))
        rows, losses = reach
        self.covered[rows] = np.minimum(self.covered[rows], losses)
        self._drop(row)
