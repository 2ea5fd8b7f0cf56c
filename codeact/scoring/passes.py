"""All passes of many rows through a model in one stream, and their results row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from codeact.data import Example
from codeact.models import ScoredSequence, SequenceLoss, stream_losses
from codeact.progress import OnProgress
from codeact.scoring.spans import IfdSpans

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Rows tokenised and packed together while the device works on those before: about 0.3 s of a
# tokenizer, and some forty packs, of which the last is half full.
_WINDOW = 1024

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Windows = Iterator[Sequence[ScoredSequence]]
Passes = Callable[[Example, IfdSpans], list[ScoredSequence]]
"""Which sequences of an example go through the model."""


@dataclass(frozen=True)
class PassOptions:
    """How rows go through the model; see :func:`codeact.models.stream_losses`."""

    token_budget: int | None = None
    token_nlls: bool = False
    on_progress: OnProgress | None = None


def run_passes(
    model: PreTrainedModel,
    items: Sequence[_Item],
    to_sequences: Callable[[Sequence[_Item]], list[list[ScoredSequence]]],
    options: PassOptions,
) -> list[list[SequenceLoss]]:
    """Results of every sequence of every item, in order; arguments as of :func:`gather`."""

    def stream(windows: Windows) -> Iterator[list[tuple[int, SequenceLoss]]]:
        return stream_losses(
            model, windows, token_budget=options.token_budget, token_nlls=options.token_nlls
        )

    return gather(stream, items, to_sequences, options.on_progress)


def gather(
    stream: Callable[[Windows], Iterator[list[tuple[int, _Result]]]],
    items: Sequence[_Item],
    to_sequences: Callable[[Sequence[_Item]], list[list[ScoredSequence]]],
    on_progress: OnProgress | None = None,
) -> list[list[_Result]]:
    """Results of every sequence of every item, in order.

    Args:
        stream: passes windows of sequences through a model, such as
            :func:`codeact.models.stream_losses`.
        items: what is scored, such as examples.
        to_sequences: the sequences of each of some items, none where there is nothing to pass;
            called for a window of items at a time, in another thread on a GPU.
        on_progress: called with items done and items in all after each pack.
    """
    results: list[list[_Result | None]] = []
    owners: list[tuple[int, int]] = []  # item and place in it, of each sequence of the stream
    waiting: list[int] = []  # sequences of each item that are still to come
    empty: list[int] = []  # items without any

    def windows() -> Iterator[list[ScoredSequence]]:
        for start in range(0, len(items), _WINDOW):
            rows = to_sequences(items[start : start + _WINDOW])
            for row in rows:
                owners.extend((len(results), place) for place in range(len(row)))
                if not row:
                    empty.append(len(results))
                waiting.append(len(row))
                results.append([None] * len(row))
            yield [sequence for row in rows for sequence in row]

    num_done = 0
    for pack in stream(windows()):
        for number, result in pack:
            item, place = owners[number]
            results[item][place] = result
            waiting[item] -= 1
            num_done += waiting[item] == 0
        if on_progress is not None:
            on_progress(num_done + len(empty), len(items))
    return [[result for result in row if result is not None] for row in results]
