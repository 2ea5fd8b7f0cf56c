"""Five ways to make training steps of examples, and what each leaves unfilled.

All take the same examples and put about as many of them into a step: ``batch_size`` examples, or
the tokens that so many examples have on average.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rivals import trl_rows

from codeact.packing import plan_bins

Indices = NDArray[np.integer[Any]]


class Step(NamedTuple):
    """One forward and backward pass.

    Attributes:
        rows: example indices of each row.
        width: slots of each row; 0 where rows lie end to end and nothing is padded.
        num_tokens: slots that hold a token.
    """

    rows: list[Indices]
    width: int
    num_tokens: int

    @property
    def num_slots(self) -> int:
        """Token positions that the model computes."""
        return len(self.rows) * self.width or self.num_tokens


@dataclass(frozen=True)
class Layout:
    """What steps are made of.

    Attributes:
        seqlens: (num_examples,) int32, each from 1 to ``capacity``.
        batch_size: examples of a padded batch.
        capacity: tokens of the longest row.
        budget: tokens of a packed step; see :meth:`of`.
        seed: of the order of examples and rows.
    """

    seqlens: NDArray[np.int32]
    batch_size: int
    capacity: int
    budget: int
    seed: int = 0

    @classmethod
    def of(
        cls, seqlens: NDArray[np.int32], batch_size: int, capacity: int, seed: int = 0
    ) -> Layout:
        """A packed step gets the tokens that ``batch_size`` examples have on average.

        Padded and packed ways then take equally many steps, and the optimizer sees as much data
        in each. It is never below ``capacity``, so that the longest example fits.
        """
        budget = max(capacity, round(batch_size * float(seqlens.mean())))
        return cls(seqlens, batch_size, capacity, budget, seed)

    def select(self, indices: Indices) -> Layout:
        """The same on some of the examples."""
        return replace(self, seqlens=self.seqlens[indices])

    def batches(self) -> Iterator[Indices]:
        """Micro-batches of ``batch_size`` examples in random order, the last one shorter."""
        order = np.random.default_rng(self.seed).permutation(len(self.seqlens))
        for begin in range(0, len(order), self.batch_size):
            yield order[begin : begin + self.batch_size]

    def tokens_of(self, rows: list[Indices]) -> int:
        """Tokens in some rows."""
        return int(sum(self.seqlens[row].sum(dtype=np.int64) for row in rows))


def pad_to_capacity(layout: Layout) -> list[Step]:
    """One example a row, every row as long as the longest allowed."""
    return [
        Step([batch[i : i + 1] for i in range(len(batch))], layout.capacity,
             layout.tokens_of([batch]))
        for batch in layout.batches()
    ]  # fmt: skip


def pad_to_longest(layout: Layout) -> list[Step]:
    """One example a row, rows as long as the longest of their micro-batch."""
    return [
        step._replace(width=int(max(layout.seqlens[row].max() for row in step.rows)))
        for step in pad_to_capacity(layout)
    ]


def pack_in_batch(layout: Layout) -> list[Step]:
    """CodeACT's own Dynamic Pack (arXiv:2408.02193), as published.

    The examples of a micro-batch in ascending order of length, next fit into rows of at most
    ``capacity`` tokens, rows padded to the longest of them.
    """
    steps = []
    for batch in layout.batches():
        ascending = batch[np.argsort(layout.seqlens[batch], kind="stable")]
        rows: list[Indices] = []
        begin, used = 0, 0
        for position, seqlen in enumerate(layout.seqlens[ascending].tolist()):
            if used + seqlen > layout.capacity:
                rows.append(ascending[begin:position])
                begin, used = position, 0
            used += seqlen
        rows.append(ascending[begin:])
        width = max(layout.tokens_of([row]) for row in rows)
        steps.append(Step(rows, width, layout.tokens_of(rows)))
    return steps


def pack_as_trl(layout: Layout) -> list[Step]:
    """TRL's ``packing=True``: best fit decreasing in windows of 1000 examples, rows shuffled.

    ``max_length`` is the budget, so that one row is a step. Needs trl and datasets.
    """
    offsets = np.concatenate([[0], np.cumsum(layout.seqlens, dtype=np.int64)])
    rows = []
    for positions, seqlens in trl_rows(offsets, layout.budget):
        firsts = np.cumsum(seqlens) - seqlens
        rows.append(np.searchsorted(offsets, positions[firsts], side="right") - 1)
    order = np.random.default_rng(layout.seed).permutation(len(rows))
    return [Step([rows[row]], 0, layout.tokens_of([rows[row]])) for row in order]


def pack_as_planned(layout: Layout) -> list[Step]:
    """Ours: one bin of the plan a step."""
    plan = plan_bins(layout.seqlens, layout.budget, seed=layout.seed)
    return [Step([row], 0, layout.tokens_of([row])) for row in map(np.asarray, plan.epoch(0))]


WAYS: dict[str, Callable[[Layout], list[Step]]] = {
    "pad to max": pad_to_capacity,
    "pad to longest": pad_to_longest,
    "authors' packing": pack_in_batch,
    "TRL packing": pack_as_trl,
    "Dynamic Pack": pack_as_planned,
}


class Totals(NamedTuple):
    """An epoch in numbers.

    Attributes:
        padding: share of the computed slots that hold no token.
        num_steps: forward and backward passes.
        num_slots: of all steps.
        largest: the step with the most slots.
    """

    padding: float
    num_steps: int
    num_slots: int
    largest: Step


def totals(steps: list[Step]) -> Totals:
    """Sums over an epoch."""
    slots = sum(step.num_slots for step in steps)
    tokens = sum(step.num_tokens for step in steps)
    largest = max(steps, key=lambda step: step.num_slots)
    return Totals(1.0 - tokens / slots, len(steps), slots, largest)


def representative(layout: Layout, num_examples: int, candidates: int = 200) -> Indices:
    """A random sample of examples that pads about as the whole set does.

    Of many random samples, the one whose two padded ways waste most nearly what they waste on
    the whole set: a handful of batches drawn blindly may be far off.

    Returns:
        (num_examples,) indices.
    """
    ways = (pad_to_capacity, pad_to_longest, pack_in_batch)
    wanted = [totals(way(layout)).padding for way in ways]
    rng = np.random.default_rng(layout.seed)
    best, smallest = np.arange(min(num_examples, len(layout.seqlens))), np.inf
    for _ in range(candidates if num_examples < len(layout.seqlens) else 0):
        chosen = rng.choice(len(layout.seqlens), num_examples, replace=False)
        got = [totals(way(layout.select(chosen))).padding for way in ways]
        distance = max(abs(a - b) for a, b in zip(got, wanted, strict=True))
        if distance < smallest:
            best, smallest = chosen, distance
    return best
