"""What an evaluation found: pass@k, how answers failed, where EvalPlus says something else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeact.evaluation.answering.answers import kind_of
from codeact.evaluation.comparing.pass_at_k import PassAtK, mean_pass_at_k
from codeact.evaluation.judging.disagreements import Disagreement
from codeact.evaluation.results import METRICS, Metric, ResultRow, Results

if TYPE_CHECKING:
    from codeact.evaluation.answering.prompts import PromptStyle
    from codeact.evaluation.samples import Sample

_KS = (1, 10, 100)


@dataclass(frozen=True)
class BenchmarkSummary:
    """One benchmark.

    Attributes:
        benchmark: ``"humaneval"`` or ``"mbpp"``.
        num_tasks: Tasks that were asked.
        num_samples: Answers to each.
        base: pass@1 of the benchmark's own tests, and pass@10 and pass@100 as far as there are so
            many samples.
        plus: The same of both test sets.
        statuses: Answers by status on both test sets, most frequent first.
        kinds: Answers by :func:`codeact.evaluation.answering.answers.kind_of`; ``"unparsable"`` are
            those of them that are no Python, ``"truncated_passed"`` those that were cut and passed.
        evalplus_base: EvalPlus's own pass@1, None where it was not run.
        evalplus_plus: The same of both test sets.
        num_tokens: Generated.
    """

    benchmark: str
    num_tasks: int
    num_samples: int
    base: tuple[PassAtK, ...]
    plus: tuple[PassAtK, ...]
    statuses: Mapping[str, int]
    kinds: Mapping[str, int]
    evalplus_base: float | None
    evalplus_plus: float | None
    num_tokens: int


@dataclass(frozen=True)
class Evaluation:
    """The result of :func:`codeact.evaluation.evaluate`.

    Attributes:
        folder: With all files.
        benchmarks: One summary each.
        rows: Verdicts, as in ``results.jsonl``.
        disagreements: Where EvalPlus and our check differ.
        style: How the model was asked; None for a file of samples.
        faults: A line for each kind of fault of a file of samples.
        evalplus_error: Why EvalPlus has no verdict, None if it has or was not asked.
        seconds: Wall time of ``"generate"``, ``"judge"`` and ``"evalplus"``, in this process.
    """

    folder: Path
    benchmarks: tuple[BenchmarkSummary, ...]
    rows: tuple[ResultRow, ...]
    disagreements: tuple[Disagreement, ...]
    style: PromptStyle | None
    faults: tuple[str, ...]
    evalplus_error: str | None
    seconds: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON values, without the rows."""
        return {
            "folder": str(self.folder),
            "benchmarks": {each.benchmark: asdict(each) for each in self.benchmarks},
            "disagreements": dict(Counter(each.kind for each in self.disagreements)),
            "style": None if self.style is None else asdict(self.style),
            "faults": list(self.faults),
            "evalplus_error": self.evalplus_error,
            "seconds": dict(self.seconds),
        }


def summarise(
    benchmark: str, rows: Iterable[ResultRow], samples: Iterable[Sample], num_samples: int
) -> BenchmarkSummary:
    """Count the rows and samples of one benchmark."""
    own = [row for row in rows if row.benchmark == benchmark]
    answers = [sample for sample in samples if sample.benchmark == benchmark]
    results = Results(tuple(own))
    passed = {metric: results.verdicts(benchmark, metric) for metric in METRICS}
    ks = [k for k in _KS if k <= num_samples]
    base, plus = (tuple(mean_pass_at_k(passed[metric], k) for k in ks) for metric in METRICS)
    return BenchmarkSummary(
        benchmark=benchmark,
        num_tasks=len(passed["base"]),
        num_samples=num_samples,
        base=base,
        plus=plus,
        statuses=dict(Counter(row.plus_status for row in own).most_common()),
        kinds=_kinds(own, answers),
        evalplus_base=_evalplus_rate(own, "base"),
        evalplus_plus=_evalplus_rate(own, "plus"),
        num_tokens=sum(sample.num_tokens for sample in answers),
    )


def _kinds(rows: Sequence[ResultRow], samples: Sequence[Sample]) -> dict[str, int]:
    kinds = Counter({"whole": 0, "empty": 0, "truncated": 0})
    kinds.update(kind_of(sample) for sample in samples)
    cut = {sample.name for sample in samples if kind_of(sample) == "truncated"}
    return {
        **kinds,
        "unparsable": sum(row.base_status == "syntax_error" for row in rows),
        "truncated_passed": sum(
            row.passed("plus") and (row.benchmark, row.task_id, row.sample) in cut for row in rows
        ),
    }


def _evalplus_rate(rows: Sequence[ResultRow], metric: Metric) -> float | None:
    """EvalPlus's pass@1: the mean over tasks of the share of answers that pass."""
    shares: dict[str, list[bool]] = {}
    for row in rows:
        if row.evalplus_base is None:
            return None
        passed = row.evalplus_base == "pass"
        if metric == "plus":
            passed = passed and row.evalplus_plus == "pass"
        shares.setdefault(row.task_id, []).append(passed)
    means = [sum(one) / len(one) for one in shares.values()]
    return sum(means) / len(means) if means else None
