"""Tasks and candidates as units of work: who is checked together, who races whom."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codeact.efficiency.racing.measurements import REFERENCE
from codeact.errors import InputError
from codeact.sandbox.programs.program import Program, canonical_language
from codeact.sandbox.tests import num_tests

if TYPE_CHECKING:
    from codeact.efficiency.inputs.candidates import Candidate
    from codeact.tasks.task_file import Task

_BATCH_SIZE = 16  # candidates checked between two lines of the journal


@dataclass(frozen=True)
class Contestant:
    """A candidate or a reference, as it is run."""

    candidate_id: str
    origin: str
    program: Program

    @property
    def source_sha256(self) -> str:
        """Hash of the source, in hexadecimal."""
        return hashlib.sha256(self.program.source.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Unit:
    """The contestants of one task and language, the reference first."""

    task: Task
    language: str
    contestants: tuple[Contestant, ...]

    @property
    def name(self) -> tuple[str, str]:
        """Task id and language: unique."""
        return self.task.id, self.language

    @property
    def num_tests(self) -> int:
        """Tests of the task."""
        return num_tests(self.task.tests)

    def batches(self) -> Iterator[tuple[int, tuple[Contestant, ...]]]:
        """Contestants to check between two lines of the journal, with their number."""
        for start in range(0, len(self.contestants), _BATCH_SIZE):
            yield start // _BATCH_SIZE, self.contestants[start : start + _BATCH_SIZE]


@dataclass(frozen=True)
class Worklist:
    """Everything to do, in the order of tasks, then of languages as they come up."""

    units: tuple[Unit, ...]

    @classmethod
    def of(cls, tasks: Sequence[Task], candidates: Sequence[Candidate]) -> Worklist:
        """Sorts candidates to their tasks.

        Raises:
            InputError: No task, a task id twice, a candidate id twice in a task, an id or origin
                that no file can hold, a candidate of an unknown task or language, or neither
                candidates nor references.
        """
        _check_names(tasks, candidates)
        by_task = _by_task(tasks, candidates)
        units: list[Unit] = []
        for task in tasks:
            own = by_task[task.id]
            if own or not candidates:
                units.extend(_units(task, own))
        if not units:
            raise InputError("tasks and candidates must hold a program to run, got none")
        return cls(tuple(units))

    @property
    def languages(self) -> list[str]:
        """Those that programs are in, sorted."""
        return sorted({unit.language for unit in self.units})

    @property
    def num_contestants(self) -> int:
        """Programs to check."""
        return sum(len(unit.contestants) for unit in self.units)


def _check_names(tasks: Sequence[Task], candidates: Sequence[Candidate]) -> None:
    """Said now, not by a crash when the first line of the journal is written."""
    names = {"id": [task.id for task in tasks] + [one.id for one in candidates]}
    names["origin"] = [one.origin for one in candidates]
    for what, values in names.items():
        for value in values:
            try:
                value.encode()
            except UnicodeEncodeError:
                raise InputError(f"{what} must be text without surrogates, got {value!a}") from None


def _by_task(tasks: Sequence[Task], candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    twice = [name for name, count in Counter(task.id for task in tasks).items() if count > 1]
    if twice:
        raise InputError(f"tasks must have unique ids, got {twice[0]!r} twice")
    by_task: dict[str, list[Candidate]] = {task.id: [] for task in tasks}
    seen = set()
    for one in candidates:
        if one.task_id not in by_task:
            raise InputError(f"candidate {one.id!r} is of an unknown task, {one.task_id!r}")
        if REFERENCE in (one.id, one.origin):
            raise InputError(
                f"candidates must not have the id or origin {REFERENCE!r}, which is that of a "
                f"task's own solution, got one of task {one.task_id!r}"
            )
        if (one.task_id, one.id) in seen:
            raise InputError(
                f"candidates must have unique ids, got {one.id!r} of task {one.task_id!r} twice"
            )
        seen.add((one.task_id, one.id))
        by_task[one.task_id].append(one)
    return by_task


def _units(task: Task, candidates: Sequence[Candidate]) -> Iterator[Unit]:
    groups: dict[str, list[Contestant]] = {}
    if task.reference is not None:
        language = canonical_language(task.language)
        program = Program(language, task.reference)
        groups[language] = [Contestant(REFERENCE, REFERENCE, program)]
    for one in candidates:
        program = Program(one.language, one.source)
        language = program.language
        groups.setdefault(language, []).append(Contestant(one.id, one.origin, program))
    for language, contestants in groups.items():
        yield Unit(task, language, tuple(contestants))
