"""Where our check and EvalPlus say different things of one answer, and why that may be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from codeact.evaluation.results import METRICS, Metric, ResultRow
from codeact.files import write_jsonl

Kind = Literal[
    "evalplus_bug", "time_limit", "memory_limit", "cheat_or_stricter_rule", "unexplained"
]

# EvalPlus 0.3.1 leaves the test of this one without a result and then asks for all of them, so that
# nothing passes; mended after the release (evalplus/evalplus#241).
_NEVER_PASS = frozenset({"HumanEval/32"})
# Whose references exceed the limit of EvalPlus on wall time in one run and not in another: 1 s, and
# on a machine of load 8 even 5 s.
_FLIPPING = frozenset({"HumanEval/15", "Mbpp/255", "Mbpp/392", "Mbpp/583", "Mbpp/599", "Mbpp/630"})
_OUR_LIMITS: dict[str, Kind] = {
    "time_limit": "time_limit",
    "timeout": "time_limit",
    "memory_limit": "memory_limit",
}


@dataclass(frozen=True)
class Disagreement:
    """One answer on which the two checks differ, by one metric.

    Attributes:
        benchmark: ``"humaneval"`` or ``"mbpp"``.
        task_id: as EvalPlus names it.
        sample: number of the answer to this task, from 0.
        metric: ``"base"``, or ``"plus"`` for a pass of both test sets.
        ours: our status.
        evalplus: EvalPlus's.
        kind: ``"evalplus_bug"``, a known one; ``"time_limit"`` and ``"memory_limit"``, which the
            two set differently; ``"cheat_or_stricter_rule"``, EvalPlus passes what we fail, so that
            the answer forges its verdict or one of our rules is stricter; ``"unexplained"``.
        explanation: one sentence, with our reason where we failed the answer.
    """

    benchmark: str
    task_id: str
    sample: int
    metric: Metric
    ours: str
    evalplus: str
    kind: Kind
    explanation: str


def disagreements(rows: Iterable[ResultRow]) -> list[Disagreement]:
    """Every (answer, metric) that one check passes and the other does not, in the rows' order.

    So the two numbers of passed answers of a metric differ by the disagreements of that metric that
    we pass, less those that EvalPlus passes. Rows that EvalPlus has not seen are left out.
    """
    return [
        _disagreement(row, metric, evalplus)
        for row in rows
        for metric in METRICS
        if (evalplus := _evalplus_status(row, metric)) is not None
        and row.passed(metric) != (evalplus == "pass")
    ]


def write_disagreements(path: str | Path, found: Iterable[Disagreement]) -> None:
    """One JSON object each, atomically; the keys are the fields of :class:`Disagreement`."""
    write_jsonl(path, (asdict(each) for each in found))


def _evalplus_status(row: ResultRow, metric: Metric) -> str | None:
    """Of the base tests, or of both sets: the first that is no pass."""
    if metric == "base" or row.evalplus_base is None:
        return row.evalplus_base
    return row.evalplus_base if row.evalplus_base != "pass" else row.evalplus_plus


def _disagreement(row: ResultRow, metric: Metric, evalplus: str) -> Disagreement:
    ours = row.base_status if metric == "base" or not row.base else row.plus_status
    kind, explanation = (
        _why_only_we_pass(row.task_id, evalplus)
        if row.passed(metric)
        else _why_only_evalplus_passes(ours, row.reason)
    )
    return Disagreement(
        row.benchmark, row.task_id, row.sample, metric, ours, evalplus, kind, explanation
    )


def _why_only_we_pass(task_id: str, evalplus: str) -> tuple[Kind, str]:
    if task_id in _NEVER_PASS:
        return "evalplus_bug", "no answer to this task, not even the reference, passes EvalPlus"
    if evalplus == "timeout":
        return "time_limit", "EvalPlus's limit is wall time, which a loaded machine lengthens"
    if task_id in _FLIPPING:
        return "time_limit", "even the reference fails EvalPlus's wall time in some runs"
    return "unexplained", "passes every test of ours"


def _why_only_evalplus_passes(ours: str, reason: str) -> tuple[Kind, str]:
    said = reason or ours
    if ours in _OUR_LIMITS:
        return _OUR_LIMITS[ours], f"beyond a limit of ours: {said}"
    return "cheat_or_stricter_rule", f"a pass forged in EvalPlus, or a rule of ours: {said}"
