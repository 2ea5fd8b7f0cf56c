"""When an answer counts as the expected one: types, tolerances, orders."""

from __future__ import annotations

import itertools
import math
import random
import time
from typing import Any

import pytest

from codeact.errors import InputError
from codeact.sandbox.calls.brief import brief
from codeact.sandbox.calls.compare import same, same_text
from codeact.sandbox.tests import BinaryTree, LinkedList, Rule

EXACT = Rule()
NEAR = Rule(abs_tol=1e-5)
UNORDERED = Rule(order="unordered")
ROWS = Rule(order="unordered_rows")
STRICT = Rule(strict_types=True)
NAN = math.nan


@pytest.mark.parametrize(
    ("expected", "got", "rule", "is_same"),
    [
        (1, True, EXACT, False),
        (1, 1.0, EXACT, False),
        (1, 1.0, NEAR, True),
        (1, True, NEAR, False),
        (0.0, -0.0, EXACT, True),
        (NAN, float("nan"), EXACT, True),
        (NAN, 0.0, NEAR, False),
        (math.inf, 1e308, Rule(rel_tol=0.5), False),
        (math.inf, math.inf, NEAR, True),
        ("1", 1, NEAR, False),
        (None, 0, EXACT, False),
        ([1, 2], (1, 2), EXACT, True),
        ([1, 2], (1, 2), STRICT, False),
        ([[1], [2]], [(1,), [2]], STRICT, False),
        ({1}, frozenset({1}), EXACT, True),
        ({1}, frozenset({1}), STRICT, False),
        ({1, 2}, [1, 2], EXACT, False),
        ({1}, {True}, EXACT, False),
        ({1: 2}, {True: 2}, EXACT, False),
        ({1: 2, 3: 4}, {3: 4, 1: 2}, EXACT, True),
        ({"a": [1.0]}, {"a": [1.000001]}, NEAR, True),
        ({"a": 1}, {"b": 1}, EXACT, False),
        ({"a": 1}, {"a": 1, "b": 2}, EXACT, False),
        ({(1, 2): NAN}, {(1, 2): NAN}, EXACT, True),
        ([1, 2], [1, 2, 3], EXACT, False),
        ([1, 2], [2, 1], EXACT, False),
        ("ab", ["a", "b"], EXACT, False),
        (b"a", "a", EXACT, False),
        (1 + 1e-9j, 1 + 0j, NEAR, True),
        (complex(NAN, 1), complex(NAN, 1), EXACT, True),
        (1 + 1j, 1, NEAR, False),
        (10**400, 10**400 + 1, NEAR, False),
        (10**400, 1.0, NEAR, False),
        (10**400, 10**400, NEAR, True),
        (1.0, 1.00001 + 1e-9, NEAR, False),
        (1e10, 1e10 + 1, Rule(rel_tol=1e-9), True),
        (1e10, 1e10 + 100, Rule(rel_tol=1e-9), False),
        ({0.1, 0.2}, {0.2000001, 0.1}, NEAR, True),
        ({0.1, 0.2}, {0.1, 0.3}, NEAR, False),
        (LinkedList(()), None, EXACT, True),
        (None, BinaryTree(()), EXACT, True),
        (LinkedList((1,)), [1], EXACT, False),
        (LinkedList((1, 2)), LinkedList((1, 2)), EXACT, True),
        (BinaryTree((1, None, 2)), BinaryTree((1, None, 2, None, None)), EXACT, True),
        (BinaryTree((1, None, 2)), BinaryTree((1, 2)), EXACT, False),
        (BinaryTree((1,)), LinkedList((1,)), EXACT, False),
        ([1, 2, 2], [2, 1, 2], UNORDERED, True),
        ([1, 2, 2], [1, 1, 2], UNORDERED, False),
        ([[1, 2], [3]], [[3], [1, 2]], UNORDERED, True),
        ([[1, 2], [3]], [[3], [2, 1]], UNORDERED, False),
        ([1, True], [True, 1], UNORDERED, True),
        ([1, 1], [True, 1], UNORDERED, False),
        ([NAN, 1.0], [1.0, NAN], UNORDERED, True),
        (3, 3, UNORDERED, True),
        ((1, 2), [2, 1], Rule(order="unordered", strict_types=True), False),
        ([[1, 2], [3]], [[3], [2, 1]], ROWS, True),
        ([[1, 2], [3, 3]], [[3, 2], [3, 1]], ROWS, False),
        ([[1, [2, 3]]], [[[2, 3], 1]], ROWS, True),
        ([[1, [2, 3]]], [[[3, 2], 1]], ROWS, False),
        ([1.0, 2.0], [2.000001, 0.999999], Rule(order="unordered", abs_tol=1e-5), True),
        ([[1.0, 2.0], [5]], [[5], [2.000001, 1]], Rule(order="unordered_rows", abs_tol=1e-5), True),
        (["b", "a"], ["a", "b"], UNORDERED, True),
        ([[], [1]], [[1], []], UNORDERED, True),
        ([[1], "x"], ["x", [1]], Rule(order="unordered_rows", abs_tol=1e-5), True),
        ([[1.0]], [1.0], Rule(order="unordered_rows", abs_tol=1e-5), False),
    ],
)
def test_same(expected: Any, got: Any, rule: Rule, is_same: bool) -> None:
    assert same(expected, got, rule) is is_same


def test_a_matching_is_found_where_sorting_pairs_wrongly() -> None:
    # By their first number, (0, 9) and (0.1, 0) sort against (0, 0) and (0.1, 9).
    rule = Rule(order="unordered", abs_tol=0.2)
    assert same([(0.0, 9), (0.1, 0)], [(0.0, 0), (0.1, 9)], rule)
    assert not same([(0.0, 9), (0.1, 0)], [(0.0, 9), (0.1, 9)], rule)


@pytest.mark.parametrize("seed", range(40))
def test_unordered_agrees_with_all_permutations(seed: int) -> None:
    rng = random.Random(seed)
    rule = Rule(order="unordered", abs_tol=1.0)

    def values() -> list[tuple[int, int]]:
        return [(rng.randrange(4), rng.randrange(4)) for _ in range(4)]

    expected, got = values(), values()
    brute = any(
        all(abs(x[0] - y[0]) <= 1 and abs(x[1] - y[1]) <= 1 for x, y in zip(expected, order))  # noqa: B905
        for order in itertools.permutations(got)
    )
    assert same(expected, got, rule) is brute


@pytest.mark.parametrize("rule", [EXACT, NEAR, UNORDERED, ROWS], ids=lambda rule: rule.order)
def test_deep_values_do_not_exhaust_the_stack(rule: Rule) -> None:
    def deep(end: int) -> Any:
        value: Any = end
        for _ in range(5_000):
            value = [value]
        return value

    assert same(deep(1), deep(1), rule)
    assert not same(deep(1), deep(2), rule)


def test_a_hopeless_matching_ends_soon_and_refuses() -> None:
    rng = random.Random(0)
    expected = [[rng.random(), rng.random()] for _ in range(3000)]
    got = [[a + 0.4, b] for a, b in expected]
    start = time.perf_counter()
    assert not same(expected, got, Rule(order="unordered_rows", abs_tol=0.3))
    assert time.perf_counter() - start < 10


def test_ints_that_hash_alike_are_counted_in_linear_time() -> None:
    expected = list(range(20_000))
    got = [number * (2**61 - 1) for number in expected]
    start = time.perf_counter()
    assert not same(expected, got, UNORDERED)
    assert same(got, got[::-1], UNORDERED)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("expected", "got", "rule", "is_same"),
    [
        ("1 2\n3\n", "1  2 3", EXACT, True),
        ("1 2", "1 2 3", EXACT, False),
        ("1 2", "", EXACT, False),
        ("", "", EXACT, True),
        ("1.0", "1.000001", EXACT, False),
        ("1.0", "1.000001", NEAR, True),
        ("1.0", "1.1", NEAR, False),
        ("1", "1e0", NEAR, True),
        ("nan", "NaN", NEAR, False),
        ("1", "１", NEAR, False),
        ("10", "1_0", NEAR, False),
        ("1e999", "2e999", NEAR, False),
        ("a b", "a\nb", Rule(tokens=False), False),
        ("a \nb\n\n", "a\nb", Rule(tokens=False), True),
        (" a", "a", Rule(tokens=False), False),
        ("a\n\nb", "a\nb", Rule(tokens=False), False),
        ("a", b"a", EXACT, True),
        ("\ufffd", b"\xff", EXACT, False),
    ],
)
def test_same_text(expected: str, got: str | bytes, rule: Rule, is_same: bool) -> None:
    assert same_text(expected, got, rule) is is_same


@pytest.mark.parametrize("fields", [{"order": "any"}, {"rel_tol": -1.0}, {"abs_tol": NAN}], ids=str)
def test_a_rule_must_make_sense(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"rule.{next(iter(fields))} must be .*, got"):
        Rule(**fields)


def test_brief_is_repr_where_that_is_short() -> None:
    for value in (1, [1, (2,)], {"a": {1}}, "x", (), [], {}, [None, 1.5], frozenset({1}), (1, 2)):
        assert brief(value) == repr(value)
    assert brief(LinkedList((1, 2))) == "LinkedList([1, 2])"


def test_brief_is_short_for_any_value() -> None:
    deep: Any = []
    for _ in range(10_000):
        deep = [deep]
    for value in (deep, list(range(10**6)), "a" * 10**6, 10**100_000, {1: deep}):
        assert len(brief(value)) <= 100
    assert brief(list(range(100)), 20) == "[0, 1, 2, 3, 4, 5..."[:17] + "..."
