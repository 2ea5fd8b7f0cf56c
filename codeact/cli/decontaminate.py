"""``codeact decontaminate``: leave out rows that contain benchmark tasks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codeact.cli.options import Column, Data

if TYPE_CHECKING:
    from codeact.data import Benchmark, Decontamination


def decontaminate(
    data: Data,
    *,
    benchmarks: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PLACE",
            help="Folder with HumanEval and MBPP files (.jsonl, .jsonl.gz), or any JSON, Parquet "
            "or text file; repeatable.",
        ),
    ] = None,
    benchmark_column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A column of a file's texts; repeatable."),
    ] = None,
    ngram: Annotated[int, typer.Option(metavar="N", help="Words in a sequence.")] = 10,
    ngram_share: Annotated[
        float, typer.Option(metavar="SHARE", help="Of a task's sequences, to be found.")
    ] = 0.5,
    threads: Annotated[int, typer.Option(metavar="N", help="Threads of the search.")] = 1,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSONL file for the clean rows.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Table (.parquet, .jsonl) of all that was found."),
    ] = None,
    column: Column = None,
) -> None:
    """Find rows that hold benchmark tasks.

    Rows with tasks go to stdout, one JSON line for each row and benchmark; the others to --output.
    --report says every task that was found, where in its row, and in which words.
    """
    from codeact.cli.checks import check_output, parse_columns
    from codeact.cli.display import progress_bar
    from codeact.cli.quiet import quiet_libraries
    from codeact.data import decontaminate as find_hits
    from codeact.data import load_examples

    check_output(output, (".jsonl",))
    check_output(report, option="--report")
    quiet_libraries()
    examples = load_examples(data, columns=parse_columns(column))
    found = _benchmarks(benchmarks, benchmark_column)
    with progress_bar("Decontaminate") as on_progress:
        result = find_hits(
            examples,
            found,
            ngram=ngram,
            ngram_share=ngram_share,
            num_threads=threads,
            on_progress=on_progress,
        )
    if output is not None:
        examples.select(result.kept).write_jsonl(output)
    if report is not None:
        _write_report(result, report)
    for hit in result.removed:
        print(json.dumps(hit._asdict(), ensure_ascii=False))
    names = ", ".join(f"{item.name} ({len(item.tasks)} tasks)" for item in found)
    print(f"{result.num_removed} of {len(examples)} rows contain tasks of {names}", file=sys.stderr)


def _benchmarks(places: list[Path] | None, columns: list[str] | None) -> list[Benchmark]:
    """Those of all folders and files, in the order given."""
    from codeact.data import find_benchmarks, read_benchmark
    from codeact.data.benchmarks import has_columns
    from codeact.errors import InputError

    found: list[Benchmark] = []
    files = [place for place in places or [] if place.is_file()]
    if columns and not any(map(has_columns, files)):
        raise InputError("--benchmark-column is for JSON and Parquet files, got none")
    everywhere: list[Path | None] = [*places] if places else [None]
    for place in everywhere:
        if place is not None and place.is_file():
            wanted = columns if has_columns(place) else None
            found.append(read_benchmark(place, columns=wanted))
            continue
        in_folder = find_benchmarks(place)
        if not in_folder:
            raise InputError(
                "no HumanEval or MBPP file found: name their folder, or a file, with --benchmarks "
                "or CODEACT_BENCHMARKS"
            )
        found += in_folder
    paths: dict[str, str] = {}
    for benchmark in found:
        if benchmark.name in paths:
            both = f"{paths[benchmark.name]} and {benchmark.path}"
            raise InputError(f"--benchmarks: two files are {benchmark.name}: {both}")
        paths[benchmark.name] = benchmark.path
    return found


def _write_report(result: Decontamination, report: Path) -> None:
    import pyarrow as pa

    from codeact.cli.tables import write_table
    from codeact.data import Hit

    columns = {name: [getattr(hit, name) for hit in result.hits] for name in Hit._fields}
    types = {"start": pa.int64(), "end": pa.int64()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in Hit._fields])
    write_table(pa.table(columns, schema=schema), report)
