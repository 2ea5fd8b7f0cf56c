"""What goes into bins: whole examples, or what the overflow policy makes of long ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from codeact.errors import InputError

Overflow = Literal["error", "drop", "truncate_prompt_left", "truncate", "split"]
OVERFLOWS: tuple[str, ...] = get_args(Overflow)

Int32Array = NDArray[np.int32]
IndexArray = NDArray[np.integer[Any]]


class Spans:
    """Contiguous parts of examples: span k is tokens ``[start[k], stop[k])`` of ``example[k]``.

    Normally span k is all of example k. Examples that no bin holds have a span too, so that span
    numbers stay example numbers unless examples are split.

    A plan for several ranks has one span more, the last: the *filler*, the first token of an
    example. A rank for which no sequence is left gets it as its bin. The first token of a sequence
    has no loss, so neither has a filler.

    Attributes:
        stop: (num_spans,) int32.
        filler: the number of the filler, or None without one.
    """

    def __init__(
        self, example: Int32Array | None, start: Int32Array | None, stop: Int32Array
    ) -> None:
        """None stands for span k being of example k, and for all spans starting at 0."""
        self.stop = stop
        self.filler: int | None = None
        self._example, self._start = example, start
        self._filler_example = 0

    @cached_property
    def example(self) -> Int32Array:
        """(num_spans,) int32; made on first use where it only counts up."""
        return self.locate(np.arange(len(self)))[0].astype(np.int32)

    @cached_property
    def start(self) -> Int32Array:
        """(num_spans,) int32; read-only zeros that take no memory where nothing is cut."""
        return np.broadcast_to(np.int32(0), len(self)) if self._start is None else self._start

    @property
    def seqlens(self) -> Int32Array:
        """(num_spans,) int32 numbers of tokens."""
        return self.stop if self._start is None else self.stop - self._start

    def __len__(self) -> int:
        return len(self.stop)

    def locate(self, indices: IndexArray) -> tuple[IndexArray, Int32Array, Int32Array]:
        """``(example, start, stop)`` of some spans, each of the shape of ``indices``."""
        if self._example is not None:
            examples: IndexArray = self._example[indices]
        elif self.filler is not None:
            examples = np.where(indices == self.filler, self._filler_example, indices)
        else:
            examples = indices
        return examples, self.start[indices], self.stop[indices]

    def with_filler(self, example: int) -> Spans:
        """These spans and a filler from ``example``, which must have a token."""
        spans = Spans(
            None if self._example is None else np.append(self._example, np.int32(example)),
            None if self._start is None else np.append(self._start, np.int32(0)),
            np.append(self.stop, np.int32(1)),
        )
        spans.filler, spans._filler_example = len(self), example
        return spans

    def without_filler(self) -> Spans:
        """These spans alone."""
        if self.filler is None:
            return self
        example = None if self._example is None else self._example[:-1]
        start = None if self._start is None else self._start[:-1]
        return Spans(example, start, self.stop[:-1])


@dataclass(frozen=True, eq=False)
class CutSpans:
    """Spans under an overflow policy.

    Attributes:
        spans: of all examples.
        packed: (num_packed,) int32, the spans that go into bins, ascending; None where all do.
        num_dropped: examples above the capacity that no bin holds.
        num_empty: examples of no token, which no bin holds either.
        num_cut: examples that lost tokens or were split.
        num_lost_tokens: tokens that no bin holds, of dropped and of cut examples.
    """

    spans: Spans
    packed: Int32Array | None
    num_dropped: int
    num_empty: int
    num_cut: int
    num_lost_tokens: int


def cut_spans(
    seqlens: Int32Array, capacity: int, overflow: Overflow, prompt_seqlens: Int32Array | None
) -> CutSpans:
    """Apply the overflow policy; see :func:`codeact.packing.plan_bins`.

    Raises:
        InputError: an example is above the capacity under ``"error"``.
    """
    too_long = np.flatnonzero(seqlens > capacity)
    if len(too_long) and overflow == "error":
        first = int(too_long[0])
        raise InputError(
            f"seqlens[{first}] = {seqlens[first]} does not fit a bin of {capacity} tokens "
            f"({len(too_long)} of {len(seqlens)} do not; overflow='drop' leaves them out, "
            "'truncate_prompt_left', 'truncate' and 'split' cut them)"
        )
    dropped = _dropped(seqlens, capacity, overflow, prompt_seqlens, too_long)
    spans = _spans(seqlens, capacity, overflow, too_long)
    inside = spans.seqlens > 0
    inside[dropped] = False
    packed = None if inside.all() else np.flatnonzero(inside).astype(np.int32)
    num_tokens = int(spans.seqlens.sum(dtype=np.int64, where=inside))
    return CutSpans(
        spans=spans,
        packed=packed,
        num_dropped=len(dropped),
        num_empty=int((seqlens == 0).sum()),
        num_cut=len(too_long) - len(dropped),
        num_lost_tokens=int(seqlens.sum(dtype=np.int64)) - num_tokens,
    )


def _dropped(
    seqlens: Int32Array,
    capacity: int,
    overflow: Overflow,
    prompt_seqlens: Int32Array | None,
    too_long: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Examples that the policy leaves out."""
    if overflow == "drop":
        return too_long
    if overflow == "truncate_prompt_left" and prompt_seqlens is not None:
        # The response must be whole, behind at least one token that it is predicted from.
        num_cut = seqlens[too_long] - capacity
        return too_long[num_cut >= prompt_seqlens[too_long]]
    return too_long[:0]


def _spans(
    seqlens: Int32Array, capacity: int, overflow: Overflow, too_long: NDArray[np.int64]
) -> Spans:
    if not len(too_long) or overflow == "drop":
        return Spans(None, None, seqlens)
    if overflow == "truncate":
        return Spans(None, None, np.minimum(seqlens, np.int32(capacity)))
    if overflow == "truncate_prompt_left":
        return Spans(None, np.maximum(seqlens - np.int32(capacity), 0), seqlens)
    pieces = np.maximum(1, -(-seqlens.astype(np.int64) // capacity))
    first = np.cumsum(pieces) - pieces
    start = (np.arange(pieces.sum()) - np.repeat(first, pieces)) * capacity
    stop = np.minimum(start + capacity, np.repeat(seqlens, pieces))
    example = np.repeat(np.arange(len(seqlens), dtype=np.int32), pieces)
    return Spans(example, start.astype(np.int32), stop.astype(np.int32))
