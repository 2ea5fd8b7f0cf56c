"""``codeact report``: the HTML report of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]) -> None:
    """Write the report of a run again.

    It shows what the folder holds by now, finished or not; its path goes to stdout.
    """
    from codeact.pipeline.report import write_report

    print(write_report(run))
