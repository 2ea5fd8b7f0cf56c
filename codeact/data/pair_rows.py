"""Preference pairs: a prompt, an answer to prefer and one to avoid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codeact.data.example import Message
from codeact.data.rows import read_rows
from codeact.data.schema import find_ids, type_name
from codeact.data.turns import cell, read_turn, text_of, wrong_type
from codeact.errors import InputError

Content = str | tuple[Message, ...]


@dataclass(frozen=True)
class Pair:
    """A preference: all three are texts, or all three are turns.

    Attributes:
        id: unique in its set.
        prompt: what is asked; an empty text if the row has none.
        chosen: the answer to prefer.
        rejected: the answer to avoid.
        fields: the row as it came.
    """

    id: str
    prompt: Content
    chosen: Content
    rejected: Content
    fields: Mapping[str, Any]

    @property
    def is_conversation(self) -> bool:
        """Whether the chat template applies."""
        return not isinstance(self.prompt, str)


def load_pairs(
    source: str | Path | Sequence[Mapping[str, Any]], *, split: str = "train"
) -> tuple[Pair, ...]:
    """Load preference pairs: ``effi_pairs.jsonl`` of ``codeact measure``, or a file made for TRL.

    Rows have ``prompt``, ``chosen`` and ``rejected``, each a text or a list of turns. Without a
    ``prompt`` it is what the two answers begin with (TRL's implicit prompt). A ``prompt`` that is a
    text beside answers that are turns is a user turn, unless the answers repeat it: then theirs
    counts (as in UltraFeedback's files). Ids as of :func:`codeact.data.load_examples`.

    Args:
        source: file, folder saved by ``datasets``, Hugging Face id or rows, as of
            :func:`codeact.data.load_examples`.
        split: which split of an id or saved folder.

    Raises:
        InputError: one line saying where and what: no such file, no row, a column missing or of
            another type, an unknown role, texts and turns in one row, no turn of an answer.
    """
    rows = read_rows(source, split)
    for index, row in enumerate(rows.rows):
        if not isinstance(row, Mapping):
            raise InputError(f"{rows.place(index)}: must be an object, got {type_name(row)}")
    ids = find_ids(rows, None)
    return tuple(
        Pair(ids[index], *_contents(row, rows.place(index)), row)
        for index, row in enumerate(rows.rows)
    )


def pairs_hash(pairs: Sequence[Pair]) -> str:
    """sha256 (hex) over ids, prompts and answers in order; the other fields do not count."""
    digest = hashlib.sha256()
    for pair in pairs:
        row = [pair.id, pair.prompt, pair.chosen, pair.rejected]
        digest.update(json.dumps(row).encode("ascii") + b"\n")
    return digest.hexdigest()


def _contents(row: Mapping[str, Any], place: str) -> tuple[Content, Content, Content]:
    chosen, rejected = (_content(cell(row, name, place), place, name) for name in _ANSWERS)
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise InputError(
            f"{place}: chosen and rejected must both be texts or both be turns, got one of each"
        )
    given = row.get("prompt")
    prompt = None if given is None else _content(given, place, "prompt")
    if isinstance(chosen, str) and isinstance(rejected, str):
        if prompt is None:
            return _common_text(chosen, rejected)
        if not isinstance(prompt, str):
            raise InputError(f"{place}: prompt must be a text like chosen, got turns")
        return prompt, chosen, rejected
    assert not isinstance(chosen, str)
    assert not isinstance(rejected, str)
    if prompt is None or (isinstance(prompt, str) and chosen[0].role != "assistant"):
        prompt, chosen, rejected = _common_turns(chosen, rejected)
    elif isinstance(prompt, str):
        prompt = (Message("user", prompt),)
    for name, turns in zip(("prompt", *_ANSWERS), (prompt, chosen, rejected), strict=True):
        if not turns:
            raise InputError(f"{place}: {name} must have a turn of its own, got none")
    return prompt, chosen, rejected


_ANSWERS = ("chosen", "rejected")


def _content(value: Any, place: str, column: str) -> Content:
    if isinstance(value, str):
        return text_of(value, place, column)
    if not isinstance(value, Sequence):
        raise wrong_type(place, column, "a string or a list of turns", value)
    turns = tuple(read_turn(turn, f"{place}: {column}[{i}]") for i, turn in enumerate(value))
    if not turns:
        raise InputError(f"{place}: {column} must have a turn, got none")
    return turns


def _common_text(chosen: str, rejected: str) -> tuple[str, str, str]:
    """As TRL's ``extract_prompt``: a space before the answers is theirs."""
    shortest = min(len(chosen), len(rejected))
    end = next((i for i in range(shortest) if chosen[i] != rejected[i]), shortest)
    if 0 < end < shortest and chosen[end - 1] == " ":
        end -= 1
    return chosen[:end], chosen[end:], rejected[end:]


def _common_turns(
    chosen: tuple[Message, ...], rejected: tuple[Message, ...]
) -> tuple[tuple[Message, ...], tuple[Message, ...], tuple[Message, ...]]:
    """The turns that both begin with; of equal conversations, all but the last one."""
    shortest = min(len(chosen), len(rejected))
    end = next((i for i in range(shortest) if chosen[i] != rejected[i]), shortest - 1)
    return chosen[:end], chosen[end:], rejected[end:]
