"""Two runs compared on every benchmark and test set that both have, with what was amiss."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from codeact.errors import InputError
from codeact.evaluation.comparing.comparison import PassComparison
from codeact.evaluation.comparing.effect_sizes import holm
from codeact.evaluation.comparing.paired import compare
from codeact.evaluation.comparing.run_faults import fault_notes, has_metric, version_notes
from codeact.evaluation.comparing.runs import Run
from codeact.evaluation.comparing.seeds import RunsComparison, compare_runs, seeds_warning
from codeact.evaluation.results import BENCHMARKS, METRICS, TITLES, Metric, Results

# Simulated with equal models; see compare_runs.
_TWO_RUNS = (
    "two runs of a side hardly tell the spread between trainings: where it is 5 points, this test "
    "calls equal models different in 8 of 100 cases, where it is 8 points in 19"
)


@dataclass(frozen=True)
class BenchmarkComparison:
    """The two runs on one test set.

    Attributes:
        benchmark: ``"humaneval"`` or ``"mbpp"``.
        metric: ``"base"``, or ``"plus"`` for a pass of both test sets.
        comparison: Difference in pass@1, paired by task.
    """

    benchmark: str
    metric: Metric
    comparison: PassComparison

    @property
    def title(self) -> str:
        """As papers write it: ``MBPP+`` for the plus tests."""
        return TITLES[self.benchmark] + ("+" if self.metric == "plus" else "")


@dataclass(frozen=True)
class RunReport:
    """Everything that :func:`compare_run_pair` finds.

    Attributes:
        name_a: What stands for a in words.
        name_b: The same of b.
        comparisons: One a benchmark and test set; p-values adjusted where there are several.
        notes: What a reader must know: missing, duplicated and empty answers, single runs.
    """

    name_a: str
    name_b: str
    comparisons: tuple[BenchmarkComparison, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The verdicts in words, then the notes."""
        lines = []
        for one in self.comparisons:
            result = one.comparison
            words = result.verdict(self.name_a, self.name_b, lower_is_better=False)
            power = result.power_words()
            lines.append(f"{one.title}: {words}" + (f"; {power}" if power else ""))
        return lines + [f"note: {note}" for note in self.notes]

    def to_json(self) -> dict[str, Any]:
        """The same as plain values; what is infinite or not a number becomes null."""
        return {
            "a": self.name_a,
            "b": self.name_b,
            "comparisons": [self._row(one) for one in self.comparisons],
            "notes": list(self.notes),
        }

    def _row(self, one: BenchmarkComparison) -> dict[str, Any]:
        result = one.comparison
        row = {"benchmark": one.benchmark, "metric": one.metric, **asdict(result)}
        if isinstance(result, RunsComparison):
            row |= {"spread_a": result.spread_a, "spread_b": result.spread_b}
        row["significant"] = result.significant
        row["verdict"] = result.verdict(self.name_a, self.name_b, lower_is_better=False)
        return {key: _plain(value) for key, value in row.items()}


def compare_run_pair(
    a: Run,
    b: Run,
    *,
    benchmarks: Sequence[str] | None = None,
    metrics: Sequence[Metric] | None = None,
    confidence: float = 0.95,
    any_version: bool = False,
    seed: int = 0,
) -> RunReport:
    """Compare two runs on all that both were tested on, paired by task.

    One run with one answer a task on either side is :func:`codeact.evaluation.compare` (exact
    McNemar); several runs or answers are :func:`codeact.evaluation.compare_runs`. A task
    that one run lacks counts as failed there, as does an answer that was given twice or is empty.

    Args:
        a: See :func:`codeact.evaluation.comparing.runs.read_run`.
        b: The other.
        benchmarks: All that both have by default.
        metrics: ``"base"``, ``"plus"`` or both; by default those that both have.
        confidence: Of the intervals, in (0, 1).
        any_version: Pair by task id even where the runs name different versions of a benchmark.
        seed: Of bootstrap draws and random signs.

    Raises:
        InputError: Nothing in common, something asked for that a run lacks, or versions differ.
    """
    wanted = _common_benchmarks(a, b, benchmarks)
    name_a, name_b = run_names(a, b)
    notes = [
        f"{name} has {TITLES[benchmark]}, the other run has not"
        for run, name in ((a, name_a), (b, name_b))
        for benchmark in _benchmarks(run)
        if benchmarks is None and benchmark not in wanted
    ]
    found: list[BenchmarkComparison] = []
    for benchmark in wanted:
        notes += version_notes(a, b, benchmark, any_version=any_version)
        notes += fault_notes(((name_a, a), (name_b, b)), benchmark)
        common = _common_metrics(a, b, benchmark, metrics)
        if metrics is None and "plus" not in common:
            notes.append(f"the plus tests of {TITLES[benchmark]} were not run in both runs")
        for metric in common:
            result = _compare(a, b, benchmark, metric, confidence, seed)
            found.append(BenchmarkComparison(benchmark, metric, result))
    if not found:
        raise InputError("both runs must have verdicts of one test set, got none in common")
    if min(len(a.seeds), len(b.seeds)) == 2:
        notes.append(_TWO_RUNS)
    if warning := seeds_warning(len(a.seeds), len(b.seeds), name_a, name_b):
        notes.append(warning)
    return RunReport(name_a, name_b, _adjusted(found), tuple(notes))


def run_names(a: Run, b: Run) -> tuple[str, str]:
    """Shortest ends of the two paths that differ, without what says nothing of the run."""
    parts_a, parts_b = a.path.absolute().parts, b.path.absolute().parts
    for length in range(1, max(len(parts_a), len(parts_b)) + 1):
        if parts_a[-length:] != parts_b[-length:]:
            return _name(parts_a[-length:]), _name(parts_b[-length:])
    return str(a.path), str(b.path)


def _name(parts: Sequence[str]) -> str:
    return re.sub(r"((-sanitized)?_eval_results)?\.jsonl?(\.gz)?$", "", "/".join(parts))


def _benchmarks(run: Run) -> list[str]:
    present = set(chain.from_iterable(results.benchmarks for results in run.seeds))
    return [name for name in BENCHMARKS if name in present]


def _common_benchmarks(a: Run, b: Run, wanted: Sequence[str] | None) -> list[str]:
    in_a, in_b = _benchmarks(a), _benchmarks(b)
    for benchmark in dict.fromkeys(wanted or ()):
        if benchmark not in BENCHMARKS:
            raise InputError(f"benchmark must be {' or '.join(BENCHMARKS)}, got {benchmark!r}")
        for run, present in ((a, in_a), (b, in_b)):
            if benchmark not in present:
                raise InputError(f"{run.path} has no verdicts of {benchmark}")
    common = [name for name in in_a if name in in_b and (not wanted or name in wanted)]
    if not common:
        raise InputError(
            f"both runs must have a benchmark in common, {a.path} has {' and '.join(in_a)}, "
            f"{b.path} has {' and '.join(in_b)}"
        )
    return common


def _common_metrics(
    a: Run, b: Run, benchmark: str, wanted: Sequence[Metric] | None
) -> list[Metric]:
    common: list[Metric] = []
    for metric in METRICS if wanted is None else dict.fromkeys(wanted):
        if metric not in METRICS:
            raise InputError(f"metric must be {' or '.join(METRICS)}, got {metric!r}")
        lacking = [run for run in (a, b) if not has_metric(run, benchmark, metric)]
        if lacking and wanted is not None:
            raise InputError(f"{lacking[0].path}: the {metric} tests of {benchmark} were not run")
        if not lacking:
            common.append(metric)
    return common


def _compare(
    a: Run, b: Run, benchmark: str, metric: Metric, confidence: float, seed: int
) -> PassComparison:
    verdicts = [[results.verdicts(benchmark, metric) for results in run.seeds] for run in (a, b)]
    task_ids = list(dict.fromkeys(chain.from_iterable(chain.from_iterable(verdicts))))
    rates_a, rates_b = (np.array([_task_rates(one, task_ids) for one in side]) for side in verdicts)
    if _one_answer(a, benchmark) and _one_answer(b, benchmark):
        return compare(rates_a[0] == 1, rates_b[0] == 1, confidence=confidence, seed=seed)
    return compare_runs(rates_a, rates_b, confidence=confidence, seed=seed)


def _task_rates(verdicts: dict[str, tuple[bool, ...]], task_ids: Sequence[str]) -> list[float]:
    """Share of passed answers of each task; what is missing counts as failed."""
    num_samples = max(map(len, verdicts.values()), default=1)
    return [sum(verdicts.get(task_id, ())) / num_samples for task_id in task_ids]


def _one_answer(run: Run, benchmark: str) -> bool:
    return len(run.seeds) == 1 and _num_samples(run.seeds[0], benchmark) == 1


def _num_samples(results: Results, benchmark: str) -> int:
    return max(map(len, results.verdicts(benchmark, "base").values()), default=1)


def _adjusted(found: Sequence[BenchmarkComparison]) -> tuple[BenchmarkComparison, ...]:
    if len(found) == 1:
        return tuple(found)
    adjusted = holm([one.comparison.p_value for one in found])
    return tuple(
        replace(one, comparison=replace(one.comparison, adjusted_p_value=p_value))
        for one, p_value in zip(found, adjusted, strict=True)
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (tuple, list)) else value
