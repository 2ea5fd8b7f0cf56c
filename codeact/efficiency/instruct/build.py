"""EffiInstruct: the most efficient correct answer of each task, its twin, and pairs for DPO."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeact.efficiency.instruct.answers import AnswerBook
from codeact.efficiency.instruct.choose import Choice, ChoiceRule, by_race, choose, contestants
from codeact.efficiency.instruct.confirm import confirm_pairs
from codeact.efficiency.instruct.effi_instruct import Dropped, EffiInstruct
from codeact.efficiency.instruct.pairs import NoPair, Pair, find_pair
from codeact.efficiency.instruct.records import pair_row, sft_row
from codeact.efficiency.instruct.summary import summarise
from codeact.efficiency.racing.measurements import (
    REFERENCE,
    MeasuredCandidate,
    Measurements,
    TaskRace,
)
from codeact.efficiency.racing.ranking import TIE
from codeact.errors import InputError

if TYPE_CHECKING:
    from codeact.efficiency.inputs.candidates import Candidate
    from codeact.sandbox.sandbox import Sandbox
    from codeact.tasks.task_file import Task

MIN_GAP = 0.10
MIN_SPREAD = round(TIE - 1, 9)  # answers that the race calls tied are no choice
CONFIRMATION = "confirmation.jsonl"
# A race in which every answer was marked so is named after the mark.
_MARKS = ("unsafe", "not_algorithmic")

Row = dict[str, Any]


def build_effi_instruct(
    measurements: Measurements,
    tasks: Sequence[Task],
    candidates: Sequence[Candidate],
    *,
    output: str | Path | None = None,
    rule: ChoiceRule = "lexicographic",
    include_reference: bool = True,
    min_gap: float = MIN_GAP,
    min_spread: float = MIN_SPREAD,
    confirm: bool = True,
    sandbox: Sandbox | None = None,
    measure_options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> EffiInstruct:
    """Turn measurements into training records.

    A task gives an instruction if some answer is correct and the correct ones differ: the slowest
    needs ``min_spread`` more CPU time, or the largest as much more memory, than the chosen one.
    It gives a pair if the slowest also needs ``min_gap`` more CPU time and every run of the chosen
    one beats every run of the slowest (or their instruction counts agree), both in the race and in
    a fresh measurement of the two alone, whose gap is the one published. A task with answers in
    several languages gives an instruction for each.

    Args:
        measurements: Of one call of ``measure`` on these tasks and candidates.
        tasks: What was measured.
        candidates: What was measured.
        output: A folder for the files of :meth:`EffiInstruct.write`. The fresh measurement is kept
            there too, as ``confirmation.jsonl``, and continued by a later call on the same pairs.
        rule: How to choose among correct answers, see :func:`choose`.
        include_reference: Whether a task's own solution may be chosen, drawn or rejected.
        min_gap: Of a pair, ET of slowest / ET of chosen - 1.
        min_spread: Of a task.
        confirm: Measure pairs afresh. Without it pairs carry the race's gap and say so.
        sandbox: Where to measure afresh; ``measure`` makes its own without one.
        measure_options: Further arguments of that ``measure``, such as ``rounds`` or ``workers``.
        seed: Of the twin's draws, and one more of the fresh measurement.

    Raises:
        InputError: An option is out of range, or a measured candidate is not among
            ``candidates`` with the very source that was measured.
    """
    for name, value in (("min_gap", min_gap), ("min_spread", min_spread)):
        if not 0 <= value < float("inf"):
            raise InputError(f"{name} must be finite and at least 0, got {value}")
    book = AnswerBook(tasks, candidates)
    chosen = choose(measurements, rule=rule, include_reference=include_reference)
    choices, dropped = _worth_keeping(measurements, chosen, min_spread)
    fields = _fields(measurements, choices, include_reference)
    drawn = [(_best(one, field), _draw(field, seed)) for one, field in fields]
    sft = [_row(book, one, best) for one, (best, _) in zip(choices, drawn, strict=True)]
    twin = [_row(book, one, other) for one, (_, other) in zip(choices, drawn, strict=True)]
    found = [find_pair(one, field, min_gap) for one, field in fields]
    settled: list[Pair | NoPair] = found
    if confirm:
        kept = None if output is None else Path(output) / CONFIRMATION
        again = {"output": kept, "sandbox": sandbox, "seed": seed + 1, **(measure_options or {})}
        settled = confirm_pairs(found, book, min_gap=min_gap, measure_options=again)
    pairs = _pair_rows(book, found, settled, confirmed=confirm)
    dropped += [_dropped_pair(one) for one in settled if isinstance(one, NoPair)]
    options = {
        "rule": rule, "include_reference": include_reference, "min_gap": min_gap,
        "min_spread": min_spread, "confirm": confirm, "seed": seed,
    }  # fmt: skip
    summary = summarise(measurements, choices, drawn, pairs, dropped, options)
    built = EffiInstruct(
        tuple(sft), tuple(twin), tuple(pairs), tuple(dropped), tuple(choices), summary
    )
    if output is not None:
        built.write(output)
    return built


def _fields(
    measurements: Measurements, choices: Sequence[Choice], include_reference: bool
) -> list[tuple[Choice, list[MeasuredCandidate]]]:
    """Each choice with the answers that it was made from."""
    groups = by_race(measurements)
    return [
        (one, contestants(groups[one.task_id, one.language], include_reference=include_reference))
        for one in choices
    ]


def _worth_keeping(
    measurements: Measurements, chosen: Sequence[Choice], min_spread: float
) -> tuple[list[Choice], list[Dropped]]:
    """Choices that chose something, and every other race with its reason, in order of races."""
    by_key = {(choice.task_id, choice.language): choice for choice in chosen}
    groups = by_race(measurements)
    choices, dropped = [], []
    for race in measurements.tasks:
        key = (race.task_id, race.language)
        choice = by_key.get(key)
        if choice is None:
            reason, detail = _why_unranked(race, groups.get(key, []))
        elif not choice.beaten:
            reason, detail = "no_spread", "only one correct answer"
        elif choice.spread < 1 + min_spread:
            reason = "no_spread"
            detail = f"{1 + len(choice.beaten)} correct answers within {choice.spread - 1:.1%}"
        else:
            choices.append(choice)
            continue
        dropped.append(Dropped(*key, "task", reason, detail))
    return choices, dropped


def _why_unranked(race: TaskRace, records: Sequence[MeasuredCandidate]) -> tuple[str, str]:
    """(reason, detail) of a race without a choice."""
    statuses = [record.status for record in records if record.origin != REFERENCE]
    counts = Counter(statuses)
    words = ", ".join(f"{status} {count}" for status, count in sorted(counts.items()))
    for mark in _MARKS:
        if statuses and set(statuses) == {mark}:
            return mark, next(record.reason for record in records if record.status == mark)
    if "passed" not in counts:
        return "all_fail", f"none of {len(statuses)} candidates passed: {words or 'there are none'}"
    if race.too_short:
        return "too_short", race.reason
    return "not_measured", race.reason or "no correct answer has ET, MU and TMU"


def _best(choice: Choice, field: Sequence[MeasuredCandidate]) -> MeasuredCandidate:
    return next(record for record in field if record.candidate_id == choice.candidate_id)


def _draw(field: Sequence[MeasuredCandidate], seed: int) -> MeasuredCandidate:
    """One of a task's correct answers, each as likely; tasks do not depend on each other."""
    # Sorted by id: neither ranks nor a task added elsewhere change what is drawn.
    ordered = sorted(field, key=lambda record: record.candidate_id)
    task = ordered[0]
    return random.Random(f"{seed}:{task.task_id}:{task.language}").choice(ordered)


def _row(book: AnswerBook, choice: Choice, record: MeasuredCandidate) -> Row:
    return sft_row(book.task(record.task_id), book.answer(record), record, choice)


def _pair_rows(
    book: AnswerBook,
    found: Sequence[Pair | NoPair],
    settled: Sequence[Pair | NoPair],
    *,
    confirmed: bool,
) -> list[Row]:
    """Rows of the pairs that hold; ``settled`` is ``found`` itself without a fresh measurement."""
    return [
        pair_row(
            book.task(pair.best.task_id),
            book.answer(pair.best),
            book.answer(pair.worst),
            pair,
            again if confirmed else None,
        )
        for pair, again in zip(found, settled, strict=True)
        if isinstance(pair, Pair) and isinstance(again, Pair)
    ]


def _dropped_pair(pair: NoPair) -> Dropped:
    return Dropped(pair.task_id, pair.language, "pair", pair.reason, pair.detail)
