"""Agreement of rankings: against scipy, against enumeration, and against simulated chance."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import spearmanr

from codeact.errors import InputError
from codeact.evaluation import spearman
from codeact.scoring.influence.drift import (
    between_checkpoints,
    between_tasks,
    group_places,
    rank_agreement,
    within_groups,
)
from codeact.scoring.influence.extremes import sign_agreement, stable_extremes, top_overlap
from codeact.scoring.influence.history import InfluenceHistory


def make_columns(num_rows: int = 60, num_columns: int = 4, seed: int = 0) -> np.ndarray:
    """Correlated columns with ties and missing values."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(num_rows, 1))
    columns = np.round(shared + rng.normal(size=(num_rows, num_columns)), 1)
    columns[rng.random(columns.shape) < 0.1] = np.nan
    return columns


def make_history() -> InfluenceHistory:
    values = np.stack([make_columns(num_columns=3, seed=seed) for seed in range(2)])
    ids = tuple(str(row) for row in range(60))
    return InfluenceHistory(ids, ("c1", "c2"), ("a", "b", "c"), values, np.ones(2))


def test_rank_correlations_are_those_of_scipy_on_shared_rows() -> None:
    columns = make_columns()
    found = rank_agreement(columns, list("abcd"))
    for i in range(4):
        for j in range(4):
            used = np.isfinite(columns[:, [i, j]]).all(axis=1)
            expected = spearmanr(columns[used, i], columns[used, j]).statistic
            assert found.rho[i, j] == pytest.approx(expected, abs=1e-12)
            assert found.num_pairs[i, j] == used.sum()
            ours = spearman(columns[:, i], columns[:, j])
            assert (found.low[i, j], found.high[i, j]) == pytest.approx(ours.interval, abs=1e-9)
    eigenvalues = np.linalg.eigvalsh(found.rho)
    ratio = eigenvalues.sum() ** 2 / np.square(eigenvalues).sum()
    assert found.num_effective == pytest.approx(ratio)
    pairs = [found.rho[i, j] for i, j in combinations(range(4), 2)]
    assert found.mean == pytest.approx(np.mean(pairs))


def test_the_number_of_different_rankings() -> None:
    one = np.arange(50.0)[:, None]
    same = rank_agreement(np.hstack([one, one**3, -one]), list("abc"))
    assert same.num_effective == pytest.approx(1)
    assert same.low[0, 2] == same.high[0, 2] == -1
    apart = rank_agreement(np.random.default_rng(0).normal(size=(4000, 3)), list("abc"))
    assert apart.num_effective == pytest.approx(3, abs=0.02)


def test_constant_columns_are_no_ranking() -> None:
    columns = np.random.default_rng(0).normal(size=(30, 3))
    columns[:, 1] = 2.0
    alone = rank_agreement(columns[:, [0, 2]], "ac")
    assert rank_agreement(columns, "abc").num_effective == pytest.approx(alone.num_effective)
    assert rank_agreement(np.ones((30, 2)), "ab").num_effective == 0


def test_the_interval_covers_the_true_correlation() -> None:
    """Normal columns of correlation 0.6 have a Spearman of 6/π asin(0.3)."""
    rng = np.random.default_rng(3)
    truth = 6 / np.pi * np.arcsin(0.3)
    hits = 0
    for _ in range(400):
        x = rng.normal(size=40)
        y = 0.6 * x + 0.8 * rng.normal(size=40)
        found = rank_agreement(np.stack([x, y], axis=1), "xy")
        hits += found.low[0, 1] <= truth <= found.high[0, 1]
    assert 0.92 <= hits / 400 <= 0.98


def test_what_cannot_be_ranked_says_nothing() -> None:
    columns = np.array([[1.0, 5.0, np.nan], [2.0, 5.0, 1.0], [3.0, 5.0, np.nan]])
    found = rank_agreement(columns, "abc")
    assert np.isnan(found.rho[0, 1])
    assert np.isnan(found.rho[0, 2])
    assert (found.low[0, 1], found.high[0, 1]) == (-1, 1)
    assert found.num_effective == 1  # of a alone; b is constant, c has one row
    assert np.isnan(rank_agreement(columns[:, :1], "a").mean)
    with pytest.raises(InputError, match=r"columns must be \(num_rows, 2\), got \(3, 3\)"):
        rank_agreement(columns, "ab")


def test_checkpoints_and_tasks_are_the_right_way_round() -> None:
    history = make_history()
    by_task, by_time = between_checkpoints(history), between_tasks(history)
    assert (list(by_task), list(by_time)) == (["a", "b", "c"], ["c1", "c2"])
    ours = spearman(history.values[0, :, 1], history.values[1, :, 1]).rho
    assert by_task["b"].rho[0, 1] == pytest.approx(ours)
    ours = spearman(history.values[1, :, 0], history.values[1, :, 2]).rho
    assert by_time["c2"].rho[0, 2] == pytest.approx(ours)


def test_groups_that_differ_hide_that_nothing_agrees_within_them() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(["python", "go", "rare"], [100, 60, 4])
    columns = rng.normal(size=(164, 2)) + np.where(groups == "python", 6.0, 0.0)[:, None]
    assert rank_agreement(columns, "ab").rho[0, 1] > 0.6
    found = within_groups(columns, "ab", groups.tolist())
    assert list(found) == ["python", "go"]
    assert abs(found["python"].rho[0, 1]) < 0.25
    inside = columns[groups == "go"]
    assert found["go"].rho[0, 1] == pytest.approx(spearmanr(inside[:, 0], inside[:, 1]).statistic)


def test_places_of_groups_and_what_chance_gives() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(["a", "b"], [30, 10])
    values = rng.permutation(40).astype(float)
    found = group_places(values[:, None], groups.tolist())
    for place, name in enumerate(found.groups):
        expected = ((values[groups == name] + 0.5) / 40).mean()
        assert found.mean_place[place, 0] == pytest.approx(expected)
    assert found.sizes.tolist() == [30, 10]
    draws = np.array([rng.permutation(40)[:10].mean() for _ in range(20000)])
    assert found.reach[1, 0] == pytest.approx(1.96 * draws.std() / 40, rel=0.03)
    # Of all rows but ten, the rest is known: both means vary by the same sum.
    assert found.reach[0, 0] == pytest.approx(found.reach[1, 0] / 3, rel=1e-9)
    empty = group_places(np.array([[1.0], [2.0], [np.nan]]), ["a", "a", "b"])
    assert np.isnan(empty.mean_place[1, 0])


def test_tops_are_compared_as_sets() -> None:
    columns = make_columns(80, 3, seed=2)
    whole = np.flatnonzero(np.isfinite(columns).all(axis=1))
    columns[whole] += 1e-6 * np.random.default_rng(0).normal(size=(len(whole), 3))  # no ties
    found = top_overlap(columns, "abc", share=0.2)
    size = round(0.2 * len(whole))
    tops = [set(whole[np.argsort(-columns[whole, k])[:size]].tolist()) for k in range(3)]
    for i in range(3):
        for j in range(3):
            expected = len(tops[i] & tops[j]) / len(tops[i] | tops[j])
            assert found.jaccard[i, j] == pytest.approx(expected)
    assert found.num_rows == len(whole)


def test_chance_of_an_overlap_is_exact() -> None:
    """Over all choices of 3 of 9 rows beside one of them."""
    found = top_overlap(np.random.default_rng(0).normal(size=(9, 2)), "ab", share=1 / 3)
    shared = [len({0, 1, 2} & set(other)) for other in combinations(range(9), 3)]
    overlaps = np.array([one / (6 - one) for one in shared])
    assert found.chance == pytest.approx(overlaps.mean())
    assert (overlaps <= found.chance_high + 1e-12).mean() >= 0.975
    assert (overlaps < found.chance_high - 1e-12).mean() < 0.975


def test_stable_extremes_are_found_and_few_by_chance() -> None:
    rng = np.random.default_rng(4)
    columns = rng.normal(size=(400, 3))
    columns[7], columns[300], columns[11] = 8, 9, -9
    columns[5, 1] = np.nan
    found = stable_extremes(columns, share=0.1)
    tops = [set(np.argsort(-np.nan_to_num(columns[:, k], nan=-99))[:40]) for k in range(3)]
    assert {7, 300} <= set(found.top.tolist()) <= set.intersection(*tops)
    assert found.top[:2].tolist() == [300, 7]
    assert found.bottom[0] == 11
    assert (found.num_rows, found.num_columns) == (399, 3)
    assert found.expected == pytest.approx(399 * (40 / 399) ** 3)
    counts = [len(stable_extremes(rng.normal(size=(200, 2)), share=0.1).top) for _ in range(400)]
    assert np.mean(counts) == pytest.approx(200 * 0.1**2, rel=0.15)


def test_ties_and_single_rows_are_not_extreme() -> None:
    flat = stable_extremes(np.ones((20, 2)))
    assert len(flat.top) == len(flat.bottom) == 0
    assert np.isnan(top_overlap(np.ones((20, 2)), "ab").jaccard).all()
    tied = np.array([3.0, 2, 2, 2, 1, 1, 1, 1, 1, 0])
    columns = np.stack([tied, tied], axis=1)
    for order in (np.arange(10), np.arange(10)[::-1]):  # the place of a row decides nothing
        found = stable_extremes(columns[order], share=0.3)
        assert tied[order][found.top].tolist() == [3]
        assert tied[order][found.bottom].tolist() == [0]
        assert top_overlap(columns[order], "ab", share=0.3).jaccard.tolist() == [[1, 1], [1, 1]]
    three = stable_extremes(np.arange(3.0)[:, None], share=0.5)
    assert (three.top.tolist(), three.bottom.tolist()) == ([2], [0])
    one = stable_extremes(np.ones((1, 2)))
    assert len(one.top) == len(one.bottom) == 0


def test_signs_that_agree() -> None:
    columns = np.array([[1.0, 2.0], [-1.0, -2.0], [3.0, -1.0], [2.0, 1.0], [np.nan, 1.0]])
    found = sign_agreement(columns, "ab")
    assert found.agree[0, 1] == 0.75
    assert found.chance[0, 1] == pytest.approx(0.75 * 0.5 + 0.25 * 0.5)
    assert (found.always_helpful, found.always_harmful) == (0.5, 0.25)
    assert found.agree[1, 1] == 1


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_a_top_is_at_most_half(share: float) -> None:
    with pytest.raises(InputError, match=r"share must be above 0 and at most 0\.5"):
        stable_extremes(np.ones((4, 2)), share=share)


def test_rows_that_no_column_shares() -> None:
    columns = np.array([[1.0, np.nan], [np.nan, 1.0]])
    with pytest.raises(InputError, match="a row with a number in each of them, got none"):
        top_overlap(columns, "ab")
