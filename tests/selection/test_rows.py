"""Names, places and random keys of rows; what a budget takes of an order or of groups."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeact.errors import InputError
from codeact.selection import Rows, TokenBudget


@pytest.mark.parametrize("named", ["ids", "content"])
def test_order_and_keys_follow_the_rows(named: str) -> None:
    rng = np.random.default_rng(0)
    content = rng.normal(size=(50, 3))
    ids = np.array([f"row-{row}" for row in range(50)])
    shuffle = rng.permutation(50)

    def rows(order: np.ndarray) -> Rows:
        names = ids[order].tolist() if named == "ids" else None
        return Rows(50, names, content[order])

    one, other = rows(np.arange(50)), rows(shuffle)
    assert shuffle[other.order].tolist() == one.order.tolist()
    assert (one.place[one.order] == np.arange(50)).all()
    assert (one.arranged(content) == other.arranged(content[shuffle])).all()
    assert (one.keys(7, "x")[shuffle] == other.keys(7, "x")).all()
    assert (one.uniforms(7, "x")[shuffle] == other.uniforms(7, "x")).all()


def test_rows_without_names_stay_where_they_are() -> None:
    rows = Rows(4)
    matrix = np.eye(4)
    assert rows.place.tolist() == [0, 1, 2, 3]
    assert rows.arranged(matrix) is matrix


def test_uniforms_are_uniform_and_differ_between_seeds_and_purposes() -> None:
    from scipy.stats import kstest, spearmanr

    rows = Rows(4000)
    values = [rows.uniforms(seed, "x") for seed in (0, 1, -1, 2**63)]
    values += [rows.uniforms(2**63, "y"), rows.uniforms(2**63, "")]
    for one in values:
        assert one.min() > 0
        assert one.max() < 1
        assert kstest(one, "uniform").pvalue > 1e-4
        assert abs(spearmanr(one[:-1], one[1:]).statistic) < 4 / np.sqrt(4000)
    for first, second in pairwise(values):
        assert abs(spearmanr(first, second).statistic) < 4 / np.sqrt(4000)


def test_ids_that_read_the_same_are_refused_and_seeds_may_be_numpy_integers() -> None:
    with pytest.raises(InputError, match="'1' occurs more than once"):
        Rows(2, [1, "1"])  # type: ignore[list-item]
    rows = Rows(5)
    assert rows.keys(np.int64(4), "draw").tolist() == rows.keys(4, "draw").tolist()  # type: ignore[arg-type]


def test_equal_rows_without_ids_are_drawn_one_by_one() -> None:
    content = np.repeat(np.arange(200.0), 10)[:, None]
    rows = Rows(2000, content=content)
    drawn = np.argsort(rows.keys(7, "draw"))[:1000] // 10
    kinds, counts = np.unique(drawn, return_counts=True)
    assert len(kinds) > 190
    assert counts.mean() == pytest.approx(5, abs=0.3)
    shuffle = np.random.default_rng(0).permutation(2000)
    keys = Rows(2000, content=content[shuffle]).keys(7, "draw")
    again = content[shuffle][np.argsort(keys)[:1000], 0]
    assert sorted(again) == sorted(content[np.argsort(rows.keys(7, "draw"))[:1000], 0])


@given(
    num_tokens=st.lists(st.integers(1, 20), min_size=1, max_size=30),
    share=st.floats(0.01, 1),
)
def test_take_in_tokens_is_the_plain_loop(num_tokens: list[int], share: float) -> None:
    total = max(1, int(share * sum(num_tokens)))
    order = np.random.default_rng(len(num_tokens)).permutation(len(num_tokens))
    rows = Rows(len(num_tokens), num_tokens=num_tokens)
    expected, left = [], total
    for row in order.tolist():
        if num_tokens[row] <= left:
            expected.append(row)
            left -= num_tokens[row]
    if not expected:
        with pytest.raises(
            InputError, match=f"row, of {min(num_tokens)} tokens, got {total} tokens"
        ):
            rows.take(order, TokenBudget(total), "")
    else:
        assert rows.take(order, TokenBudget(total), "").tolist() == expected


@given(data=st.data())
def test_take_groups_in_tokens(data: st.DataObject) -> None:
    num_tokens = np.array(data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=40)))
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=40, max_size=40)))
    groups = [np.flatnonzero(labels[: len(num_tokens)] == group) for group in range(4)]
    total = data.draw(st.integers(int(num_tokens.min()), int(num_tokens.sum())))
    policy = data.draw(st.sampled_from(["proportional", "sqrt", "equal"]))
    rows = Rows(len(num_tokens), num_tokens=num_tokens)
    kept = rows.take_groups(groups, TokenBudget(total), "", policy=policy)
    free = total - int(num_tokens[kept].sum())
    left = np.setdiff1d(np.arange(len(num_tokens)), kept)
    assert len(set(kept.tolist())) == len(kept)
    assert free >= 0
    assert not len(left) or free < num_tokens[left].min()
    assert [kept[np.isin(kept, group)].tolist() for group in groups] == [
        group[np.isin(group, kept)].tolist() for group in groups
    ]  # the order of each group


def test_take_groups_counts() -> None:
    groups = [np.arange(0, 10), np.arange(10, 13), np.arange(13, 13)]
    rows = Rows(13)
    assert rows.take_groups(groups, 6, "").tolist() == [0, 1, 2, 3, 4, 10]  # 60/13, 18/13
    assert rows.take_groups(groups, 6, "", policy="equal").tolist() == [0, 1, 2, 10, 11, 12]


def test_refuses_what_cannot_be_met_and_says_why() -> None:
    rows = Rows(10, num_tokens=np.full(10, 5))
    order = np.arange(4)
    with pytest.raises(InputError, match="asks for 5 rows, but only 4 are eligible, 1 too few: w"):
        rows.take(order, 0.5, "why")
    with pytest.raises(InputError, match="asks for 25 tokens, but only 20 are eligible, 5 too few"):
        rows.take_groups([order], TokenBudget(25), "why")
    with pytest.raises(InputError, match=r"count from 1 to 50 \(the size of the set in tokens\)"):
        rows.take(order, TokenBudget(51), "why")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_rows": 0}, "at least 1 example, got 0"),
        ({"num_rows": 2, "ids": ["a"]}, "ids must name all 2 examples, got 1"),
        ({"num_rows": 2, "ids": ["a", "a"]}, "ids must be unique, 'a' occurs more than once"),
        ({"num_rows": 2, "num_tokens": [1]}, "num_tokens must be 2 whole numbers"),
        ({"num_rows": 2, "num_tokens": [1, 0]}, "of at least 1, one for each example"),
        ({"num_rows": 2, "num_tokens": [1.0, 2.0]}, "got float64"),
    ],
)
def test_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Rows(**arguments)
