"""Turn rows of any of the common schemas into examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from codeact.data.example import Example, Examples, Message
from codeact.data.rows import read_rows
from codeact.data.schema import Schema, find_ids, find_schema, type_name
from codeact.data.turns import cell, read_turn, text_of, wrong_type
from codeact.errors import InputError


def load_examples(
    source: str | Path | Sequence[Mapping[str, Any]],
    *,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    needs_response: bool = True,
) -> Examples:
    """Load a training set.

    Columns are recognised from the first row, in this order: ``messages``, ``conversations``,
    ``conversation`` (turns of role/content or from/value); then ``instruction`` (with an optional
    ``input``, joined after it by a newline), ``query``, ``question``, ``problem``, ``prompt``, each
    with its usual answer column (``output``, ``response``, ``solution``, ``completion``,
    ``answer``). A null text is an empty one, and rows with empty texts stay: scoring gives them a
    status. A response may also be an object file name -> text (one file is its text, several are
    fenced blocks under their names) or a list of candidate strings, of which the first counts.
    Lone surrogates become U+FFFD, as no tokenizer takes them.

    Ids are the row's ``id``, ``task_id`` or ``conversation_id``, the first of them that every row
    has as a string or integer and no two rows share, otherwise ``<stem>:<index>``, index from 0.

    Args:
        source: ``.json`` (a list or ``{"data": [...]}``), ``.jsonl``, both also ``.gz``, or
            ``.parquet``; a folder saved by ``datasets``; a Hugging Face dataset id, tried only when
            no such path exists; or a list of rows.
        columns: Names the columns, overriding the recognition: keys out of ``instruction``,
            ``input``, ``response``, ``messages``, ``id``.
        split: Which split of a Hugging Face id or saved folder; the others have none.
        needs_response: Refuse rows without an answer column. Otherwise one of the instruction
            columns alone will do, as in a file of a benchmark's prompts, and responses are empty.

    Raises:
        InputError: One line saying where and what: no such file, an empty set, a line that does not
            parse, a row that is not an object, missing columns, a wrong type, an unknown role, a
            conversation without assistant, an ``id`` named in ``columns`` that repeats.
    """
    rows = read_rows(source, split)
    for index, row in enumerate(rows.rows):
        if not isinstance(row, Mapping):
            raise InputError(f"{rows.place(index)}: must be an object, got {type_name(row)}")
    schema = find_schema(rows, dict(columns or {}), needs_response=needs_response)
    ids = find_ids(rows, (columns or {}).get("id"))
    examples = []
    for index, row in enumerate(rows.rows):
        messages = _read_messages(row, schema, rows.place(index))
        examples.append(Example(ids[index], messages, row))
    return Examples(examples, rows.source)


def _read_messages(row: Mapping[str, Any], schema: Schema, place: str) -> tuple[Message, ...]:
    if schema.messages is not None:
        turns = cell(row, schema.messages, place)
        if not isinstance(turns, Sequence) or isinstance(turns, str):
            raise wrong_type(place, schema.messages, "a list of turns", turns)
        messages = tuple(
            read_turn(turn, f"{place}: {schema.messages}[{i}]") for i, turn in enumerate(turns)
        )
        if not any(message.role == "assistant" for message in messages):
            raise InputError(f"{place}: {schema.messages} must hold an assistant turn, got none")
        return messages
    instruction = text_of(cell(row, schema.instruction, place), place, schema.instruction)
    if schema.input is not None:
        # A row may lack the optional column; only the pair is required of every row.
        extra = text_of(row.get(schema.input), place, schema.input)
        instruction = f"{instruction}\n{extra}" if extra.strip() else instruction
    if not schema.response:
        return Message("user", instruction), Message("assistant", "")
    response = _response_text(cell(row, schema.response, place), place, schema.response)
    return Message("user", instruction), Message("assistant", response)


def _response_text(value: Any, place: str, column: str) -> str:
    if isinstance(value, Mapping):
        files = {name: text_of(text, place, column) for name, text in value.items()}
        if len(files) == 1:
            return next(iter(files.values()))
        return "\n\n".join(f"`{name}`\n```\n{text}\n```" for name, text in files.items())
    if isinstance(value, list):
        return text_of(value[0], place, column) if value else ""
    return text_of(value, place, column)
