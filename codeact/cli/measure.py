"""``codeact measure``: run candidate solutions, race the right ones, keep the most efficient."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codeact.cli.options import Seed

if TYPE_CHECKING:
    from codeact.pipeline.efficiency.facts import EfficiencyFacts
    from codeact.pipeline.efficiency.stage import MeasureJob

_RULES = ("lexicographic", "pareto", "weighted")


def measure(
    candidates: Annotated[
        str,
        typer.Argument(
            metavar="CANDIDATES",
            help="Rows with task_id, origin and source or response, as codeact generate writes.",
        ),
    ],
    *,
    tasks: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="Tasks with tests: our own format, LeetCode, HumanEval+ or MBPP+."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where measurements, instructions and pairs go."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page about them (.html).")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN", help="Give it twice: two origins on the tasks that both solve."
        ),
    ] = None,
    rule: Annotated[
        str,
        typer.Option(
            metavar="RULE", help="What to choose by: lexicographic (time first), pareto, weighted."
        ),
    ] = "lexicographic",
    reference: Annotated[
        bool,
        typer.Option("--reference/--no-reference", help="A task's own solution may be chosen."),
    ] = True,
    min_gap: Annotated[
        float, typer.Option(metavar="SHARE", help="Least gap in CPU time of a preference pair.")
    ] = 0.10,
    min_spread: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Least gap in time or memory among right answers."),
    ] = 0.03,
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
        int | None, typer.Option(metavar="N", help="Programs at a time; one a CPU by default.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="At most so many tasks, drawn at random.")
    ] = None,
    allow_noise: Annotated[
        bool, typer.Option("--allow-noise", help="Measure on a busy machine, and say so.")
    ] = False,
    external_sandbox: Annotated[
        bool,
        typer.Option(
            "--external-sandbox",
            help="Without bubblewrap, in a container to throw away; also needs "
            "CODEACT_EXTERNAL_SANDBOX=1.",
        ),
    ] = False,
    seed: Seed = 0,
) -> None:
    """Race solutions and keep the most efficient.

    Every candidate answers its task's tests once, in a sandbox; the right ones race on one CPU.
    With --output: measurements, training records with the chosen answers, the same tasks with
    random right answers, and preference pairs; an interrupted command goes on where it stopped.
    Without it: one line of JSON for each candidate on stdout. Exit status 3 means that nothing
    could be run safely.
    """
    from codeact.cli import checks

    checks.check_at_least(1, limit=limit, workers=workers, rounds=rounds, max_rounds=max_rounds)
    checks.check_seed(seed)
    checks.check_choice("--rule", rule, _RULES)
    checks.check_output(report, (".html",), option="--report")
    _check_folder(output)
    _check_choices(compare or [], min_gap=min_gap, min_spread=min_spread)
    from codeact.pipeline.efficiency.stage import MeasureJob

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
    _show(_run(job, workers, external=external_sandbox), report, rows=output is None)


def _check_folder(output: Path | None) -> None:
    """Whether it is or can become a folder that holds earlier work of the same command."""
    from codeact.cli import checks
    from codeact.errors import InputError

    if output is None:
        return
    if output.exists() and not output.is_dir():
        raise InputError(f"--output must be a folder, got the file {output}")
    checks.check_output((output / "measurements.jsonl") if output.is_dir() else None)


def _check_choices(compare: list[str], **shares: float) -> None:
    """Refuse what the measurement would only find out when it is done."""
    from codeact.errors import InputError

    if len(compare) not in (0, 2):
        raise InputError(f"--compare must be given twice, for two origins, got {len(compare)}")
    for name, value in shares.items():
        if not 0 <= value < float("inf"):
            option = name.replace("_", "-")
            raise InputError(f"--{option} must be finite and at least 0, got {value}")


def _run(job: MeasureJob, workers: int | None, *, external: bool) -> EfficiencyFacts:
    """The job in a sandbox; a machine that is too busy is said like bad input, in one line."""
    from codeact.cli.display import Bars
    from codeact.efficiency.racing.host import usable_cpus
    from codeact.efficiency.racing.noise import HostTooNoisyError
    from codeact.errors import InputError
    from codeact.sandbox import Sandbox

    places = workers or len(usable_cpus())
    with Sandbox(workers=places, external=external) as sandbox, Bars() as bars:
        try:
            return job.run(sandbox, lambda title: bars(title, "programs"))
        except HostTooNoisyError as error:
            raise InputError(f"{error} (--allow-noise)") from None


def _show(facts: EfficiencyFacts, report: Path | None, *, rows: bool) -> None:
    """The page, the records as JSON lines, a few words on stderr."""
    from codeact.cli.display import command_line
    from codeact.efficiency.racing.measurements import record_to_row
    from codeact.pipeline.efficiency.words import result_words

    if report is not None:
        from codeact.pipeline.efficiency.report import write_efficiency_report

        write_efficiency_report(replace(facts, command=command_line()), report)
    if rows:
        for record in facts.measurements.records:
            sys.stdout.write(json.dumps(record_to_row(record), ensure_ascii=False) + "\n")
    for line in result_words(facts):
        print(line, file=sys.stderr)
