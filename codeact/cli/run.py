"""``codeact run``: the pipeline from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codeact.cli.options import Set

if TYPE_CHECKING:
    from codeact.pipeline.recipe import Recipe


def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe in YAML.")],
    *,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Run folder; runs/NAME by default.")
    ] = None,
    set_: Set = None,
) -> None:
    """Run a recipe, or go on with it.

    Stages that are done already, from the same inputs, are skipped. The path of the report goes to
    stdout.
    """
    from codeact.pipeline.recipe import load_recipe

    loaded = load_recipe(recipe, set_ or [])
    execute(loaded, output or Path("runs") / loaded.name)


def execute(recipe: Recipe, folder: Path) -> None:
    """Run ``recipe`` in ``folder`` with bars on stderr; the report's path goes to stdout."""
    from codeact.cli.allocator import keep_freed_memory
    from codeact.cli.display import RunDisplay
    from codeact.cli.quiet import quiet_models

    keep_freed_memory()
    with RunDisplay() as display:
        quiet_models()
        from codeact.pipeline.run import run_recipe  # seconds, mostly those of torch

        report = run_recipe(recipe, folder, display)
    print(report)
