"""Turns and texts of a row, checked, with the place in every error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codeact.data.example import Message
from codeact.data.schema import type_name
from codeact.errors import InputError

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}


def read_turn(turn: Any, place: str) -> Message:
    """A turn of role/content or from/value."""
    if not isinstance(turn, Mapping):
        raise InputError(f"{place}: must be an object, got {type_name(turn)}")
    role_key, text_key = ("from", "value") if "from" in turn else ("role", "content")
    role = cell(turn, role_key, place)
    if not isinstance(role, str) or role.lower() not in _ROLES:
        raise InputError(f"{place}: {role_key} must be of {', '.join(_ROLES)}, got {role!r}")
    return Message(_ROLES[role.lower()], text_of(cell(turn, text_key, place), place, text_key))


def cell(row: Mapping[str, Any], column: str, place: str) -> Any:
    """The value of a column that must be there."""
    if column not in row:
        raise InputError(
            f"{place}: no field {column!r}, got {', '.join(map(str, row)) or 'an empty object'}"
        )
    return row[column]


def text_of(value: Any, place: str, column: str) -> str:
    """A string; a null is an empty one, lone surrogates become U+FFFD."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise wrong_type(place, column, "a string", value)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def wrong_type(place: str, column: str, wanted: str, value: Any) -> InputError:
    """What to raise for a value of another type."""
    return InputError(f"{place}: {column} must be {wanted}, got {type_name(value)}")
