"""``codeact compare``: whether one run is better than another, with the evidence."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from codeact.cli.options import Output, Seed

_RUN = (
    "Evaluation folder, folder of such folders (one a seed), results.jsonl, *_eval_results.json "
    "of EvalPlus, or JSON lines with task_id, base_status and plus_status."
)


def _run(name: str) -> Any:
    return typer.Argument(metavar=name, help=_RUN if name == "RUN_A" else "The other one.")


def compare(
    run_a: Annotated[Path, _run("RUN_A")],
    run_b: Annotated[Path, _run("RUN_B")],
    *,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="humaneval or mbpp; repeatable, all that both runs have."
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="base, or plus (base and plus tests passed); repeatable, both by default.",
        ),
    ] = None,
    confidence: Annotated[
        float, typer.Option(metavar="SHARE", help="Of the intervals; the tests' level is the rest.")
    ] = 0.95,
    any_version: Annotated[
        bool,
        typer.Option("--any-version", help="Pair by task id though the benchmark's data differ."),
    ] = False,
    output: Output = None,
    seed: Seed = 0,
) -> None:
    """Is one model better than another on the same tasks?

    Exact McNemar test for one run each, sign-flip test over tasks for several seeds or answers;
    bootstrap intervals, effect sizes, the smallest difference that the tasks could have shown,
    Holm's correction over benchmarks and test sets. The verdict in words goes to stderr, JSON to
    stdout or --output. What is missing, duplicated or empty is reported and counts as failed.
    """
    from codeact.cli import checks
    from codeact.evaluation.comparing.run_report import compare_run_pair
    from codeact.evaluation.comparing.runs import read_run
    from codeact.files import write_json

    checks.check_seed(seed)
    checks.check_output(output, (".json",))
    report = compare_run_pair(
        read_run(run_a),
        read_run(run_b),
        benchmarks=benchmark,
        metrics=metric,  # type: ignore[arg-type]  # checked there
        confidence=confidence,
        any_version=any_version,
        seed=seed,
    )
    for line in report.lines():
        print(line, file=sys.stderr)
    if output is None:
        print(json.dumps(report.to_json(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        write_json(output, report.to_json())
