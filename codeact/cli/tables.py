"""What commands read and write: tables by the name of the file, JSON lines on stdout."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeact.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


def write_table(table: pa.Table, output: Path | None) -> None:
    """Write to ``output`` (atomically), or as JSON lines to stdout."""
    from codeact.files import write_jsonl, write_parquet

    if output is None:
        for row in table.to_pylist():
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
    elif output.suffix == ".parquet":
        write_parquet(output, table)
    else:
        write_jsonl(output, table.to_pylist())


def read_table(path: Path, columns: list[str]) -> dict[str, list[Any]]:
    """Columns of a Parquet or JSONL table.

    Raises:
        InputError: the file is missing or unreadable, or lacks a column.
    """
    from codeact.files import read_jsonl, read_parquet

    if path.suffix == ".parquet":
        table: dict[str, list[Any]] = read_parquet(path, columns).to_pydict()
        return table
    rows = list(read_jsonl(path))
    for number, row in enumerate(rows, start=1):
        if missing := [name for name in columns if name not in row]:
            raise InputError(f"{path} row {number} lacks the field {missing[0]}")
    return {name: [row[name] for row in rows] for name in columns}
