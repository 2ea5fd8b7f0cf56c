"""EvalPlus's verdicts beside our own, on the same programs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from codeact.evaluation.judging.evalplus_files import EvalPlusFailed, EvalPlusVerdict, find_evalplus
from codeact.evaluation.judging.evalplus_run import run_evalplus
from codeact.sandbox import SandboxUnavailable

if TYPE_CHECKING:
    from codeact.evaluation.evaluation_folder import EvaluationFolder
    from codeact.evaluation.judging.task_list import TaskList
    from codeact.evaluation.results import ResultRow
    from codeact.evaluation.samples import Sample

_LOG = logging.getLogger(__name__)


def with_evalplus(
    rows: Sequence[ResultRow],
    samples: Mapping[tuple[str, str, int], Sample],
    tasks: Sequence[TaskList],
    folder: EvaluationFolder,
    workers: int,
    asked: bool | None,
) -> tuple[list[ResultRow], str | None]:
    """The rows with what EvalPlus says, and why it says nothing where that is so.

    It is given every answer of a benchmark, those without a program as an empty one. A benchmark
    whose rows have all its verdicts already is not run again.

    Args:
        rows: Of our own check.
        samples: By name; names of rows without one count as empty programs.
        tasks: The benchmarks.
        folder: Its raw files go to ``evalplus/``.
        workers: Programs at a time.
        asked: None leaves it out where it is not installed.

    Raises:
        ImportError: It is asked for and not installed.
    """
    try:
        find_evalplus()
    except ImportError as error:
        if asked:
            raise
        return list(rows), str(error)
    verdicts: dict[tuple[str, str, int], EvalPlusVerdict] = {}
    failures: list[str] = []
    for each in tasks:
        own = [row for row in rows if row.benchmark == each.benchmark]
        if all(row.evalplus_base is not None for row in own):
            continue
        solutions: dict[str, list[str]] = {}
        for row in own:
            sample = samples.get((row.benchmark, row.task_id, row.sample))
            solutions.setdefault(row.task_id, []).append(sample.solution if sample else "")
        try:
            found = run_evalplus(
                each.benchmark, each.path, solutions, folder=folder.evalplus, workers=workers
            )
        except (EvalPlusFailed, SandboxUnavailable) as error:
            _LOG.warning("EvalPlus has no verdict on %s: %s", each.benchmark, error)
            failures.append(f"{each.benchmark}: {error}")
            continue
        verdicts |= {(each.benchmark, *name): verdict for name, verdict in found.items()}
    return [_joined(row, verdicts) for row in rows], "; ".join(failures) or None


def _joined(row: ResultRow, verdicts: Mapping[tuple[str, str, int], EvalPlusVerdict]) -> ResultRow:
    verdict = verdicts.get((row.benchmark, row.task_id, row.sample))
    if verdict is None:
        return row
    return replace(row, evalplus_base=verdict.base, evalplus_plus=verdict.plus)
