"""Tables in and out: Parquet or JSON lines by the name of the file, JSON lines on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeact.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_SUFFIXES = (".parquet", ".jsonl")


def check_output(
    output: Path | None, suffixes: tuple[str, ...] = TABLE_SUFFIXES, *, option: str = "--output"
) -> None:
    """Refuse a file that could not be written, before hours of work.

    Raises:
        InputError: an unknown suffix, a folder of that name, or a parent folder that does not
            exist or cannot be written to.
    """
    if output is None:
        return
    if output.suffix not in suffixes:
        raise InputError(f"{option} must end in {' or '.join(suffixes)}, got {output}")
    if output.is_dir():
        raise InputError(f"{option} must be a file, got the folder {output}")
    _check_writable(output.parent, option)


def _check_writable(folder: Path, option: str) -> None:
    if not folder.is_dir():
        raise InputError(f"{option}: folder {folder} does not exist")
    import tempfile

    try:
        # Trying is the only sure way: permission bits say little about root and network mounts.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"{option}: folder {folder} cannot be written to ({error.strerror})"
        ) from None


def check_new_folder(output: Path) -> None:
    """Refuse an output folder that holds something or could not be made.

    Raises:
        InputError: ``output`` is a file or a folder with content, or its parent folder does not
            exist or cannot be written to.
    """
    if output.is_dir() and any(output.iterdir()):
        raise InputError(f"--output must be a new or empty folder, {output} holds files already")
    if output.exists() and not output.is_dir():
        raise InputError(f"--output must be a folder, got the file {output}")
    _check_writable(output.absolute().parent, "--output")


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A temporary folder beside ``output`` that becomes it when the block ends well."""
    import shutil

    output = output.absolute()
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        temporary.replace(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_table(table: pa.Table, output: Path | None) -> None:
    """Write to ``output`` (atomically), or as JSON lines to stdout."""
    from codeact.pipeline.files import write_jsonl, write_parquet

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
    from codeact.pipeline.files import read_jsonl, read_parquet

    if path.suffix == ".parquet":
        table: dict[str, list[Any]] = read_parquet(path, columns).to_pydict()
        return table
    rows = list(read_jsonl(path))
    for number, row in enumerate(rows, start=1):
        if missing := [name for name in columns if name not in row]:
            raise InputError(f"{path} row {number} lacks the field {missing[0]}")
    return {name: [row[name] for row in rows] for name in columns}


def parse_columns(pairs: list[str] | None) -> dict[str, str] | None:
    """``["instruction=problem"]`` as a mapping.

    Raises:
        InputError: an entry without ``=``.
    """
    if not pairs:
        return None
    split = [pair.partition("=") for pair in pairs]
    for pair, (_, equals, _) in zip(pairs, split, strict=True):
        if not equals:
            raise InputError(
                f"--column must be field=name, such as instruction=problem, got {pair!r}"
            )
    return {field: name for field, _, name in split}
