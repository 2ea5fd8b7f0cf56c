"""Selection by influence: top, band, drop-bottom, turns of tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeact.errors import InputError
from codeact.selection import (
    Candidates,
    RandomSelection,
    TokenBudget,
    TopInfluence,
    select_rows,
)

IDS = [f"row-{row}" for row in range(100)]


@pytest.fixture(scope="module")
def influence() -> np.ndarray:
    """100 rows, 40 of them harmful, 5 without a value."""
    values = np.random.default_rng(0).permutation(np.arange(100) - 40.0)
    values[[3, 14, 15, 92, 65]] = np.nan
    return values


def by_hand(values: np.ndarray) -> list[int]:
    """Rows with a value, from the largest to the smallest; the values differ."""
    return sorted(np.flatnonzero(~np.isnan(values)).tolist(), key=lambda row: -values[row])


def turns_by_hand(matrix: np.ndarray, lists: list[list[int]]) -> list[int]:
    """Every task in turn takes the first row of its list that nobody has."""
    taken: list[int] = []
    while any(row not in taken for rows in lists for row in rows):
        for task in range(matrix.shape[1]):
            left = [row for row in lists[task] if row not in taken]
            taken += left[:1]
    return taken


def test_top_is_the_largest(influence: np.ndarray) -> None:
    top = TopInfluence(70).fit(influence, ids=IDS)
    assert top.selected_.tolist() == by_hand(influence)[:70]
    assert top.ranks_[by_hand(influence)].tolist() == list(range(95))
    report = top.report_
    kept = influence[top.selected_]
    assert report.thresholds == {"influence": kept.min()}
    assert report.edges == {"influence": (np.nanmin(influence), np.nanmax(influence))}
    assert report.num_negative == (influence < 0).sum()
    assert report.share_negative == (kept < 0).mean() > 0
    assert report.kept_by_task == report.helpful_by_task == {}
    for row in range(100):
        harms = row in top.selected_ and influence[row] < 0
        assert ("negative: a step on it raises the validation loss" in top.reasons_[row]) == harms
    assert top.reasons_[3] == "dropped: no influence"
    first = by_hand(influence)[0]
    assert top.reasons_[first] == "kept: place 1 of 95 by influence, influence 59"


@pytest.mark.parametrize(("low", "high", "first", "last"), [(0.5, 0.9, 10, 47), (0, 1, 0, 95)])
def test_band_is_the_largest_between_quantiles(
    low: float, high: float, first: int, last: int, influence: np.ndarray
) -> None:
    """Of 95 ranked rows 9.5 are above 0.9 and 47.5 below 0.5; halves count as rows of the band."""
    band = TopInfluence(30, keep="band", low=low, high=high).fit(influence, ids=IDS)
    ranked = by_hand(influence)
    inside = ranked[95 - int(high * 95 + 0.5) : 95 - int(low * 95 + 0.5)]
    assert len(inside) == last - int(95 - int(high * 95 + 0.5))
    assert band.selected_.tolist() == inside[:30]
    assert (band.ranks_ >= 0).sum() == band.report_.num_eligible == len(inside)
    assert band.report_.edges["influence"] == (influence[inside[-1]], influence[inside[0]])
    for row in set(ranked) - set(inside):
        assert band.reasons_[row] == f"dropped: influence {influence[row]:.4g} is outside the band"


def test_drop_bottom_draws_from_the_rest(influence: np.ndarray) -> None:
    worst = set(by_hand(influence)[-19:])  # a fifth of 95
    drawn = [
        TopInfluence(40, keep="drop-bottom", drop=0.2, seed=seed).fit(influence, ids=IDS)
        for seed in range(40)
    ]
    chosen = np.zeros(100)
    for one in drawn:
        assert not worst & set(one.selected_.tolist())
        assert len(one.selected_) == 40
        assert one.report_.num_eligible == 76
        chosen[one.selected_] += 1
    pool = [row for row in by_hand(influence) if row not in worst]
    # 40 draws of 40 of 76: 21 times a row, with a deviation of 3.2.
    assert abs(chosen[pool] - 40 * 40 / 76).max() < 5 * 3.2
    halves = chosen[pool[:38]].mean(), chosen[pool[38:]].mean()
    assert abs(halves[0] - halves[1]) < 4
    assert drawn[0].selected_.tolist() != drawn[1].selected_.tolist()
    again = TopInfluence(40, keep="drop-bottom", drop=0.2, seed=0).fit(influence, ids=IDS)
    assert again.selected_.tolist() == drawn[0].selected_.tolist()
    reason = drawn[0].reasons_[min(worst)]
    assert reason.endswith("is of the worst")


def test_drop_bottom_does_not_draw_like_the_random_control(influence: np.ndarray) -> None:
    """Keys of its own: of 40 rows each, chance shares 16."""
    shared = []
    for seed in range(20):
        one = TopInfluence(40, keep="drop-bottom", drop=0, seed=seed).fit(influence, ids=IDS)
        other = RandomSelection(40, seed=seed).fit(100, ids=IDS)
        shared.append(len(set(one.selected_.tolist()) & set(other.selected_.tolist())))
    assert 13 < np.mean(shared) < 19


@given(data=st.data(), num_tasks=st.integers(1, 4), num_rows=st.integers(4, 25))
def test_tasks_take_turns(data: st.DataObject, num_tasks: int, num_rows: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    matrix = rng.permutation(num_rows * num_tasks).reshape(num_rows, num_tasks) - 3.0
    count = data.draw(st.integers(1, num_rows))
    chosen = TopInfluence(count, quotas="tasks").fit(matrix.mean(axis=1), task_influence=matrix)
    lists = [by_hand(matrix[:, task]) for task in range(num_tasks)]
    assert chosen.selected_.tolist() == turns_by_hand(matrix, lists)[:count]
    shares = np.array(list(chosen.report_.kept_by_task.values()))
    assert shares.sum() == count
    assert shares.max() - shares.min() <= 1
    assert (np.diff(shares) <= 0).all()


def test_turns_with_a_band_and_with_missing_values() -> None:
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(60, 3))
    matrix[rng.integers(0, 60, 12), rng.integers(0, 3, 12)] = np.nan
    matrix[5] = np.nan
    mean = np.array([np.nan if np.isnan(row).all() else np.nanmean(row) for row in matrix])
    chosen = TopInfluence(20, keep="band", low=0.4, high=0.8, quotas="tasks").fit(
        mean, task_influence=matrix, task_names=["a", "b", "c"], ids=IDS[:60]
    )
    lists = []
    for task in range(3):
        ranked = by_hand(matrix[:, task])
        above, below = (len(ranked) - int(q * len(ranked) + 0.5) for q in (0.8, 0.4))
        lists.append(ranked[above:below])
    expected = turns_by_hand(matrix, lists)[:20]
    assert chosen.selected_.tolist() == expected
    for row in expected:
        name = "abc"[chosen.pickers_[row]]
        value = matrix[row, chosen.pickers_[row]]
        assert f"task {name} {value:.4g}" in chosen.reasons_[row]
    assert chosen.reasons_[5] == "dropped: no influence"
    for task, name in enumerate("abc"):
        own = [row for row in expected if chosen.pickers_[row] == task]
        assert chosen.report_.kept_by_task[name] == len(own)
        assert chosen.report_.thresholds[name] == matrix[own, task].min()
        kept = matrix[expected, task]
        helpful = (kept[~np.isnan(kept)] > 0).mean()
        assert chosen.report_.helpful_by_task[name] == helpful


def test_drop_bottom_of_tasks_spares_every_task() -> None:
    matrix = np.random.default_rng(2).normal(size=(100, 2))
    matrix[7, 1] = np.nan
    mean = np.nanmean(matrix, axis=1)
    chosen = TopInfluence(60, keep="drop-bottom", quotas="tasks").fit(
        mean, task_influence=matrix, ids=IDS
    )
    worst = set(by_hand(matrix[:, 0])[-10:]) | set(by_hand(matrix[:, 1])[-10:])
    assert not worst & set(chosen.selected_.tolist())
    assert chosen.report_.num_eligible == 100 - len(worst)
    assert chosen.ranks_[7] >= 0 or 7 in worst
    assert (chosen.pickers_ == -1).all()
    assert chosen.report_.kept_by_task == {}
    assert chosen.reasons_[min(worst)].endswith("is of the worst on a task")


def test_matrix_without_quotas_is_only_reported(influence: np.ndarray) -> None:
    matrix = np.stack([influence - 20, influence + 100], axis=1)
    plain = TopInfluence(50).fit(influence, ids=IDS)
    told = TopInfluence(50).fit(
        influence, task_influence=matrix, task_names=["hard", "easy"], ids=IDS
    )
    assert told.selected_.tolist() == plain.selected_.tolist()
    assert told.report_.kept_by_task == {}
    hard = (matrix[plain.selected_, 0] > 0).mean()
    assert told.report_.helpful_by_task == {"hard": hard, "easy": 1.0}


OPTIONS: list[dict[str, Any]] = [
    {},
    {"keep": "band"},
    {"keep": "drop-bottom"},
    {"quotas": "tasks"},
    {"quotas": "tasks", "keep": "band"},
    {"quotas": "tasks", "keep": "drop-bottom"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("budget", [25, 0.3, TokenBudget(900)], ids=str)
def test_same_rows_in_any_order_despite_ties(options: dict[str, Any], budget: Any) -> None:
    rng = np.random.default_rng(4)
    matrix = rng.integers(-3, 4, size=(100, 3)).astype(float)  # seven values: ties everywhere
    tokens = rng.integers(10, 90, 100)
    mean = matrix.mean(axis=1)
    mean[11] = np.nan
    order = rng.permutation(100)

    def select(rows: np.ndarray) -> set[int]:
        found = TopInfluence(budget, **options).fit(
            mean[rows], task_influence=matrix[rows], ids=[IDS[row] for row in rows],
            num_tokens=tokens[rows],
        )  # fmt: skip
        kept = rows[found.selected_]
        if isinstance(budget, TokenBudget):
            assert 900 - tokens.max() < tokens[kept].sum() <= 900
        else:
            assert len(set(kept.tolist())) == (25 if budget == 25 else 30)
        return set(kept.tolist())

    kept = select(np.arange(100))
    assert kept == select(order)
    assert 11 not in kept


def test_extremes_of_the_options_keep_everything_with_a_value(influence: np.ndarray) -> None:
    for options in (
        {"keep": "band", "low": 0.0, "high": 1.0},
        {"keep": "drop-bottom", "drop": 0.0},
    ):
        kept = TopInfluence(95, **options).fit(influence, ids=IDS).selected_
        assert sorted(kept.tolist()) == sorted(by_hand(influence))


@pytest.mark.parametrize(
    ("options", "more", "message"),
    [
        ({"keep": "best"}, {}, "keep must be top or band or drop-bottom, got 'best'"),
        ({"quotas": "equal"}, {}, "quotas must be none or tasks, got 'equal'"),
        ({"low": 0.9, "high": 0.5}, {}, r"0 <= low < high <= 1, got 0\.9 and 0\.5"),
        ({"high": 1.5}, {}, r"0 <= low < high <= 1, got 0\.5 and 1\.5"),
        ({"drop": 1.0}, {}, r"drop must be a share from 0 to below 1, got 1\.0"),
        ({"quotas": "tasks"}, {}, "quotas = 'tasks' needs task_influence"),
        ({}, {"task_influence": np.zeros((3, 2))}, r"task_influence must be \(4, num_tasks\)"),
        ({}, {"task_influence": np.zeros(4)}, r"got shape \(4,\)"),
        (
            {},
            {"task_influence": np.zeros((4, 2)), "task_names": ["a", "a"]},
            "task_names must be 2 different names, .+ got a, a",
        ),
        ({"budget": 4}, {}, "only 3 are eligible, 1 too few: 1 rows have no influence"),
        (
            {"budget": 2, "keep": "band"},
            {},
            r"only 1 are eligible.+the band leaves 1 between the quantiles 0\.5 and 0\.9",
        ),
        (
            {"budget": 3, "keep": "drop-bottom", "drop": 0.5},
            {},
            r"only 1 are eligible.+the worst 0\.5 of the others are dropped",
        ),
    ],
)
def test_refuses(options: dict[str, Any], more: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TopInfluence(**{"budget": 1, **options}).fit([0.3, None, -0.1, 0.5], **more)


def test_registry_hands_over_tasks_and_columns() -> None:
    columns = {"influence": np.array([1.0, 2.0, 3.0]), "influence_b": np.array([9.0, 0.0, 1.0])}
    matrix = np.array([[0.0, 9.0], [1.0, 0.0], [5.0, 1.0]])
    known = Candidates(columns=columns, task_influence=matrix, task_names=["a", "b"])
    by_mean = select_rows("influence", known, 2)
    assert by_mean.selected_.tolist() == [2, 1]
    by_turns = select_rows("influence", known, 2, quotas="tasks")
    assert by_turns.selected_.tolist() == [2, 0]
    assert by_turns.report_.kept_by_task == {"a": 1, "b": 1}
    assert select_rows("influence", known, 1, score="influence_b").selected_.tolist() == [0]
    with pytest.raises(InputError, match=r"column influence \(codeact influence\)"):
        select_rows("influence", Candidates(ids=["a"]), 1)
    with pytest.raises(InputError, match="task_influence must have the 3 rows of column influence"):
        Candidates(columns={"influence": np.zeros(3)}, task_influence=matrix[:2])
