"""A run's verdicts from whatever holds them: our folders and files, those of EvalPlus."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codeact.data.rows import read_rows
from codeact.errors import InputError
from codeact.evaluation.results import (
    ResultRow,
    Results,
    benchmark_of,
    failed_row,
    parse_results,
    unique_rows,
)

RESULTS = "results.jsonl"  # in an evaluation folder
SETTINGS = "evaluation.json"  # beside it
_EVALPLUS_WORDS = ("pass", "fail", "timeout")
NOT_RUN = "not run"  # status of a test set that was left out, as with EvalPlus's --base-only


@dataclass(frozen=True)
class Run:
    """What one side of a comparison was given as.

    Attributes:
        path: As given.
        seeds: Verdicts of each training, one where there is only one.
        files: Where each of them was read.
    """

    path: Path
    seeds: tuple[Results, ...]
    files: tuple[Path, ...]


def read_run(path: str | Path) -> Run:
    """Read the verdicts of a run.

    Args:
        path: An evaluation folder (with ``results.jsonl``), a folder of such folders (one a
            seed), a results file, an ``*_eval_results.json`` of EvalPlus, or JSON lines with
            ``task_id``, ``base_status`` and, unless only the base tests ran, ``plus_status``;
            ``sample`` numbers several answers to a task, without it their order does.

    Raises:
        InputError: None of these, or broken.
    """
    path = Path(path)
    files = _files(path)
    seeds = tuple(_read(file) for file in files)
    for file, results in zip(files, seeds, strict=True):
        if not results.rows:
            raise InputError(f"{file} must hold at least 1 verdict, got 0")
    return Run(path, seeds, files)


def _files(path: Path) -> tuple[Path, ...]:
    if not path.is_dir():
        return (path,)
    if (path / RESULTS).is_file():
        return (path / RESULTS,)
    seeds = sorted(path.glob(f"*/{RESULTS}"))
    if not seeds:
        raise InputError(
            f"{path} must be an evaluation folder with {RESULTS} or a folder of these, one a seed"
        )
    for folder in (file.parent for file in sorted(path.glob(f"*/{SETTINGS}"))):
        if not (folder / RESULTS).is_file():
            raise InputError(f"{folder} must be judged to the end, it has no {RESULTS} yet")
    return tuple(seeds)


def _read(file: Path) -> Results:
    if file.suffix == ".json":
        return _read_evalplus(file)
    if not file.name.endswith((".jsonl", ".jsonl.gz")):
        raise InputError(f"{file}: a run must be a folder or end in .json, .jsonl or .jsonl.gz")
    rows = read_rows(file, "")
    placed = [(rows.place(i), row) for i, row in enumerate(rows.rows)]
    first = rows.rows[0]  # there is one, or read_rows refuses
    if isinstance(first, Mapping) and "base" in first:
        return replace(parse_results(placed), versions=_versions(file.parent / SETTINGS))
    return Results(unique_rows(_numbered([_Status.of(row, place) for place, row in placed])))


def _versions(file: Path) -> dict[str, str]:
    """Hashes of the data, as an evaluation folder notes them."""
    if not file.is_file():
        return {}
    content = _load(file)
    hashes = content.get("data_hashes") if isinstance(content, dict) else None
    if not isinstance(hashes, dict):
        return {}
    return {name: value for name, value in hashes.items() if isinstance(value, str)}


def _read_evalplus(file: Path) -> Results:
    """``{"hash": ..., "eval": {task_id: [{"base_status": ..., ...}, ...]}}`` of EvalPlus 0.2+."""
    content = _load(file)
    tasks = content.get("eval") if isinstance(content, dict) else None
    if not isinstance(tasks, dict):
        raise InputError(f"{file} must be an eval_results.json of EvalPlus, with the key eval")
    rows = []
    for task_id, answers in tasks.items():
        if not isinstance(answers, list):
            raise InputError(f"{file}: eval[{task_id!r}] must be a list, got {answers!r:.60}")
        if not answers:
            rows.append(failed_row(task_id, 0, "missing", "no answer in the file"))
        for sample, answer in enumerate(answers):
            place = f"{file}: eval[{task_id!r}][{sample}]"
            if not isinstance(answer, dict):
                raise InputError(f"{place} must be an object, got {answer!r:.60}")
            rows.append(_Status.of({**answer, "task_id": task_id, "sample": sample}, place).row())
    results = Results(unique_rows(rows))
    version = content.get("hash")
    versions = dict.fromkeys(results.benchmarks, version) if isinstance(version, str) else {}
    return replace(results, versions=versions)


def _load(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # broken, too deep, or a number without end
        raise InputError(f"{file} is no JSON: {error}") from None


@dataclass(frozen=True)
class _Status:
    """A verdict in EvalPlus's words, before it is known which answer it is of."""

    task_id: str
    sample: int | None
    base: str
    plus: str
    empty: bool

    @classmethod
    def of(cls, raw: Any, place: str) -> _Status:
        if not isinstance(raw, Mapping) or not isinstance(raw.get("task_id"), str):
            raise InputError(f"{place} must be an object with a task_id, got {raw!r:.60}")
        plus = NOT_RUN if raw.get("plus_status") is None else _text(raw, "plus_status", place)
        sample = raw.get("sample")
        if sample is not None and (type(sample) is not int or sample < 0):
            raise InputError(f"{place}: sample must be a number from 0, got {sample!r:.60}")
        code = raw.get("solution", raw.get("completion"))
        benchmark_of(raw["task_id"])
        empty = isinstance(code, str) and not code.strip()
        return cls(raw["task_id"], sample, _text(raw, "base_status", place), plus, empty)

    def row(self, sample: int = 0) -> ResultRow:
        number = sample if self.sample is None else self.sample
        if self.empty:
            return failed_row(self.task_id, number, "empty", "no code in the answer")
        return ResultRow(
            benchmark=benchmark_of(self.task_id),
            task_id=self.task_id,
            sample=number,
            base=self.base == "pass",
            plus=self.base == "pass" and self.plus == "pass",
            base_status=self.base,
            plus_status=self.plus,
        )


def _text(raw: Mapping[str, Any], name: str, place: str) -> str:
    value = raw.get(name)
    if value not in _EVALPLUS_WORDS:
        words = ", ".join(_EVALPLUS_WORDS)
        raise InputError(f"{place}: {name} must be one of {words}, got {value!r:.60}")
    return str(value)


def _numbered(statuses: Sequence[_Status]) -> list[ResultRow]:
    """Rows numbered by their order within a task, where they carry no number.

    With as many answers to a task as most tasks of its benchmark have, these are its answers. With
    more, some id was given twice, and which is meant nobody knows: each number comes twice then,
    so that :func:`unique_rows` counts all as failed.
    """
    by_task = Counter(status.task_id for status in statuses if status.sample is None)
    usual = {name: _most_common(by_task, name) for name in set(map(benchmark_of, by_task))}
    seen: Counter[str] = Counter()
    rows = []
    for status in statuses:
        number = seen[status.task_id]
        seen[status.task_id] += 1
        count = usual.get(benchmark_of(status.task_id), 0)
        if status.sample is None and by_task[status.task_id] > count:
            rows += [status.row(sample) for sample in range(count)]
        else:
            rows.append(status.row(number))
    return rows


def _most_common(by_task: Mapping[str, int], benchmark: str) -> int:
    """Answers that most tasks of a benchmark have, the larger number of two as common."""
    frequency = Counter(
        count for task_id, count in by_task.items() if benchmark_of(task_id) == benchmark
    )
    return max(frequency, key=lambda count: (frequency[count], count))
