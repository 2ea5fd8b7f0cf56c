"""What is amiss in the verdicts of two runs: answers that are missing, given twice or empty."""

from __future__ import annotations

from collections.abc import Sequence

from codeact.errors import InputError
from codeact.evaluation.comparing.runs import NOT_RUN, Run
from codeact.evaluation.results import FAULTS, Metric, Results

_SHOWN = 3  # task ids that a note names


def has_metric(run: Run, benchmark: str, metric: Metric) -> bool:
    """Whether answers met these tests; EvalPlus leaves the plus tests out with --base-only.

    True of the plus tests if any answer met them in each seed: where only some did, the others
    count as failed, and :func:`fault_notes` says so.
    """
    return metric == "base" or all(_met_plus(results, benchmark) for results in run.seeds)


def _met_plus(results: Results, benchmark: str) -> bool:
    tested = [
        row.plus_status
        for row in results.rows
        if row.benchmark == benchmark and row.base_status not in FAULTS
    ]
    return not tested or any(status != NOT_RUN for status in tested)


def _without_plus(results: Results, benchmark: str) -> list[str]:
    """Tasks with an answer that the plus tests left out, where they did not leave out all."""
    if not _met_plus(results, benchmark):
        return []
    return list(
        dict.fromkeys(
            row.task_id
            for row in results.rows
            if row.benchmark == benchmark and row.base and row.plus_status == NOT_RUN
        )
    )


def version_notes(a: Run, b: Run, benchmark: str, *, any_version: bool) -> list[str]:
    """A note where the runs were tested on different data.

    Raises:
        InputError: They were, and ``any_version`` is False.
    """
    versions = {
        results.versions[benchmark]
        for results in (*a.seeds, *b.seeds)
        if benchmark in results.versions
    }
    if len(versions) < 2:
        return []
    words = (
        f"runs were tested on different versions of {benchmark} ({' and '.join(sorted(versions))})"
    )
    if not any_version:
        raise InputError(f"{words}; --any-version pairs them by task id all the same")
    return [words]


def fault_notes(sides: Sequence[tuple[str, Run]], benchmark: str) -> list[str]:
    """One note a kind of fault and file: how many tasks, and the first of them by name."""
    every = {
        row.task_id: None
        for _, run in sides
        for results in run.seeds
        for row in results.rows
        if row.benchmark == benchmark
    }
    notes = []
    for name, run in sides:
        for file, results in zip(run.files, run.seeds, strict=True):
            where = name if len(run.seeds) == 1 else f"{name} ({file.parent.name})"
            notes += [
                f"{where}: {words} to {len(ids)} of {len(every)} tasks, counted as failed: "
                + ", ".join(ids[:_SHOWN]) + (", ..." if len(ids) > _SHOWN else "")
                for words, ids in _faults(results, benchmark, list(every))
                if ids
            ]  # fmt: skip
    return notes


def _faults(results: Results, benchmark: str, every: Sequence[str]) -> list[tuple[str, list[str]]]:
    verdicts = results.verdicts(benchmark, "base")
    num_samples = max(map(len, verdicts.values()), default=1)
    found = {status: results.tasks_with(benchmark, status) for status in FAULTS}
    found["missing"] += [task_id for task_id in every if task_id not in verdicts]
    too_few = [task_id for task_id, answers in verdicts.items() if len(answers) < num_samples]
    return [(FAULTS[status], ids) for status, ids in found.items()] + [
        ("fewer answers than to other tasks", too_few),
        ("an answer that the plus tests left out", _without_plus(results, benchmark)),
    ]
