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
    """Results of every sequence of every item, in order.

    Args:
        model: the scoring model.
        items: what is scored, such as examples.
        to_sequences: the sequences of each of some items, none where there is nothing to pass;
            called for a window of items at a time, in another thread on a GPU.
        options: ``on_progress`` is called with items done and items in all after each pack.
    """
    losses: list[list[SequenceLoss | None]] = []
    owners: list[tuple[int, int]] = []  # item and place in it, of each sequence of the stream
    waiting: list[int] = []  # sequences of each item that are still to come
    empty: list[int] = []  # items without any

    def windows() -> Iterator[list[ScoredSequence]]:
        for start in range(0, len(items), _WINDOW):
            rows = to_sequences(items[start : start + _WINDOW])
            for row in rows:
                owners.extend((len(losses), place) for place in range(len(row)))
                if not row:
                    empty.append(len(losses))
                waiting.append(len(row))
                losses.append([None] * len(row))
            yield [sequence for row in rows for sequence in row]

    num_done = 0
    for pack in stream_losses(
        model, windows(), token_budget=options.token_budget, token_nlls=options.token_nlls
    ):
        for number, loss in pack:
            item, place = owners[number]
            losses[item][place] = loss
            waiting[item] -= 1
            num_done += waiting[item] == 0
        if options.on_progress is not None:
            options.on_progress(num_done + len(empty), len(items))
    return [[loss for loss in row if loss is not None] for row in losses]
