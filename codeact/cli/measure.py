"""``codeact measure``: run candidate solutions, race the right ones, keep the most efficient."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from codeact.cli.options import Seed

_RULES = ("lexicographic", "pareto", "weighted")


def measure(
    candidates: Annotated[
        str,
        typer.Argument(
            metavar="CANDIDATES",
            help="Rows with task_id, source (or response) and origin, as of codeact generate.",
        ),
    ],
    *,
    tasks: Annotated[str, typer.Option(metavar="FILE", help="Tasks with tests.")],
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Measurements, instructions and pairs go here."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="HTML page about the measurement.")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Compare two origins on shared tasks; give it twice."),
    ] = None,
    rule: Annotated[
        str, typer.Option(metavar="RULE", help="lexicographic (time first), pareto or weighted.")
    ] = "lexicographic",
    reference: Annotated[
        bool,
        typer.Option("--reference/--no-reference", help="A task's own solution may be chosen."),
    ] = True,
    min_gap: Annotated[
        float, typer.Option(metavar="SHARE", help="Least gap in CPU time of a preference pair.")
    ] = 0.10,
    min_spread: Annotated[
        float, typer.Option(metavar="SHARE", help="Least spread of the right answers of a task.")
    ] = 0.05,
    confirm: Annotated[
        bool, typer.Option("--confirm/--no-confirm", help="Measure every pair a second time.")
    ] = True,
    rounds: Annotated[int, typer.Option(metavar="N", help="Measured runs of each answer.")] = 5,
    max_rounds: Annotated[int, typer.Option(metavar="N", help="The same in close races.")] = 9,
    instructions: Annotated[
        bool,
        typer.Option(
            "--instructions/--no-instructions", help="Count instructions where first places tie."
        ),
    ] = True,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Programs at a time; all CPUs by default.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="At most so many tasks, drawn at random.")
    ] = None,
    allow_noise: Annotated[
        bool, typer.Option("--allow-noise", help="Measure on a machine that is busy, and say so.")
    ] = False,
    external_sandbox: Annotated[
        bool,
        typer.Option(
            "--external-sandbox",
            help="Do without bubblewrap in a container to throw away; also needs "
            "CODEACT_EXTERNAL_SANDBOX=1.",
        ),
    ] = False,
    seed: Seed = 0,
) -> None:
    """Run candidate solutions in a sandbox and keep the most efficient right ones.

    Every candidate answers its task's tests once; the right ones of a task race on one CPU. With
    --output: measurements, training records with the chosen answers, the same tasks with random
    right answers, and preference pairs. A stopped command goes on where it was. Without: one line
    of JSON for each candidate on stdout. Exit status 3 means that nothing could be run safely.
    """
    from codeact.cli import checks
    from codeact.errors import InputError

    checks.check_at_least(1, limit=limit, workers=workers, rounds=rounds, max_rounds=max_rounds)
    checks.check_seed(seed)
    checks.check_choice("--rule", rule, _RULES)
    checks.check_output(report, (".html",), option="--report")
    if output is not None and output.exists() and not output.is_dir():
        raise InputError(f"--output must be a folder, got the file {output}")
    if compare and len(compare) != 2:
        raise InputError(f"--compare must be given twice, for two origins, got {len(compare)}")
    from codeact.cli.display import Bars, command_line
    from codeact.efficiency.host import usable_cpus
    from codeact.pipeline.efficiency.stage import MeasureJob
    from codeact.pipeline.efficiency.words import result_words
    from codeact.sandbox import Sandbox

    job = MeasureJob(
        candidates, tasks, output, builds=output is not None or report is not None,
        compare=compare or (), limit=limit, rule=rule,  # type: ignore[arg-type]  # checked
        include_reference=reference, min_gap=min_gap, min_spread=min_spread, confirm=confirm,
        options={
            "rounds": rounds, "max_rounds": max(rounds, max_rounds), "workers": workers,
            "instructions": "ties" if instructions else "never", "allow_noise": allow_noise,
        },
        seed=seed,
    )  # fmt: skip
    places = workers or len(usable_cpus())
    with Sandbox(workers=places, external=external_sandbox) as sandbox, Bars() as bars:
        facts = job.run(sandbox, lambda title: bars(title, "programs"))
    if report is not None:
        from codeact.pipeline.efficiency.report import write_efficiency_report

        write_efficiency_report(replace(facts, command=command_line()), report)
    if output is None:
        from codeact.efficiency.measurements import record_to_row

        for record in facts.measurements.records:
            sys.stdout.write(json.dumps(record_to_row(record), ensure_ascii=False) + "\n")
    for line in result_words(facts):
        print(line, file=sys.stderr)
