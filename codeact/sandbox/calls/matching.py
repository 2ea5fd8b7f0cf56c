"""Comparing without an order: equal values by number, near values by a perfect matching."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from codeact.sandbox.tests import BinaryTree, LinkedList

MAX_COMPARISONS = 500_000  # about a second; beyond that only sorted order is tried

_SAME_HASH = sys.hash_info.modulus  # ints that far apart hash alike; an answer may hold many

_LABELS: dict[type, str] = {list: "row", tuple: "row", set: "set", frozenset: "set"}
_PYTHON_LABELS: dict[type, str] = {set: "set", frozenset: "set"}


class Numbering:
    """Gives equal values, and only them, the same number.

    Bottom up, a container is the tuple of its parts' numbers, so that nothing recurses. NaN equals
    NaN; True, 1 and 1.0 differ; list and tuple (set and frozenset) are alike unless `strict_types`.
    """

    def __init__(self, *, strict_types: bool, is_python: bool = False) -> None:
        self._labels = _PYTHON_LABELS if is_python else {} if strict_types else _LABELS
        self._is_python = is_python
        self._numbers: dict[Hashable, int] = {}

    def __call__(self, value: Any) -> int:
        done: list[int] = []
        work: list[tuple[Any, int]] = [(value, -1)]  # a container, and how many parts it has
        while work:
            item, num_parts = work.pop()
            parts = parts_of(item)
            if parts is None:
                done.append(self._number(_scalar_key(item, self._is_python)))
            elif num_parts < 0:
                work.append((item, len(parts)))
                work.extend((part, -1) for part in reversed(parts))
            else:
                first = len(done) - num_parts
                key = self._container_key(type(item), done[first:])
                del done[first:]
                done.append(self._number(key))
        return done[0]

    def multiset(self, values: Sequence[Any]) -> list[int]:
        """The numbers of the values, sorted: equal for equal multisets."""
        return sorted(map(self, values))

    def _number(self, key: Hashable) -> int:
        return self._numbers.setdefault(key, len(self._numbers))

    def _container_key(self, kind: type, parts: list[int]) -> Hashable:
        label = self._labels.get(kind, kind.__name__)
        if kind is dict:
            return label, tuple(sorted(zip(parts[::2], parts[1::2], strict=True)))
        return label, tuple(sorted(parts) if kind in (set, frozenset) else parts)


def parts_of(value: Any) -> list[Any] | None:
    """What a container holds (keys and values of a dict in turn), None for a scalar.

    An empty linked list or tree is a scalar: None, as in the languages it comes from; absent
    nodes at the end of a tree do not count.
    """
    kind = type(value)
    if kind in _LABELS:
        return list(value)
    if kind is dict:
        return [part for pair in value.items() for part in pair]
    if kind is LinkedList:
        return list(value.values) or None
    if kind is BinaryTree:
        values = list(value.values)
        while values and values[-1] is None:
            values.pop()
        return values or None
    return None


def _scalar_key(value: Any, is_python: bool) -> Hashable:
    kind = type(value)
    if kind in (LinkedList, BinaryTree):
        return "NoneType"
    if kind is complex:
        if is_python and not value.imag:
            return _scalar_key(value.real, is_python)
        return "complex", _scalar_key(value.real, False), _scalar_key(value.imag, False)
    if value is None or value != value:
        return kind.__name__
    if is_python and kind in (bool, int, float):
        # One key for equal numbers: an integer's, whatever type it came as.
        is_whole = kind is not float or value.is_integer()
        value, kind = (int(value), int) if is_whole else (value, float)
    if kind is int and abs(value) >= _SAME_HASH:
        return "large int", hex(value)
    return kind.__name__, value


class Matcher:
    """Perfect matchings under one predicate that need not be transitive (a tolerance is not).

    Args:
        matches: Whether an expected value and an answer go together.
    """

    def __init__(self, matches: Callable[[Any, Any], bool]) -> None:
        self._matches = matches
        self._left = MAX_COMPARISONS

    def can_pair_all(self, expected: Sequence[Any], got: Sequence[Any]) -> bool:
        """Whether each expected value can have an answer of its own.

        In sorted order first, which decides for numbers; then Kuhn's augmenting paths. When that
        takes too many comparisons the answer is no: a right answer may be refused, never a wrong
        one taken.
        """
        if len(expected) != len(got):
            return False
        wanted, found = sorted(expected, key=rank), sorted(got, key=rank)
        if all(map(self._matches, wanted, found)):
            return True
        if all(type(value) in (int, float) for value in wanted):
            return False
        self._left -= len(wanted) ** 2
        if self._left < 0:
            return False
        edges = [[j for j, b in enumerate(found) if self._matches(a, b)] for a in wanted]
        return all(edges) and _is_perfect(edges)


def _is_perfect(edges: Sequence[Sequence[int]]) -> bool:
    """Whether a bipartite graph, edges by left vertex, has a perfect matching."""
    right_of: list[int | None] = [None] * len(edges)
    left_of: list[int | None] = [None] * len(edges)
    return all(_augment(left, edges, right_of, left_of) for left in range(len(edges)))


def _augment(
    root: int,
    edges: Sequence[Sequence[int]],
    right_of: list[int | None],
    left_of: list[int | None],
) -> bool:
    """Match one more left vertex, moving others along the shortest alternating path."""
    reached_from: dict[int, int] = {}
    queue = [root]
    for left in queue:  # grows meanwhile
        for right in edges[left]:
            if right in reached_from:
                continue
            reached_from[right] = left
            taken_by = left_of[right]
            if taken_by is not None:
                queue.append(taken_by)
                continue
            end: int | None = right
            while end is not None:
                owner = reached_from[end]
                left_of[end], right_of[owner], end = owner, end, right_of[owner]
            return True
    return False


def rank(value: Any) -> list[tuple[int, Any]]:
    """A key that sorts any values; numbers by size, whether int or float."""
    keys: list[tuple[int, Any]] = []
    stack = [value]
    while stack:
        item = stack.pop()
        kind = type(item)
        parts = parts_of(item)
        if parts is not None:
            ordered = kind in (list, tuple, LinkedList, BinaryTree)
            keys.append((6, len(parts)))
            stack += reversed(parts) if ordered else []
        elif kind in (int, float):
            keys.append((1, item) if item == item else (2, 0))
        elif kind in (str, bytes):
            keys.append((3 if kind is str else 4, item))
        else:
            keys.append((5, repr(item)))
    return keys
