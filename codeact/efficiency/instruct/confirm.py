"""Measuring pairs afresh, two answers at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from codeact.efficiency.instruct.answers import AnswerBook
from codeact.efficiency.instruct.pairs import NoPair, Pair, judge_again
from codeact.efficiency.racing.measurements import REFERENCE

if TYPE_CHECKING:
    from codeact.efficiency.racing.measurements import Measurements


def confirm_pairs(
    found: Sequence[Pair | NoPair],
    book: AnswerBook,
    *,
    min_gap: float,
    measure_options: Mapping[str, Any],
) -> list[Pair | NoPair]:
    """Each pair as a race of its own finds it, or why there is none; in the order given.

    The two answers run in turn on one core, so that a slow minute of the machine slows both.
    Instructions are not counted again: they would come out the same.

    Args:
        found: Pairs of races, and races without one.
        book: Their programs.
        min_gap: Smallest fresh gap.
        measure_options: Arguments of ``measure``.
    """
    pairs = [pair for pair in found if isinstance(pair, Pair)]
    if not pairs:
        return list(found)
    fresh = _measure(pairs, book, measure_options)
    return [judge_again(pair, fresh, min_gap) if isinstance(pair, Pair) else pair for pair in found]


def _measure(
    pairs: Sequence[Pair], book: AnswerBook, measure_options: Mapping[str, Any]
) -> Measurements:
    """One call of ``measure`` on the pairs' tasks with the pairs' answers alone."""
    from codeact.efficiency.racing.measure import measure

    records = [record for pair in pairs for record in (pair.best, pair.worst)]
    with_reference = {one.task_id for one in records if one.origin == REFERENCE}
    # A reference that is not one of the two would be one more contestant in every round.
    tasks = [
        task if task.id in with_reference else replace(task, reference=None)
        for task in map(book.task, dict.fromkeys(one.task_id for one in records))
    ]
    answers = [book.answer(one) for one in records if one.origin != REFERENCE]
    return measure(tasks, answers, **{"instructions": "never", **measure_options})
