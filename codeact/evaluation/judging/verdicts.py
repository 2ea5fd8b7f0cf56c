"""Verdicts of our own check as they come: each survives the process."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING

from codeact.errors import InputError
from codeact.evaluation.judging.judge import Judged, judge_all
from codeact.evaluation.results import FAULTS, ResultRow, failed_row, read_results, write_results
from codeact.progress import OnProgress

if TYPE_CHECKING:
    from codeact.evaluation.evaluation_folder import EvaluationFolder
    from codeact.evaluation.judging.problems import Problem
    from codeact.evaluation.samples import Sample
    from codeact.sandbox import Sandbox
    from codeact.sandbox.verdict import Verdict

_WORDS = {"passed": "pass", "time_limit": "timeout"}  # as EvalPlus says it; others as we do

Name = tuple[str, str, int]


def judged_rows(
    folder: EvaluationFolder,
    problems: Sequence[Problem],
    samples: Mapping[Name, Sample],
    faults: Mapping[Name, str],
    sandbox: Sandbox,
    *,
    on_progress: OnProgress | None = None,
) -> list[ResultRow]:
    """A row for each sample and each fault, in the order of problems and numbers.

    Verdicts of an earlier process on the same samples are taken over. A verdict is a matter of the
    tests alone: an answer that the model could not end counts if its program passes.

    Args:
        folder: Where verdicts are kept.
        problems: All that samples are of.
        samples: By name.
        faults: Names without a sample, and why: ``"missing"`` or ``"duplicated"``.
        sandbox: Where programs run.
        on_progress: Of samples.
    """
    rows = {name: failed_row(*name[1:], why, f"answer {why}") for name, why in faults.items()}
    for name, sample in samples.items():
        if not sample.solution:
            rows[name] = failed_row(*name[1:], "empty", "no code in the answer")
    rows |= _earlier(folder, samples.keys() - rows.keys())
    left = [sample for name, sample in samples.items() if name not in rows]
    done, total = len(rows), len(rows) + len(left)
    with folder.judged.open("a", encoding="utf-8") as part:
        for sample, judged in judge_all(problems, left, sandbox):
            rows[sample.name] = _row(sample, judged)
            _append(part, rows[sample.name])
            done += 1
            if on_progress is not None:
                on_progress(done, total)
    place = {(problem.benchmark, problem.task_id): i for i, problem in enumerate(problems)}
    return [rows[name] for name in sorted(rows, key=lambda name: (place[name[:2]], name[2]))]


def keep_rows(folder: EvaluationFolder, rows: Sequence[ResultRow]) -> None:
    """Write ``results.jsonl``, which replaces the verdicts that were kept one by one."""
    write_results(folder.results, rows)
    folder.judged.unlink(missing_ok=True)


def _earlier(folder: EvaluationFolder, names: Collection[Name]) -> dict[Name, ResultRow]:
    """Verdicts of earlier processes on these samples; what is broken is judged again."""
    if folder.judged.exists():
        _drop_torn_line(folder.judged)
    found: dict[Name, ResultRow] = {}
    for path in (folder.results, folder.judged):
        try:
            rows = read_results(path).rows if path.exists() else ()
        except InputError:
            path.unlink()
            rows = ()
        for row in rows:
            name = (row.benchmark, row.task_id, row.sample)
            # Two processes may have written a verdict each; read as an answer given twice, it is
            # none of this one.
            if name in names and row.base_status not in FAULTS:
                found[name] = row
    return found


def _row(sample: Sample, judged: Judged) -> ResultRow:
    return ResultRow(
        sample.benchmark,
        sample.task_id,
        sample.sample,
        judged.base.passed,
        judged.plus.passed,
        _word(judged.base),
        _word(judged.plus),
        judged.plus.reason,
    )


def _word(verdict: Verdict) -> str:
    return _WORDS.get(verdict.status, verdict.status)


def _append(part: IO[str], row: ResultRow) -> None:
    part.write(json.dumps(asdict(row)) + "\n")
    part.flush()
    os.fsync(part.fileno())


def _drop_torn_line(path: Path) -> None:
    with path.open("r+b") as part:
        content = part.read()
        part.truncate(content.rfind(b"\n") + 1)
