"""The rows of a run, written so that no stage has to guess again which columns hold what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeact.errors import InputError
from codeact.files import read_jsonl

if TYPE_CHECKING:
    from codeact.data import Example, Examples


def write_examples(path: str | Path, examples: Examples) -> None:
    """One object a line: ``id``, the turns as ``messages``, the row as it came as ``fields``.

    Columns are recognised from the first row of a file, and a run shuffles its rows: read by their
    own columns, rows of which only some have an optional one could mean something else than before.
    """
    from codeact.data import Example, Examples

    rows = [
        Example(
            example.id,
            example.messages,
            {"messages": [turn._asdict() for turn in example.messages], "fields": example.fields},
        )
        for example in examples
    ]
    Examples(rows, examples.source).write_jsonl(path)


def read_examples(path: str | Path, ids: set[str] | None = None) -> Examples:
    """What :func:`write_examples` wrote: the same ids, messages and fields.

    Args:
        path: the file.
        ids: rows to read; None is all of them.

    Raises:
        InputError: the file is missing or broken, or a row is not one of a run.
    """
    from codeact.data import Examples

    rows = enumerate(read_jsonl(path), start=1)
    chosen = [(n, row) for n, row in rows if ids is None or row.get("id") in ids]
    return Examples([_read_row(row, f"{path} row {n}") for n, row in chosen], str(path))


def _read_row(row: dict[str, Any], place: str) -> Example:
    from codeact.data import Example, Message

    try:
        messages = tuple(Message(turn["role"], turn["content"]) for turn in row["messages"])
        return Example(row["id"], messages, row["fields"])
    except (KeyError, TypeError):
        raise InputError(
            f"{place} must hold id, messages and fields, as a run writes them"
        ) from None
