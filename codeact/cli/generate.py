"""``codeact generate``: candidate solutions from several models."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codeact.cli.options import Seed

if TYPE_CHECKING:
    from codeact.efficiency.generation.generate import GenerationSummary
    from codeact.tasks import Task

_Recipe = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="YAML with the models and how they are asked.")
]
_Tasks = Annotated[
    str, typer.Option(metavar="FILE", help="Tasks with tests, as codeact measure takes them.")
]
_Output = Annotated[Path, typer.Option(metavar="FILE", help="Candidates to write (.jsonl).")]
_Limit = Annotated[
    int | None, typer.Option(metavar="N", help="At most so many tasks, drawn at random.")
]
_Resume = Annotated[
    bool,
    typer.Option("--resume/--no-resume", help="Take over the answers that are there already."),
]


def generate(
    recipe: _Recipe,
    *,
    tasks: _Tasks,
    output: _Output,
    limit: _Limit = None,
    seed: Seed = 0,
    resume: _Resume = True,
) -> None:
    """Let several models write solutions of tasks.

    A line for each task, model and sample, in that order. An interrupted command goes on where it
    stopped; a larger --limit, more samples or another model ask only for what is missing. --seed
    draws the tasks; that of the sampling stands in the recipe. Exit status 1 means that some
    answers are missing. docs/methods.md has recipes and the format of task files.
    """
    from codeact.cli import checks
    from codeact.cli.display import progress_bar
    from codeact.cli.quiet import quiet_models
    from codeact.efficiency.generation.recipe import load_candidate_recipe

    checks.check_at_least(1, limit=limit)
    checks.check_seed(seed)
    checks.check_output(output, (".jsonl",))
    loaded = load_candidate_recipe(recipe)
    with progress_bar("Generate", "answers") as on_progress:
        if any(entry.endpoint is None for entry in loaded.models):
            quiet_models()
        from codeact.efficiency.generation.generate import generate_candidates

        chosen = _load(tasks, limit, seed)
        summary = generate_candidates(
            chosen, loaded, output=output, resume=resume, on_progress=on_progress
        )
    _report(summary, output)
    if summary.failures:
        raise typer.Exit(1)


def _load(tasks: str, limit: int | None, seed: int) -> list[Task]:
    """The tasks; in a sandbox if they do not load without, as HumanEval+ does not."""
    from codeact.tasks import load_tasks
    from codeact.tasks.task_rows import NeedsSandboxError

    try:
        return load_tasks(tasks, limit=limit, seed=seed)
    except NeedsSandboxError:
        from codeact.sandbox import Sandbox

        with Sandbox() as sandbox:
            return load_tasks(tasks, limit=limit, seed=seed, sandbox=sandbox)


def _report(summary: GenerationSummary, output: Path) -> None:
    """What was written, and for each model what is missing."""
    total = summary.num_kept + summary.num_written
    words = f"{total} answers in {output}" if total else "no answer yet"
    if summary.num_kept:
        words += f", {summary.num_kept} of them from before"
    print(words, file=sys.stderr)
    missing = Counter(failure.origin for failure in summary.failures)
    for origin, count in missing.items():
        first = next(failure for failure in summary.failures if failure.origin == origin)
        print(
            f"{origin}: {count} missing, the same command asks again; the first, {first.task_id}: "
            f"{first.reason}",
            file=sys.stderr,
        )
