"""Verdicts of an evaluation: one line a generated answer in ``results.jsonl``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from codeact.errors import InputError
from codeact.files import read_jsonl, write_jsonl

Metric = Literal["base", "plus"]
METRICS: tuple[Metric, ...] = ("base", "plus")
BENCHMARKS = {"humaneval": "HumanEval/", "mbpp": "Mbpp/"}  # name -> start of its task ids
TITLES = {"humaneval": "HumanEval", "mbpp": "MBPP"}
# Status of answers that no test ever saw, each counted as failed.
FAULTS = {
    "missing": "no answer",
    "duplicated": "an answer given twice",
    "empty": "an answer without code",
}


@dataclass(frozen=True)
class ResultRow:
    """What the tests said of one answer.

    Attributes:
        benchmark: ``"humaneval"`` or ``"mbpp"``.
        task_id: As EvalPlus names it: ``"HumanEval/0"``, ``"Mbpp/2"``.
        sample: Number of the answer to this task, from 0.
        base: Whether it passes the benchmark's own tests.
        plus: Whether it passes EvalPlus's further tests.
        base_status: ``"pass"`` or how it failed, e.g. ``"fail"``, ``"timeout"``.
        plus_status: The same for the further tests.
        reason: One line on the first failure; empty for a pass.
        evalplus_base: What EvalPlus itself said, None where it was not run.
        evalplus_plus: The same for the further tests.
    """

    benchmark: str
    task_id: str
    sample: int
    base: bool
    plus: bool
    base_status: str
    plus_status: str
    reason: str = ""
    evalplus_base: str | None = None
    evalplus_plus: str | None = None

    def passed(self, metric: Metric) -> bool:
        """The verdict that counts: ``"plus"`` is a pass of both test sets, as in EvalPlus."""
        return self.base and (metric == "base" or self.plus)


@dataclass(frozen=True)
class Results:
    """The verdicts of one run, each task and sample once.

    Attributes:
        rows: In the order of the file. An answer given twice is there once, as failed.
        versions: Benchmark -> hash of its data, as far as the file says.
    """

    rows: tuple[ResultRow, ...]
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Those with at least one row, in a fixed order."""
        present = {row.benchmark for row in self.rows}
        return tuple(name for name in BENCHMARKS if name in present)

    def tasks_with(self, benchmark: str, status: str) -> list[str]:
        """Ids of tasks with an answer of this ``base_status``, e.g. one of :data:`FAULTS`."""
        return list(
            dict.fromkeys(
                row.task_id
                for row in self.rows
                if row.benchmark == benchmark and row.base_status == status
            )
        )

    def verdicts(self, benchmark: str, metric: Metric) -> dict[str, tuple[bool, ...]]:
        """Task id -> passed or not, one a sample in the order of their numbers.

        Args:
            benchmark: Which rows.
            metric: ``"base"``, or ``"plus"`` for a pass of both test sets.
        """
        passed: dict[str, dict[int, bool]] = {}
        for row in self.rows:
            if row.benchmark == benchmark:
                passed.setdefault(row.task_id, {})[row.sample] = row.passed(metric)
        return {
            task_id: tuple(by_sample[sample] for sample in sorted(by_sample))
            for task_id, by_sample in passed.items()
        }


def benchmark_of(task_id: str) -> str:
    """Benchmark that a task id belongs to.

    Raises:
        InputError: None of those we know.
    """
    for benchmark, start in BENCHMARKS.items():
        if task_id.startswith(start):
            return benchmark
    raise InputError(f"task_id must start with HumanEval/ or Mbpp/, got {task_id[:60]!r}")


def unique_rows(rows: Iterable[ResultRow]) -> tuple[ResultRow, ...]:
    """Each (task, sample) once; one that came twice has failed, with status ``"duplicated"``.

    Nobody can say which of two verdicts is the answer's, so that the answer counts as failed.
    """
    kept: dict[tuple[str, int], ResultRow] = {}
    for row in rows:
        key = (row.task_id, row.sample)
        if key in kept:
            row = failed_row(row.task_id, row.sample, "duplicated", "answer given twice")
        kept[key] = row
    return tuple(kept.values())


def failed_row(task_id: str, sample: int, status: str, reason: str) -> ResultRow:
    """An answer that counts as failed without having been run."""
    benchmark = benchmark_of(task_id)
    return ResultRow(benchmark, task_id, sample, False, False, status, status, reason)


def write_results(path: str | Path, rows: Iterable[ResultRow]) -> None:
    """Write one JSON object a row, atomically; the keys are the fields of ResultRow."""
    write_jsonl(path, (asdict(row) for row in rows))


def read_results(path: str | Path) -> Results:
    """Read what :func:`write_results` wrote.

    Raises:
        InputError: Not such a file: the line names a field that is missing or of another type.
    """
    return parse_results(
        (f"{path} row {number}", raw) for number, raw in enumerate(read_jsonl(path), start=1)
    )


def parse_results(raw_rows: Iterable[tuple[str, Any]]) -> Results:
    """Verdicts from rows that were read already, each with its place for an error message.

    Raises:
        InputError: A row is not what :func:`write_results` writes.
    """
    return Results(unique_rows(_row(raw, place) for place, raw in raw_rows))


_TYPES: dict[str, tuple[type, ...]] = {
    "sample": (int,),
    "base": (bool,),
    "plus": (bool,),
    "evalplus_base": (str, type(None)),
    "evalplus_plus": (str, type(None)),
}
_REQUIRED = frozenset(
    ("benchmark", "task_id", "sample", "base", "plus", "base_status", "plus_status")
)


def _row(raw: Any, place: str) -> ResultRow:
    if not isinstance(raw, Mapping):
        raise InputError(f"{place} must be a JSON object, got {raw!r:.60}")
    values: dict[str, Any] = {}
    for name in (each.name for each in fields(ResultRow)):
        if name not in raw:
            if name in _REQUIRED:
                raise InputError(f"{place} lacks the field {name}")
            continue
        types = _TYPES.get(name, (str,))
        if type(raw[name]) not in types:  # True is an int to isinstance
            wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types)
            raise InputError(f"{place}: {name} must be {wanted}, got {raw[name]!r}")
        values[name] = raw[name]
    row = ResultRow(**values)
    if row.sample < 0:
        raise InputError(f"{place}: sample must be at least 0, got {row.sample}")
    if row.benchmark != benchmark_of(row.task_id):
        raise InputError(f"{place}: {row.task_id} is no task of {row.benchmark!r}")
    return row
