"""Answers and nodes inside the sandbox: exact built-in values as canonical JSON.

`calls.py` compiles this file and `driver.py` as one program; the host uses `Encoder` as well
(`values.py`, which has the way back). Built-in modules only: `json` would double the start-up of
the interpreter.
"""

import sys
from _collections import (  # type: ignore[import-not-found]
    OrderedDict,
    defaultdict,
    deque,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

MAX_DEPTH = 200  # of lists within lists
MAX_ITEMS = 1_000_000  # values of one answer; reading them takes the host about two seconds
ITEM_CHARS = 16  # characters that count as one more value
MAX_LAZY = 1_000_000  # taken from a generator or a range
MAX_NODES = 100_000  # of a linked list or a tree: ends those that are circular
MAX_INT_BITS = 33_220  # 10,000 decimal digits
PLAIN_INT = 2**63  # larger ones cross in base 16, which takes linear time to read

ESCAPES = {code: f"\\u{code:04x}" for code in (*range(32), 34, 92, 127)}
LAZY = {range, map, filter, zip, enumerate, reversed, type(reversed([])), type(iter([]))}
LAZY |= {type(_ for _ in ()), type({}.keys()), type({}.values()), type({}.items()), deque}


class UnsupportedError(Exception):
    """A value that cannot cross, with the reason."""


class Encoder:
    """Writes one value as canonical JSON: equal values of equal types give equal text.

    None, bool, int, float, str and list are JSON's own; everything else is an object of one key,
    its tag (`values.py` lists them). Types are asked for by identity: a subclass, which could lie
    about its contents, is refused. `lazy` turns True when a generator or the like was consumed.
    """

    def __init__(self, nodes: "dict[type, tuple[str, Callable[[Any], list[Any]]]]") -> None:
        self.nodes = nodes
        self.left = MAX_ITEMS
        self.depth = 0
        self.lazy = False
        self.is_strict = False  # then a generator or the like is no list

    def text(self, value: "Any") -> str:
        kind = type(value)
        if kind is int:
            return _integer(value)
        if value is None:
            return "null"
        if kind is bool:
            return "true" if value else "false"
        if kind is str:
            self.spend(len(value) // ITEM_CHARS)
            return _string(value)
        if kind is float:
            text = repr(value)
            return f'{{"float": "{text}"}}' if "n" in text else text  # nan, inf
        if kind is list:
            return self.items(value)
        if kind is tuple:
            return f'{{"tuple": {self.items(list(value))}}}'
        if kind is dict or kind is defaultdict or kind is OrderedDict or _is_counter(kind):
            return self.pairs(dict.items(value))
        if kind is set or kind is frozenset:
            return f'{{"{kind.__name__}": {self.items(list(value), ordered=False)}}}'
        if kind in LAZY and not self.is_strict:
            self.lazy = True
            return self.items(_taken(value))
        if kind in self.nodes:
            tag, values = self.nodes[kind]
            return f'{{"{tag}": {self.items(values(value))}}}'
        return self.scalar(value, kind)

    def scalar(self, value: "Any", kind: type) -> str:
        if kind is bytes:
            self.spend(2 * len(value) // ITEM_CHARS)
            return f'{{"bytes": "{value.hex()}"}}'
        if kind is complex:
            self.spend(1)
            return f'{{"complex": [{self.text(value.real)}, {self.text(value.imag)}]}}'
        raise UnsupportedError(f"a value of type {kind.__module__}.{kind.__qualname__}"[:200])

    def items(self, values: "list[Any]", *, ordered: bool = True) -> str:
        """The list as JSON; lists of one plain type, the usual case, without a loop in Python."""
        self.spend(len(values) + 1)
        kinds = set(map(type, values))
        if not ordered:
            pass
        elif kinds == {int}:
            if min(values) > -PLAIN_INT and max(values) < PLAIN_INT:
                return str(values)
        elif kinds == {float}:
            text = str(values)
            if "n" not in text:
                return text
        elif kinds == {str}:
            joined = "".join(values)
            if _is_plain(joined):
                self.spend(len(joined) // ITEM_CHARS)
                return '["' + '", "'.join(values) + '"]'
        self.descend()
        texts = list(map(self.text, values))  # a comprehension would be one more frame a level
        self.depth -= 1
        return "[" + ", ".join(texts if ordered else sorted(texts)) + "]"

    def pairs(self, items: "Iterable[tuple[Any, Any]]") -> str:
        self.descend()
        texts = []
        for key, value in items:
            self.spend(1)
            texts.append(f"[{self.text(key)}, {self.text(value)}]")
        self.depth -= 1
        return f'{{"dict": [{", ".join(sorted(texts))}]}}'

    def descend(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnsupportedError(f"nested deeper than {MAX_DEPTH} levels, or circular")

    def spend(self, items: int) -> None:
        self.left -= items
        if self.left < 0:
            raise UnsupportedError(f"an answer of more than {MAX_ITEMS} values")


def _integer(value: int) -> str:
    if -PLAIN_INT < value < PLAIN_INT:
        return str(value)
    if value.bit_length() > MAX_INT_BITS:
        raise UnsupportedError(
            f"an int of {value.bit_length()} bits, at most {MAX_INT_BITS} can cross"
        )
    return f'{{"int": "{value:x}"}}'


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def _string(text: str) -> str:
    if _is_plain(text):
        return f'"{text}"'
    try:
        text.encode()
    except UnicodeEncodeError:  # escaped surrogates would join to another character
        return '{"str": ' + str([ord(character) for character in text]) + "}"
    return '"' + text.translate(ESCAPES) + '"'


def _is_counter(kind: type) -> bool:
    collections = sys.modules.get("collections")  # not loaded: then there is no Counter either
    return collections is not None and kind is getattr(collections, "Counter", None)


def _taken(values: "Any") -> "list[Any]":
    taken = []
    for value in values:
        taken.append(value)
        if len(taken) > MAX_LAZY:
            raise UnsupportedError(f"a generator of more than {MAX_LAZY} values")
    return taken


class ListNode:
    """A node of a linked list, for tasks that bring no class of their own."""

    def __init__(self, val: "Any" = 0, next: "Any" = None) -> None:  # noqa: A002
        self.val = val
        self.next = next


class TreeNode:
    """A node of a binary tree, for tasks that bring no class of their own."""

    def __init__(self, val: "Any" = 0, left: "Any" = None, right: "Any" = None) -> None:
        self.val = val
        self.left = left
        self.right = right


def list_values(node: "Any") -> "list[Any]":
    values = []
    while node is not None:
        values.append(node.val)
        if len(values) > MAX_NODES:
            raise UnsupportedError(f"a linked list of more than {MAX_NODES} nodes, or circular")
        node = node.next
    return values


def tree_values(root: "Any") -> "list[Any]":
    queue, values = [root], []
    for node in queue:  # grows meanwhile
        values.append(None if node is None else node.val)
        if node is not None:
            queue += (node.left, node.right)
        if len(queue) > 2 * MAX_NODES:
            raise UnsupportedError(f"a tree of more than {MAX_NODES} nodes, or circular")
    while values and values[-1] is None:
        values.pop()
    return values


def _make(node_type: "Any", value: "Any", num_links: int) -> "Any":
    try:
        return node_type(value)
    except TypeError:  # a candidate's own class may ask for the links as well
        return node_type(value, *[None] * num_links)


def linked_list(values: "list[Any]", node_type: "Any") -> "Any":
    head = None
    for value in reversed(values):
        node = _make(node_type, value, 1)
        node.next, head = head, node
    return head


def binary_tree(values: "list[Any]", node_type: "Any") -> "Any":
    nodes = [None if value is None else _make(node_type, value, 2) for value in values]
    children = iter(nodes[1:])
    for node in nodes:
        if node is not None:
            node.left, node.right = next(children, None), next(children, None)
    return nodes[0] if nodes else None
