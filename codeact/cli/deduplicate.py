"""``codeact deduplicate``: leave out rows that say the same as another row."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from codeact.cli.options import Column, Data, Seed

_FIELDS = ("both", "instruction", "response")


def deduplicate(
    data: Data,
    *,
    threshold: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Jaccard similarity from which rows are duplicates."),
    ] = 0.7,
    on: Annotated[
        str, typer.Option(metavar="FIELD", help="What counts: both, instruction or response.")
    ] = "both",
    shingle_words: Annotated[
        int, typer.Option(metavar="N", help="Words in the runs that are compared.")
    ] = 5,
    num_perm: Annotated[
        int, typer.Option(metavar="N", help="Columns of a MinHash signature.")
    ] = 128,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSONL file for the rows that stay.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Table of the rows that go (.parquet, .jsonl) in place of stdout."
        ),
    ] = None,
    column: Column = None,
    seed: Seed = 42,
) -> None:
    """Find rows that repeat another one.

    Rows equal up to case and white space, or whose runs of five words agree for the most part, form
    a group; the one with the longest response stays. The others go to stdout, or to --table, with
    the row that stays in their place; the rows that stay go to --output.
    """
    import pyarrow as pa

    from codeact.cli.checks import check_choice, check_output, check_seed, parse_columns
    from codeact.cli.display import progress_bar
    from codeact.cli.quiet import quiet_libraries
    from codeact.cli.tables import write_table
    from codeact.data import Duplicate, find_duplicates, load_examples

    check_choice("--on", on, _FIELDS)
    check_seed(seed)
    check_output(output, (".jsonl",))
    check_output(table, option="--table")
    quiet_libraries()
    examples = load_examples(data, columns=parse_columns(column))
    with progress_bar("Deduplicate") as on_progress:
        found = find_duplicates(
            examples,
            threshold=threshold,
            on=cast(Literal["both", "instruction", "response"], on),
            shingle_words=shingle_words,
            num_perm=num_perm,
            seed=seed,
            on_progress=on_progress,
        )
    if output is not None:
        examples.select(found.kept).write_jsonl(output)
    types = [pa.string(), pa.string(), pa.string(), pa.float64()]
    schema = pa.schema(list(zip(Duplicate._fields, types, strict=True)))
    columns = {name: [getattr(row, name) for row in found.removed] for name in schema.names}
    write_table(pa.table(columns, schema=schema), table)
    exact = sum(row.rule == "exact" for row in found.removed)
    print(
        f"{len(found.removed)} of {len(examples)} rows repeat another one: {exact} exactly, "
        f"{len(found.removed) - exact} nearly",
        file=sys.stderr,
    )
