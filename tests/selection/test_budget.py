"""What a budget means, and how it is split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeact.errors import InputError
from codeact.selection import resolve_budget
from codeact.selection.budget import split_by_largest_remainder


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
