"""What the page of measured candidates is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from codeact.efficiency.candidates import Candidate
from codeact.efficiency.choose import contestants
from codeact.efficiency.comparison import EfficiencyComparison
from codeact.efficiency.effi_instruct import EffiInstruct
from codeact.efficiency.measurements import REFERENCE, MeasuredCandidate, Measurements
from codeact.efficiency.tasks import Task

Key = tuple[str, str]  # task and language: one race


class Point(NamedTuple):
    """A correct candidate relative to its task's yardstick (the reference, else the fastest)."""

    record: MeasuredCandidate
    time_ratio: float
    memory_ratio: float


@dataclass(frozen=True)
class EfficiencyFacts:
    """Measurements and what was built from them.

    Args:
        measurements: Of one call of ``measure``.
        tasks: What was measured.
        candidates: What was measured.
        built: Instructions and pairs, None if none were asked for.
        comparisons: Pairs of origins that were asked for.
        command: Shown at the end of the page; empty for none.
    """

    measurements: Measurements
    tasks: Sequence[Task]
    candidates: Sequence[Candidate]
    built: EffiInstruct | None = None
    comparisons: tuple[EfficiencyComparison, ...] = ()
    command: str = ""

    @cached_property
    def origins(self) -> list[str]:
        """In the order in which they come up, the references last."""
        names = list(self.measurements.by_origin())
        return sorted(names, key=lambda name: name == REFERENCE)

    @cached_property
    def races(self) -> dict[Key, list[MeasuredCandidate]]:
        """The ranked candidates of each race, best first."""
        groups: dict[Key, list[MeasuredCandidate]] = {}
        for record in self.measurements.records:
            groups.setdefault((record.task_id, record.language), []).append(record)
        ranked = {key: contestants(records) for key, records in groups.items()}
        return {key: records for key, records in ranked.items() if records}

    @cached_property
    def points(self) -> list[Point]:
        """Correct candidates beside the reference of their task; without one, beside the fastest.

        The yardstick itself is left out, and so is a task with nothing else.
        """
        points = []
        for records in self.races.values():
            yardstick = next((one for one in records if one.origin == REFERENCE), records[0])
            points += [_point(one, yardstick) for one in records if one is not yardstick]
        return points

    @cached_property
    def has_references(self) -> bool:
        """Whether any race had the task's own solution in it."""
        return any(one.origin == REFERENCE for records in self.races.values() for one in records)

    @cached_property
    def sources(self) -> Mapping[tuple[str, str], str]:
        """Texts by task and candidate id."""
        texts = {(one.task_id, one.id): one.source for one in self.candidates}
        references = {task.id: task.reference or "" for task in self.tasks}
        for record in self.measurements.records:
            if record.origin == REFERENCE:
                texts[record.task_id, record.candidate_id] = references.get(record.task_id, "")
        return texts


def _point(record: MeasuredCandidate, yardstick: MeasuredCandidate) -> Point:
    return Point(
        record,
        _ratio(record.et_seconds, yardstick.et_seconds),
        _ratio(record.mu_bytes, yardstick.mu_bytes),
    )


def _ratio(value: float | None, of: float | None) -> float:
    """Contestants have both numbers, above 0."""
    assert value is not None
    assert of is not None
    return value / of
