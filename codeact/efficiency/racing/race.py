"""One task's race: its runners sent round, its records completed, its places given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from codeact.efficiency.racing.baselines import Net
from codeact.efficiency.racing.field import Field, RaceOptions
from codeact.efficiency.racing.measurements import REFERENCE, MeasuredCandidate, TaskRace
from codeact.efficiency.racing.ranking import Standing, in_doubt, rank
from codeact.efficiency.racing.rounds import BaselineFailedError, Runner, Track
from codeact.sandbox.verdict import one_line

if TYPE_CHECKING:
    from codeact.sandbox.programs.program import Program

MAX_COUNTED_SECONDS = 0.5  # net CPU time of all tests once; counting takes 60 times as long

Raced = tuple[TaskRace, list[MeasuredCandidate]]


def race(
    track: Track,
    records: Sequence[MeasuredCandidate],
    programs: Mapping[str, Program],
    options: RaceOptions,
) -> Raced:
    """Races those candidates of one task and language that passed.

    Three rounds; who needs more than 1.5 times the best net CPU time, and more than noise may add
    to that, drops out (the reference never does, others are set against it); the rest runs up to
    ``options.rounds``; those that the best does not beat by three pooled spreads, up to
    ``options.max_rounds``. All on one CPU, one after the other, the empty program among them. Who
    is first must not keep anything between repetitions (`kept_state.py`): it leaves the race,
    which begins anew without it.

    Args:
        track: Meter, task, language and CPU.
        records: All candidates of that task and language, after the correctness run.
        programs: Their sources, by candidate id.
        options: Rounds, target, tie rule, seed.

    Returns:
        The summary, and a record for each of ``records`` in their order. A candidate that fails a
        measured run leaves the race with that verdict.
    """
    entered = [record for record in records if record.passed]
    summary = TaskRace(track.task.id, track.language, len(records), len(entered), core=track.core)
    others = [record for record in records if record.origin != REFERENCE]
    if not entered or (others and not any(record.passed for record in others)):
        reason = f"none of {len(others)} candidates passed"
        return replace(summary, status="none_passed", reason=reason), list(records)
    field = Field(track, entered, programs, options)
    try:
        field.run()
    except BaselineFailedError as error:
        reason = one_line(f"the empty program did not run: {error}")
        return replace(summary, status="failed", reason=reason), list(records)
    return _result(field, summary, records)


def _result(field: Field, summary: TaskRace, records: Sequence[MeasuredCandidate]) -> Raced:
    """The summary and the records, ranked unless the race was too short."""
    summary = replace(
        summary,
        repeats=field.repeats,
        rounds=field.num_rounds,
        spread_seconds=field.spread_seconds(),
        baselines={key: tuple(one.samples) for key, one in field.baselines.items()},
    )
    found = field.nets()
    runners = {runner.name: runner for runner in field.runners}
    measured = [
        _record(record, runners[record.candidate_id], field.baselines, found)
        if record.candidate_id in runners
        else record
        for record in records
    ]
    if not found:
        reason = "no candidate passed every measured run"
        return replace(summary, status="none_passed", reason=reason), measured
    if field.short:
        return replace(summary, status="too_short", reason=field.short), measured
    return summary, _ranked(field, measured)


def _record(
    record: MeasuredCandidate,
    runner: Runner,
    baselines: Mapping[int, Runner],
    found: Mapping[str, Net],
) -> MeasuredCandidate:
    """A record with the samples and metrics, or the failure, of its runner."""
    if runner.failure is not None:
        record = replace(
            record,
            status=runner.failure.status,
            reason=one_line(f"passed once, but not when measured: {runner.failure.reason}"),
            num_passed=runner.failure.num_passed,
        )
    if not runner.samples:
        return record
    record = replace(
        record,
        repeats=runner.repeats,
        samples=tuple(runner.samples),
        baseline=tuple(baselines[runner.repeats].samples),
    )
    metrics = found.get(record.candidate_id)
    return record if metrics is None else replace(record, **metrics._asdict())


def _ranked(field: Field, records: list[MeasuredCandidate]) -> list[MeasuredCandidate]:
    """Ranks those with metrics; instructions are counted where the first place is in doubt."""
    standings = [_standing(record) for record in records if record.et_seconds is not None]
    doubt = field.doubt_seconds()
    counts = _counts(field, in_doubt(standings, doubt))
    places = rank((one._replace(instructions=counts.get(one.name)) for one in standings), doubt)
    by_name = {place.name: (number, place.rule) for number, place in enumerate(places, start=1)}
    ranked = []
    for record in records:
        number, rule = by_name.get(record.candidate_id, (None, None))
        count = counts.get(record.candidate_id)
        ranked.append(replace(record, instructions=count, rank=number, tie_rule=rule))
    return ranked


def _counts(field: Field, group: Sequence[Standing]) -> dict[str, int]:
    """Instructions of each of a group in doubt, empty unless all of them can be counted."""
    wanted = field.options.instructions == "ties" and len(group) > 1
    if not wanted or max(one.et_seconds for one in group) > MAX_COUNTED_SECONDS:
        return {}
    programs = {runner.name: runner.program for runner in field.runners}
    counts: dict[str, int] = {}
    for one in group:
        program = programs[one.name]
        if program is None:
            return {}
        count = field.track.meter.instructions(field.track.task, program)
        if count is None:
            return {}
        counts[one.name] = count
    return counts


def _standing(record: MeasuredCandidate) -> Standing:
    return Standing(
        name=record.candidate_id,
        et_seconds=record.et_seconds or 0.0,
        tmu_byte_seconds=record.tmu_byte_seconds or 0.0,
        instructions=None,
        source_chars=record.source_chars,
        source_sha256=record.source_sha256,
    )
