"""Values cross as canonical JSON and come back the same, or are refused with a reason."""

from __future__ import annotations

import json
import math
import random
import time
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import pytest

from codeact.sandbox.calls.values import UnsupportedError, decode, encode, encode_call, from_json
from codeact.sandbox.tests import BinaryTree, Call, LinkedList

EXACT = {
    "none": None,
    "bools": [True, False],
    "ints": [0, -1, 2**63 - 1, -(2**63), 2**63, 10**9999, -(10**9999)],
    "floats": [0.1, -0.0, 1e-320, 1.7e308, math.inf, -math.inf],
    "text": ["", 'quote " back \\ tab \t nul \0 del \x7f', "é中🙂", "\ud800", "\ud83d\ude00"],
    "tuple": (1, (2.0, ()), [3, ("a",)]),
    "sets": [set(), {1, 2}, frozenset({"a", (1, 2)}), {frozenset({1})}],
    "dict": {1: "a", "1": "b", (1, 2): {None: [True]}, 2.5: {}},
    "bytes": [b"", b"\x00\xff"],
    "complex": [1 + 2j, complex(-0.0, math.inf)],
    "linked list": LinkedList((1, None, "x")),
    "tree": BinaryTree((1, None, (2,), 3)),
    "lists of one type": [["a", "b"], ["a", "é"], [1.5, 2.5], [1, 2**70], [True, 1], [[1], [2]]],
}


def exactly(value: Any) -> Any:
    """A value with its types, by `repr`, which tells 1, 1.0, True, -0.0 and 0.0 apart."""
    if type(value) in (list, tuple, LinkedList, BinaryTree):
        return type(value).__name__, [exactly(item) for item in value]
    if type(value) in (set, frozenset):
        return type(value).__name__, sorted(map(repr, map(exactly, value)))
    if type(value) is dict:
        return "dict", sorted(repr((exactly(k), exactly(v))) for k, v in value.items())
    if type(value) is int:
        return "int", hex(value)
    return type(value).__name__, repr(value)


@pytest.mark.parametrize("value", EXACT.values(), ids=EXACT)
def test_comes_back_with_its_types(value: Any) -> None:
    assert exactly(decode(encode(value))) == exactly(value)


def test_is_json_that_anyone_can_read() -> None:
    value = [1, (2, {"k": {3}}), float("nan"), 'say "hi"\n', 2**64]
    tagged = {"tuple": [2, {"dict": [["k", {"set": [3]}]]}]}
    expected = [1, tagged, {"float": "nan"}, 'say "hi"\n', {"int": "1" + "0" * 16}]
    assert json.loads(encode(value)) == expected


def test_nan_comes_back_as_nan() -> None:
    assert math.isnan(decode(encode([math.nan]))[0])


def test_equal_values_have_equal_text() -> None:
    items = [f"item {number}" for number in range(50)]
    shuffled = random.Random(0).sample(items, 50)
    assert encode(set(items)) == encode(set(shuffled))
    assert encode(dict.fromkeys(items, 1)) == encode(dict.fromkeys(shuffled, 1))
    assert encode(1) != encode(True) != encode(1.0) != encode(1)


@pytest.mark.parametrize(
    ("value", "crosses_as"),
    [
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, x=[1]), {"x": [1]}),
        (deque([1, 2]), [1, 2]),
        (range(3), [0, 1, 2]),
        ((number * number for number in range(3)), [0, 1, 4]),
        (map(str, [1, 2]), ["1", "2"]),
        (zip([1], [2], strict=True), [(1, 2)]),
        ({"a": 1}.keys(), ["a"]),
        (reversed([1, 2]), [2, 1]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_kin_of_dict_and_list_cross_as_these(value: Any, crosses_as: Any) -> None:
    assert exactly(decode(encode(value))) == exactly(crosses_as)


class Liar(int):
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


class LyingList(list):  # type: ignore[type-arg]
    """A subclass that could show other items than it holds."""


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def doubling(levels: int) -> list[Any]:
    value: list[Any] = [0] * 1000
    for _ in range(levels):
        value = [value, value]
    return value


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Liar(1), "type .*Liar"),
        ([LyingList()], "type .*LyingList"),
        (object(), "type builtins.object"),
        (len, "type builtins.builtin_function"),
        (1 << 40_000, "int of 40001 bits"),
        (nested(201), "deeper than 200"),
        (circular(), "circular"),
        (doubling(100), "more than 1000000"),
        (iter(lambda: 1, 2), "callable_iterator"),
        ((0 for _ in iter(int, 1)), "generator of more than 1000000"),
        ("a" * 16_000_016, "more than 1000000"),
        (range(10**30), "generator of more than"),
    ],
    ids=lambda value: value if type(value) is str and len(value) < 40 else type(value).__name__,
)
def test_refuses(value: Any, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        encode(value)


def test_the_deepest_allowed_value_crosses() -> None:
    value = nested(200)
    text = encode(value)
    assert text == "[" * 200 + "]" * 200
    assert decode(text) == value


ALIKE = [f'{{"int": "{number * (2**61 - 1):x}"}}' for number in range(1, 100_000)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("[1", "not JSON"),
        ("NaN", "bare constant"),
        ('{"a": 1}', "unknown tag 'a'"),
        ('{"set": [1], "set": [2]}', "not one tag"),
        ("{}", "not one tag"),
        ('{"set": [1, 1]}', "twice"),
        ('{"set": [1, true]}', "twice"),
        ('{"dict": [[1, 2], [1, 3]]}', "twice"),
        ('{"dict": [[[1], 2]]}', "not JSON"),
        ('{"tuple": "ab"}', "not JSON"),
        ('{"float": "1.0"}', "not JSON"),
        ('{"complex": ["a", 1]}', "not JSON"),
        ('{"bytes": "0"}', "not JSON"),
        ('{"str": [1114112]}', "not JSON"),
        ('{"int": "' + "f" * 10_000 + '"}', "bits"),
        ('{"int": "1_0"}', "bits"),
        ("[" * 100_000 + "]" * 100_000, "deeper"),
        ("[" * 300 + "]" * 300, "deeper than 200"),
        ("9" * 1_000_000, "digits"),
        ("-" + "9" * 30, "digits"),
        ("0." + "9" * 1_000_000, "characters"),
        ("[" + "[], " * 2_000_000 + "[]]", "more than 1000000"),
        ('"' + '\\"' * 2_000_000 + "," * 4_000_000, "not JSON"),
        ('{"set": [' + ", ".join(map(str, ALIKE)) + "]}", "hash alike"),
        ('{"dict": [' + ", ".join(f"[{key}, 1]" for key in ALIKE) + "]}", "hash alike"),
        (b"\xff", "not JSON"),
        (b'"\xed\xa0\x80"', "not JSON"),
    ],
    ids=range(28),
)
def test_refuses_text_that_no_driver_writes(text: bytes | str, reason: str) -> None:
    start = time.process_time()
    with pytest.raises(UnsupportedError, match=reason):
        decode(text)
    assert time.process_time() - start < 2  # a number of a million digits would take seconds


def test_text_of_digits_is_text() -> None:
    value = ["9" * 5000, 12, 0.5]
    assert decode(encode(value)) == value


def test_text_of_commas_is_text() -> None:
    value = ["," * 5_000_000, '"[\\' * 10, '\\"']
    assert decode(encode(value)) == value


def test_large_sets_and_dicts_cross() -> None:
    value = [set(range(-5000, 5000)), {(a, b): a for a in range(-50, 50) for b in range(-50, 50)}]
    assert decode(encode(value)) == value


def test_reads_what_a_person_writes() -> None:
    data = json.loads(
        '[{"tuple": [1, {"set": [2]}]}, {"a": 1, "b": {"float": "inf"}}, {"a": 1},'
        ' {"linked_list": [1, 2]}, {"binary_tree": [1, null]}, {"dict": [[1, 2]]}]'
    )
    assert from_json(data) == [
        (1, {2}),
        {"a": 1, "b": math.inf},
        {"a": 1},
        LinkedList((1, 2)),
        BinaryTree((1, None)),
        {1: 2},
    ]
    with pytest.raises(UnsupportedError, match="tag 'bytes'"):
        from_json({"bytes": "zz"})


def test_refuses_arguments_that_cannot_cross() -> None:
    with pytest.raises(UnsupportedError, match=r"type builtins\.object"):
        encode_call(Call((object(),)))
    with pytest.raises(UnsupportedError, match="keyword argument"):
        encode_call(Call((), {"not a name": 1}))
    with pytest.raises(UnsupportedError, match="in a set"):
        encode_call(Call(({LinkedList((1,))},)))
