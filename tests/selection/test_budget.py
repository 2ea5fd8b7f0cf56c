"""What a budget means, and how it is split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeact.errors import InputError
from codeact.selection import TokenBudget, resolve_budget
from codeact.selection.budget import (
    parse_budget,
    resolve_tokens,
    split_by_largest_remainder,
    split_by_policy,
)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (1, 1),
        (1.0, 10),
        (10, 10),
        (0.4, 4),
        (0.45, 5),  # a half goes up
        (0.001, 1),  # never rounds to nothing
        (np.int32(3), 3),
        (np.float32(0.5), 5),
    ],
)
def test_value(budget: float, expected: int) -> None:
    assert resolve_budget(budget, 10) == expected


@pytest.mark.parametrize(
    "budget",
    [0, -1, 11, 0.0, -0.1, 1.0000001, 2.0, float("nan"), float("inf"), True, np.True_, "0.4", None],
    ids=repr,
)
def test_refuses_and_says_what_came(budget: object) -> None:
    with pytest.raises(InputError, match="budget must be a count from 1 to 10") as caught:
        resolve_budget(budget, 10)  # type: ignore[arg-type]
    assert repr(budget) in str(caught.value)


def test_refuses_an_empty_set() -> None:
    with pytest.raises(InputError, match="at least 1 example, got 0"):
        resolve_budget(0.4, 0)


@given(st.data())
def test_split_meets_the_total_within_one_of_proportion(data: st.DataObject) -> None:
    sizes = np.array(data.draw(st.lists(st.integers(0, 50), min_size=1, max_size=12)), np.int64)
    total = data.draw(st.integers(0, int(sizes.sum())))
    quotas = split_by_largest_remainder(total, sizes, np.arange(len(sizes)))
    assert quotas.sum() == total
    assert (quotas <= sizes).all()
    if sizes.sum():
        assert (np.abs(quotas - total * sizes / sizes.sum()) < 1).all()


def test_split_breaks_ties_by_preference() -> None:
    sizes = np.array([1, 1, 1, 1])
    assert split_by_largest_remainder(2, sizes, np.array([3, 0, 2, 1])).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("tokens", "expected"), [(1, 1), (1000, 1000), (1.0, 1000), (0.25, 250), (0.0001, 1)]
)
def test_tokens(tokens: float, expected: int) -> None:
    assert resolve_tokens(TokenBudget(tokens), np.array([400, 600])) == expected


@pytest.mark.parametrize("tokens", [0, 1001, 1.5, float("nan"), True, None], ids=repr)
def test_refuses_tokens(tokens: object) -> None:
    with pytest.raises(InputError, match=r"count from 1 to 1000 \(the size of the set in tokens\)"):
        resolve_tokens(TokenBudget(tokens), np.array([400, 600]))  # type: ignore[arg-type]


def test_split_of_billions_of_tokens_does_not_overflow() -> None:
    sizes = np.array([6 * 10**12, 3 * 10**12, 10**12])
    quotas = split_by_largest_remainder(5 * 10**12, sizes, np.arange(3))
    assert quotas.tolist() == [3 * 10**12, 15 * 10**11, 5 * 10**11]


@given(data=st.data(), policy=st.sampled_from(["sqrt", "equal"]))
def test_split_by_policy_is_the_water_level(data: st.DataObject, policy: str) -> None:
    """Quotas are min(size, level * weight), each within one row, for some common level."""
    sizes = np.array(data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=9)), np.int64)
    total = data.draw(st.integers(0, int(sizes.sum())))
    quotas = split_by_policy(total, sizes, np.arange(len(sizes)), policy)  # type: ignore[arg-type]
    assert quotas.sum() == total
    weights = np.sqrt(sizes) if policy == "sqrt" else np.ones(len(sizes))
    low, high = 0.0, float(sizes.max()) + 1
    for _ in range(60):  # bisection, a plain other way to the same quotas
        middle = (low + high) / 2
        spent = np.minimum(sizes, middle * weights).sum()
        low, high = (middle, high) if spent < total else (low, middle)
    assert (np.abs(quotas - np.minimum(sizes, high * weights)) < 1 + 1e-6).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500", 500),
        ("0.4", 0.4),
        ("1.0", 1.0),
        ("250000tokens", TokenBudget(250000)),
        ("0.4 tokens", TokenBudget(0.4)),
    ],
)
def test_parse(text: str, expected: object) -> None:
    parsed = parse_budget(text)
    assert parsed == expected
    assert type(parsed) is type(expected)


@pytest.mark.parametrize("text", ["", "tokens", "0", "-3", "1.5", "nan", "many", "0.4rows"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(InputError, match="budget must be a count, a share"):
        parse_budget(text)
