"""Whether an answer is the expected one. Values are exact built-in types, from `values.decode`."""

from __future__ import annotations

import math
import re
from typing import Any

from codeact.sandbox.calls.matching import Matcher, Numbering, parts_of, rank
from codeact.sandbox.tests import BinaryTree, LinkedList, Rule

_ROWS = (list, tuple)
_SETS = (set, frozenset)
_NUMBERS = (int, float)
_ALL_NUMBERS = (bool, int, float, complex)
_NODES = (LinkedList, BinaryTree)
# Python's float() also reads "1_0", "nan" and digits of other scripts.
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\Z")


def same(expected: Any, got: Any, rule: Rule) -> bool:
    """Whether ``got`` is ``expected`` under the rule.

    Types count: True is not 1, and 1 is 1.0 only under a tolerance. NaN equals NaN, 0.0 equals
    -0.0, None equals an empty linked list or tree. A list equals a tuple, a set a frozenset,
    unless ``rule.strict_types``. With ``rule.equality`` ``"python"`` types count as they do for
    Python's ``==``. Under a tolerance numbers a, b are the same if |b - a| <=
    max(abs_tol, rel_tol |a|), where a is expected; in sets and unordered rows there must be a
    perfect matching of such pairs. Keys of dicts, and sets within sets, are compared exactly.
    Deep values do not exhaust the stack.
    """
    if rule.order == "exact" or not (type(expected) in _ROWS and type(got) in _ROWS):
        return _same_in_order(expected, got, rule)
    if not _same_kind(expected, got, rule):
        return False
    if len(expected) != len(got):
        return False
    if not _is_tolerant(rule):
        return _sorted_numbers(expected, got, rule)
    if rule.order == "unordered":
        return Matcher(lambda a, b: _same_in_order(a, b, rule)).can_pair_all(expected, got)
    inner = Matcher(lambda a, b: _same_in_order(a, b, rule))
    outer = Matcher(lambda a, b: _same_rows(a, b, rule, inner))
    return outer.can_pair_all([_sorted_row(x) for x in expected], [_sorted_row(x) for x in got])


def numbering(rule: Rule) -> Numbering:
    """Numbers for values, by the rule's notion of equality; tolerances aside."""
    return Numbering(strict_types=rule.strict_types, is_python=rule.equality == "python")


def same_text(expected: str, got: str | bytes, rule: Rule) -> bool:
    """Whether a program's standard output is the expected text.

    By tokens: split at white space, as many on both sides, each pair the same text or, under a
    tolerance, two finite decimal numbers within it. By lines: without trailing white space on each
    and without empty lines at the end. Output that is not UTF-8 is never right.
    """
    if isinstance(got, bytes):
        try:
            got = got.decode()
        except UnicodeDecodeError:
            return False
    if not rule.tokens:
        return _lines(expected) == _lines(got)
    wanted, found = expected.split(), got.split()
    if len(wanted) != len(found):
        return False
    return all(a == b or _near_texts(a, b, rule) for a, b in zip(wanted, found, strict=True))


def _same_in_order(expected: Any, got: Any, rule: Rule, *, tolerant_sets: bool = True) -> bool:
    number = numbering(rule)
    stack = [(expected, got)]
    while stack:
        a, b = stack.pop()
        parts, others = parts_of(a), parts_of(b)
        if parts is None or others is None:
            if parts is not others or not _same_scalars(a, b, rule):
                return False
        elif not _same_kind(a, b, rule) or len(parts) != len(others):
            return False
        elif type(a) is dict:
            found = {number(key): value for key, value in b.items()}
            for key, value in a.items():
                if number(key) not in found:
                    return False
                stack.append((value, found[number(key)]))
        elif type(a) in _SETS:
            if number.multiset(parts) == number.multiset(others):
                continue
            if not (tolerant_sets and _is_tolerant(rule)):
                return False
            exact_sets = Matcher(lambda x, y: _same_in_order(x, y, rule, tolerant_sets=False))
            if not exact_sets.can_pair_all(parts, others):
                return False
        else:
            stack.extend(zip(parts, others, strict=True))
    return True


def _sorted_numbers(expected: Any, got: Any, rule: Rule) -> bool:
    """Equal as multisets; rows too, if the rule says so."""
    number = numbering(rule)
    if rule.order == "unordered":
        return number.multiset(expected) == number.multiset(got)

    def row(value: Any) -> tuple[str, list[int]]:
        if type(value) not in _ROWS:
            return "", [number(value)]
        is_strict = rule.strict_types or rule.equality == "python"
        return type(value).__name__ if is_strict else "row", number.multiset(value)

    return sorted(map(row, expected)) == sorted(map(row, got))


def _sorted_row(value: Any) -> Any:
    """A row in the order in which it is most likely to match another."""
    return type(value)(sorted(value, key=rank)) if type(value) in _ROWS else value


def _same_rows(expected: Any, got: Any, rule: Rule, inner: Matcher) -> bool:
    if type(expected) in _ROWS and type(got) in _ROWS:
        return _same_kind(expected, got, rule) and inner.can_pair_all(expected, got)
    return _same_in_order(expected, got, rule)


def _same_kind(a: Any, b: Any, rule: Rule) -> bool:
    if type(a) is type(b):
        return True
    if rule.equality == "python":
        return type(a) in _SETS and type(b) in _SETS
    if rule.strict_types:
        return False
    return any(type(a) in kinds and type(b) in kinds for kinds in (_ROWS, _SETS))


def _same_scalars(a: Any, b: Any, rule: Rule) -> bool:
    kinds = type(a), type(b)
    if kinds[0] in _NODES or kinds[1] in _NODES:  # empty: a full one is no scalar
        return {*kinds} <= {*_NODES, type(None)}
    if rule.equality == "python" and kinds[0] in _ALL_NUMBERS and kinds[1] in _ALL_NUMBERS:
        if a == b:
            return True
        a, b = (int(number) if type(number) is bool else number for number in (a, b))
        kinds = type(a), type(b)
    if kinds == (complex, complex):
        return _near(a.real, b.real, rule) and _near(a.imag, b.imag, rule)
    if kinds[0] in _NUMBERS and kinds[1] in _NUMBERS:
        return (kinds[0] is kinds[1] or _is_tolerant(rule)) and _near(a, b, rule)
    return kinds[0] is kinds[1] and bool(a == b)


def _is_tolerant(rule: Rule) -> bool:
    return rule.rel_tol > 0 or rule.abs_tol > 0


def _near(a: float, b: float, rule: Rule) -> bool:
    if a == b or (a != a and b != b):
        return True
    try:
        if not (math.isfinite(a) and math.isfinite(b)):
            return False
        return abs(b - a) <= max(rule.abs_tol, rule.rel_tol * abs(a))
    except OverflowError:  # an int that no float can hold
        return False


def _near_texts(a: str, b: str, rule: Rule) -> bool:
    if not (_is_tolerant(rule) and _DECIMAL.match(a) and _DECIMAL.match(b)):
        return False
    x, y = float(a), float(b)
    return math.isfinite(x) and math.isfinite(y) and _near(x, y, rule)


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines
