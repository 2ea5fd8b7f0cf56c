"""``codeact decontaminate``: leave out rows that contain benchmark tasks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from codeact.cli.options import Column, Data


def decontaminate(
    data: Data,
    *,
    benchmarks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Where HumanEval and MBPP files are (.jsonl, .jsonl.gz)."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSONL file for the clean rows.")
    ] = None,
    column: Column = None,
) -> None:
    """Find rows that hold benchmark tasks.

    Rows with tasks of HumanEval or MBPP go to stdout, one JSON line each; the others to --output.
    """
    from codeact.cli.checks import check_output, parse_columns
    from codeact.cli.display import progress_bar
    from codeact.cli.quiet import quiet_libraries
    from codeact.data import decontaminate as find_hits
    from codeact.data import find_benchmarks, load_examples
    from codeact.errors import InputError

    check_output(output, (".jsonl",))
    quiet_libraries()
    examples = load_examples(data, columns=parse_columns(column))
    found = find_benchmarks(benchmarks)
    if not found:
        raise InputError(
            "no HumanEval or MBPP file found: name their folder with --benchmarks or "
            "CODEACT_BENCHMARKS"
        )
    with progress_bar("Decontaminate") as on_progress:
        result = find_hits(examples, found, on_progress=on_progress)
    if output is not None:
        examples.select(result.kept).write_jsonl(output)
    for hit in result.removed:
        print(json.dumps(hit._asdict(), ensure_ascii=False))
    names = ", ".join(f"{benchmark.name} ({len(benchmark.tasks)} tasks)" for benchmark in found)
    print(f"{result.num_removed} of {len(examples)} rows contain tasks of {names}", file=sys.stderr)
