"""Which columns of a data set hold the instruction, the response and the id."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, NamedTuple

from codeact.data.rows import Rows
from codeact.errors import InputError

_CONVERSATIONS = ("messages", "conversations", "conversation")
# Instruction column -> response columns, both in the order of preference. "query" stands before
# "prompt" because LeetCode rows have both and only query/response is the chat pair.
_PAIRS = {
    "instruction": ("output", "response", "solution", "completion", "answer"),
    "query": ("response", "answer", "output"),
    "question": ("answer", "response", "solution", "output"),
    "problem": ("solution", "answer", "response", "output"),
    "prompt": ("completion", "response", "answer", "output"),
}
_IDS = ("id", "task_id", "conversation_id")
_COLUMN_KEYS = ("instruction", "input", "response", "messages", "id")


class Schema(NamedTuple):
    """Column names; ``messages`` is None where instruction and response are two columns.

    ``response`` is ``""`` where no row has one.
    """

    messages: str | None = None
    instruction: str = ""
    response: str = ""
    input: str | None = None


def find_schema(rows: Rows, columns: dict[str, str], *, needs_response: bool = True) -> Schema:
    """Recognise the schema from the first row; ``columns`` overrides (see ``load_examples``)."""
    present = list(rows.rows[0])
    anywhere = list(dict.fromkeys(str(name) for row in rows.rows for name in row))
    for key, column in columns.items():
        if key not in _COLUMN_KEYS:
            raise InputError(
                f"columns: keys must be of {', '.join(_COLUMN_KEYS)}, "
                f"got {key!r}{_nearest(key, _COLUMN_KEYS)}"
            )
        if column not in anywhere:
            raise InputError(
                f"columns[{key!r}]: {rows.source} has no column {column!r}"
                f"{_nearest(column, anywhere)}, it has {', '.join(anywhere)}"
            )
    named_pair = "instruction" in columns or "response" in columns
    if "messages" in columns and named_pair:
        raise InputError("columns: give either messages or instruction and response, got both")
    messages = columns.get("messages")
    if messages is None and not named_pair:
        messages = next((name for name in _CONVERSATIONS if name in present), None)
    if messages is not None:
        return Schema(messages=messages)
    return _find_pair(rows, columns, present, needs_response)


def _find_pair(
    rows: Rows, columns: dict[str, str], present: list[str], needs_response: bool
) -> Schema:
    known = {*present, *columns.values()}
    named = [columns["instruction"]] if "instruction" in columns else list(_PAIRS)
    for instruction in named:
        answers = _PAIRS.get(instruction, _PAIRS["instruction"])
        if "response" in columns:
            answers = (columns["response"],)
        response = next((name for name in answers if name in known), None)
        if instruction in known and response is not None:
            # Only "instruction" has a companion "input"; elsewhere the word means test input. The
            # first row may lack it and a later one have it.
            default = "input" if instruction == "instruction" else None
            return Schema(None, instruction, response, columns.get("input", default))
    alone = next((name for name in named if name in known), None)
    if not needs_response and "response" not in columns and alone is not None:
        return Schema(None, alone, "", columns.get("input"))
    looked_for = ", ".join([*_CONVERSATIONS, *(f"{key}+{_PAIRS[key][0]}" for key in _PAIRS)])
    raise InputError(
        f"{rows.place(0)}: no known columns, looked for {looked_for} and the like, "
        f"got {', '.join(map(str, present)) or 'none'}; "
        "name them with columns={'instruction': ..., 'response': ...}"
    )


def find_ids(rows: Rows, named: str | None) -> list[str]:
    """Ids of all rows; ``named`` is the column that must be good, the usual ones only may."""
    for column in [named] if named is not None else _IDS:
        values = [row.get(column) for row in rows.rows]
        wrong = next((i for i, value in enumerate(values) if not _is_id(value)), None)
        ids = [str(value) for value in values]
        if wrong is None and len(set(ids)) == len(ids):
            return ids
        if named is not None:
            _reject_ids(rows, named, ids, wrong)
    return [f"{rows.stem}:{index}" for index in range(len(rows.rows))]


def _reject_ids(rows: Rows, column: str, ids: list[str], wrong: int | None) -> None:
    if wrong is not None:
        raise InputError(
            f"{rows.place(wrong)}: {column} must be a string or an integer, "
            f"got {type_name(rows.rows[wrong].get(column))}"
        )
    first: dict[str, int] = {}
    for index, value in enumerate(ids):
        if first.setdefault(value, index) != index:
            raise InputError(
                f"{rows.place(index)}: {column} must be unique, {value!r} is also at "
                f"{rows.place(first[value])}"
            )


def _is_id(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool) and value != ""


def type_name(value: Any) -> str:
    """How an error message calls the type of a JSON value."""
    return "null" if value is None else type(value).__name__


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (nearest: {close[0]})" if close else ""
