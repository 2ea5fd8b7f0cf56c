"""Values for a person to read."""

from __future__ import annotations

from typing import Any

from codeact.sandbox.tests import BinaryTree, LinkedList

_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    dict: ("{", "}"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    LinkedList: ("LinkedList([", "])"),
    BinaryTree: ("BinaryTree([", "])"),
}


class _Text(str):
    """Punctuation, as opposed to a str that is a value."""

    __slots__ = ()


def brief(value: Any, max_chars: int = 100) -> str:
    """``value`` much as `repr` writes it, cut where it is long; quick for values of any size."""
    parts: list[str] = []
    stack: list[Any] = [value]
    room = max_chars
    while stack and room >= 0:
        item = stack.pop()
        if type(item) in _BRACKETS:
            opening, closing = _BRACKETS[type(item)]
            stack += [_Text(closing), *reversed(_contents(item, room)), _Text(opening)]
            continue
        text = item if type(item) is _Text else _scalar(item, room)
        parts.append(text)
        room -= len(text)
    line = "".join(parts)
    return line if room >= 0 else line[: max_chars - 3] + "..."


def _contents(value: Any, room: int) -> list[Any]:
    """The items and what stands between them, as far as there is room."""
    shown: list[Any] = []
    items = value.values if type(value) in (LinkedList, BinaryTree) else value
    for index, item in enumerate(items):
        if index > room:
            break
        shown += [_Text(", ")] if index else []
        shown += [item, _Text(": "), value[item]] if type(value) is dict else [item]
    if type(value) is tuple and len(value) == 1:
        shown.append(_Text(","))
    return shown


def _scalar(value: Any, room: int) -> str:
    if type(value) is int and value.bit_length() > 1000:
        return f"<int of {value.bit_length()} bits>"  # repr would take quadratic time
    return repr(value[: room + 1]) if type(value) in (str, bytes) else repr(value)
