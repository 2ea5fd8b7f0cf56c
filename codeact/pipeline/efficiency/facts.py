"""What the page of measured candidates is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from codeact.efficiency.comparing.efficiency_comparison import EfficiencyComparison
from codeact.efficiency.comparing.net_samples import relative_metrics
from codeact.efficiency.inputs.candidates import Candidate
from codeact.efficiency.instruct.choose import by_race, contestants
from codeact.efficiency.instruct.effi_instruct import EffiInstruct
from codeact.efficiency.racing.measurements import REFERENCE, MeasuredCandidate, Measurements
from codeact.tasks.task_file import Task

Key = tuple[str, str]  # task and language: one race


class Point(NamedTuple):
    """A right answer relative to its task's yardstick (the reference, else the fastest)."""

    record: MeasuredCandidate
    time_ratio: float
    memory_ratio: float


class Span(NamedTuple):
    """CPU time of two answers to a task / that of the fastest right one; both at least about 1.

    The reference's is None where the race has none.
    """

    slowest: float
    reference: float | None


@dataclass(frozen=True)
class EfficiencyFacts:
    """Measurements and what was built from them.

    Args:
        measurements: Of one call of ``measure``.
        tasks: What was measured.
        candidates: What was measured.
        built: Instructions and pairs, None if none were asked for.
        comparisons: Pairs of origins that were asked for.
        not_compared: Why a comparison that was asked for could not be made.
        command: Shown at the end of the page; empty for none.
    """

    measurements: Measurements
    tasks: Sequence[Task]
    candidates: Sequence[Candidate]
    built: EffiInstruct | None = None
    comparisons: tuple[EfficiencyComparison, ...] = ()
    not_compared: str = ""
    command: str = ""

    @cached_property
    def origins(self) -> list[str]:
        """In the order in which they come up, the references last."""
        return sorted(self.measurements.by_origin(), key=lambda name: name == REFERENCE)

    @cached_property
    def answers(self) -> list[MeasuredCandidate]:
        """Every candidate that is no reference, right or wrong."""
        return [one for one in self.measurements.records if one.origin != REFERENCE]

    @cached_property
    def references(self) -> list[MeasuredCandidate]:
        """The tasks' own solutions, right or wrong; one a language of a task."""
        return [one for one in self.measurements.records if one.origin == REFERENCE]

    @cached_property
    def unit(self) -> str:
        """``"task"``, or ``"race"`` where a task has answers in several languages."""
        races = self.measurements.tasks
        return "task" if len({race.task_id for race in races}) == len(races) else "race"

    @cached_property
    def races(self) -> dict[Key, list[MeasuredCandidate]]:
        """The ranked candidates of each race, best first."""
        ranked = {key: contestants(records) for key, records in by_race(self.measurements).items()}
        return {key: records for key, records in ranked.items() if records}

    @cached_property
    def ranked_references(self) -> dict[Key, MeasuredCandidate]:
        """The reference of each race that has a ranked one."""
        return {
            key: one
            for key, records in self.races.items()
            for one in records
            if one.origin == REFERENCE
        }

    @cached_property
    def points(self) -> list[Point]:
        """Right answers beside the reference of their task; without one, beside the fastest.

        The yardstick itself is left out, and so is a task with nothing else. Ratios are over the
        rounds that both ran.
        """
        points = []
        for key, records in self.races.items():
            yardstick = self.ranked_references.get(key) or _fastest(records)
            for one in records:
                if one is not yardstick:
                    ratios = relative_metrics(one, yardstick)
                    points.append(Point(one, ratios.et_seconds, ratios.mu_bytes))
        return points

    @cached_property
    def spans(self) -> list[Span]:
        """Of the races with two right answers or more, over the rounds that both ran."""
        found = []
        for key, records in self.races.items():
            if len(records) < 2:
                continue
            best, reference = _fastest(records), self.ranked_references.get(key)
            found.append(
                Span(
                    max(relative_metrics(one, best).et_seconds for one in records),
                    None if reference is None else relative_metrics(reference, best).et_seconds,
                )
            )
        return found

    @cached_property
    def sources(self) -> Mapping[tuple[str, str], str]:
        """Texts by task and candidate id."""
        texts = {(one.task_id, one.id): one.source for one in self.candidates}
        references = {task.id: task.reference or "" for task in self.tasks}
        for record in self.references:
            texts[record.task_id, record.candidate_id] = references.get(record.task_id, "")
        return texts


def _fastest(records: Sequence[MeasuredCandidate]) -> MeasuredCandidate:
    """Least ET; the first in rank may need up to 3 % more, where memory decided."""
    return min(records, key=lambda one: one.et_seconds or 0.0)
