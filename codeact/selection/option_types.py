"""Whether a value that a user wrote is of the kind an option asks for."""

from __future__ import annotations

import math
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from codeact.errors import InputError


def check_option(what: str, hint: Any, value: Any) -> Any:
    """``value`` as an option of that type takes it; a list may stand for a tuple.

    Args:
        what: The option, to begin an error with.
        hint: Its type: bool, int, float, str, None, Literal, tuple, or a union of these. Others
            are not checked. A whole number may stand for a float, True never for a number.
        value: As read from YAML.

    Raises:
        InputError: It is of another kind, or not finite.
    """
    for kind in _alternatives(hint):
        if _is_of(kind, value):
            return tuple(value) if isinstance(value, list) else value
    wanted = " or ".join(_describe(kind) for kind in _alternatives(hint))
    raise InputError(f"{what} must be {wanted}, got {value!r}")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) in (Union, UnionType):
        return tuple(kind for part in get_args(hint) for kind in _alternatives(part))
    return (hint,)


def _is_of(kind: Any, value: Any) -> bool:
    if get_origin(kind) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(kind))
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(parts)
            and all(_is_of(part, item) for part, item in zip(parts, value, strict=True))
        )
    if kind is float:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        return is_number and math.isfinite(value)
    if kind is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if kind in (bool, str, NoneType):
        return isinstance(value, kind)
    return True


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(repr(choice) for choice in get_args(kind))
    if get_origin(kind) is tuple:
        return f"a list of {len(get_args(kind))}: {', '.join(map(_describe, get_args(kind)))}"
    words = {
        float: "a number",
        int: "a whole number",
        str: "a text",
        bool: "true or false",
        NoneType: "null",
    }
    return words.get(kind, str(kind))
