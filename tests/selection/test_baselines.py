"""The random baselines: counts, profile, fairness of the draw, pools that run short."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from codeact.errors import InputError
from codeact.selection import LengthMatchedRandom, RandomSelection, StratifiedRandom, TokenBudget
from codeact.selection.length_bands import ks_distance


def test_random_selection_is_a_seeded_subset() -> None:
    one = RandomSelection(0.4, seed=3).fit(50)
    same = RandomSelection(0.4, seed=3).fit(list(range(50)))
    other = RandomSelection(0.4, seed=4).fit(50)
    assert one.selected_.dtype == np.int64
    assert len(set(one.selected_.tolist())) == one.report_.num_kept == 20
    assert (one.selected_ == same.selected_).all()
    assert one.selected_.tolist() != other.selected_.tolist()


def test_a_smaller_random_selection_is_the_beginning_of_a_larger_one() -> None:
    few, many = RandomSelection(5).fit(50), RandomSelection(20).fit(50)
    assert many.selected_[:5].tolist() == few.selected_.tolist()
    assert many.ranks_[many.selected_].tolist() == list(range(20))
    assert sorted(many.ranks_) == list(range(50))


def test_random_selection_is_uniform() -> None:
    times, pairs = np.zeros(20), np.zeros((20, 20))
    for seed in range(600):
        kept = RandomSelection(5, seed=seed).fit(20).selected_
        times[kept] += 1
        pairs[np.ix_(kept, kept)] += 1
    # Standard errors of the shares are 0.0177 and 0.0091; the most extreme of 20 and of 190.
    assert np.abs(times / 600 - 5 / 20).max() < 4.5 * 0.0177
    together = pairs[np.triu_indices(20, 1)] / 600
    assert np.abs(together - (5 * 4) / (20 * 19)).max() < 4.5 * 0.0091


def test_random_selection_from_a_pool() -> None:
    eligible = np.arange(30) % 3 == 0
    drawn = RandomSelection(10).fit(30, eligible=eligible)
    assert sorted(drawn.selected_) == list(range(0, 30, 3))
    assert drawn.reasons_[1] == "dropped: not eligible"
    with pytest.raises(InputError, match="only 10 are eligible, 1 too few: 20 rows are not in"):
        RandomSelection(11).fit(30, eligible=eligible)


def test_stratified_shares() -> None:
    strata = ["python"] * 60 + ["rust"] * 30 + [None] * 10
    drawn = StratifiedRandom(20).fit(strata)
    assert [(s.stratum, s.size, s.kept) for s in drawn.report_.strata] == [
        ("none", 10, 2),
        ("python", 60, 12),
        ("rust", 30, 6),
    ]
    assert [strata[row] for row in drawn.selected_] == [None] * 2 + ["python"] * 12 + ["rust"] * 6
    equal = StratifiedRandom(33, quotas="equal").fit(strata)
    assert [s.kept for s in equal.report_.strata] == [10, 12, 11]  # all of "none", then halves
    assert "in rust" in drawn.reasons_[70]


def test_stratified_draw_is_uniform_within_a_stratum() -> None:
    strata, times = [0] * 12 + [1] * 8, np.zeros(20)
    for seed in range(600):
        times[StratifiedRandom(5, seed=seed).fit(strata).selected_] += 1
    assert np.abs(times / 600 - 0.25).max() < 4.5 * 0.0177


@pytest.mark.parametrize("strata", ["python", [], [["a"], ["b"]]])
def test_stratified_refuses(strata: object) -> None:
    with pytest.raises(InputError, match="strata must be one name an example"):
        StratifiedRandom().fit(strata)  # type: ignore[arg-type]


def test_random_selection_refuses_more_than_there_is() -> None:
    with pytest.raises(InputError, match="count from 1 to 5"):
        RandomSelection(6).fit(5)


@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=80),
    seed=st.integers(0, 100),
    data=st.data(),
)
def test_length_profile(lengths: list[int], seed: int, data: st.DataObject) -> None:
    values = np.array(lengths)
    every = st.sets(st.integers(0, len(lengths) - 1), min_size=1)
    reference = np.array(sorted(data.draw(every)))
    matched = LengthMatchedRandom(seed=seed, num_strata=5).fit(values, reference)
    chosen, report = matched.selected_, matched.report_
    assert len(set(chosen.tolist())) == len(chosen) == len(reference)
    assert report.num_borrowed == 0  # the reference itself fills every band
    assert report.overlap == len(set(chosen.tolist()) & set(reference.tolist()))
    gaps = [abs((values[chosen] <= v).mean() - (values[reference] <= v).mean()) for v in values]
    assert report.ks_distance == pytest.approx(max(gaps))
    assert values[chosen].min() >= values[reference].min()
    assert values[chosen].max() <= values[reference].max()
    # A band holds at most a fifth of the reference, rounded up, or a single length.
    biggest_tie = np.unique(values[reference], return_counts=True)[1].max()
    assert report.ks_distance <= (len(reference) / 5 + 1 + biggest_tie) / len(reference)


def test_draw_is_uniform_within_a_length() -> None:
    """All lengths equal: each of 20 rows is drawn with probability 1/4, reference or not."""
    lengths, reference = np.full(20, 7), np.arange(5)
    times = np.zeros(20)
    for seed in range(400):
        times[LengthMatchedRandom(seed=seed).fit(lengths, reference).selected_] += 1
    # Standard error of a share is 0.0217; 4.5 of them over 20 rows.
    assert np.abs(times / 400 - 0.25).max() < 4.5 * 0.0217
    report = LengthMatchedRandom().fit(lengths, reference).report_
    assert report.expected_overlap == pytest.approx(5 * 5 / 20)


def test_overlap_is_total_when_the_reference_holds_all_long_rows() -> None:
    lengths = np.array([1, 1, 1, 90, 95, 99])
    report = LengthMatchedRandom().fit(lengths, [3, 4, 5]).report_
    assert report.overlap == report.expected_overlap == 3


def test_a_short_band_borrows_the_nearest_lengths() -> None:
    lengths = np.array([10, 50, 52, 11, 40, 59, 300, 1])
    eligible = np.array([False, False, False, True, True, True, True, True])
    matched = LengthMatchedRandom(num_strata=1).fit(lengths, [0, 1, 2], eligible)
    # In [10, 52]: 11 and 40. The third is 59 (7 above), not 300 and not 1 (9 below).
    assert sorted(matched.selected_) == [3, 4, 5]
    assert matched.report_.num_borrowed == 1
    assert matched.report_.num_eligible == 5
    assert matched.report_.overlap == 0
    assert matched.reasons_[5] == "kept: length 59 is nearest to a band that ran out"
    assert matched.reasons_[6] == "dropped: length 300 is outside the reference's"
    assert matched.reasons_[0] == "dropped: not eligible"


def test_a_budget_scales_the_profile() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 1000, size=2000)
    reference = np.flatnonzero(lengths > 500)[:300]
    for budget in (100, 0.25):
        matched = LengthMatchedRandom(budget=budget).fit(lengths, reference)
        assert (
            matched.report_.num_kept == matched.report_.num_asked == (100 if budget == 100 else 500)
        )
        assert matched.report_.ks_distance < 0.05


def test_a_budget_in_tokens_keeps_the_profile() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 1000, size=2000)
    reference = np.flatnonzero(lengths > 500)[:300]
    matched = LengthMatchedRandom(budget=TokenBudget(60_000))
    matched.fit(lengths, reference, num_tokens=lengths)
    kept = lengths[matched.selected_]
    assert 60_000 - lengths[reference].min() < kept.sum() <= 60_000
    assert kept.min() >= lengths[reference].min()  # no short rows in the last gap
    assert matched.report_.ks_distance < 0.05


def test_a_budget_in_tokens_beyond_the_profile_takes_other_lengths() -> None:
    lengths = np.array([5, 6, 7, 50, 60, 70])
    reference = np.array([3, 4])
    matched = LengthMatchedRandom(budget=TokenBudget(125))
    kept = matched.fit(lengths, reference, num_tokens=lengths).selected_
    assert {3, 4} < set(kept.tolist())
    assert 110 < lengths[kept].sum() <= 125
    short = LengthMatchedRandom(budget=TokenBudget(6)).fit(lengths, reference, num_tokens=lengths)
    assert lengths[short.selected_].tolist() in ([5], [6])


def test_is_seeded_and_clonable() -> None:
    lengths = np.arange(100)
    one = LengthMatchedRandom(seed=1, num_strata=3)
    chosen = one.fit(lengths, np.arange(50, 80)).selected_
    assert (clone(one).fit(lengths, np.arange(50, 80)).selected_ == chosen).all()
    assert one.get_params() == {"budget": None, "num_strata": 3, "seed": 1}


def test_ks_distance_of_disjoint_samples_is_one() -> None:
    assert ks_distance(np.array([1.0, 2.0]), np.array([3.0])) == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [0]), "lengths must be one number an example"),
        (([1.0, np.nan], [0]), "lengths must be finite, got NaN or infinity in 1 rows"),
        (([1, 2], []), "reference_indices must be at least one row index"),
        (([1, 2], [2]), "distinct and from 0 to 1, got 1 \\(1 distinct\\) from 2 to 2"),
        (([1, 2], [0, 0]), "got 2 \\(1 distinct\\)"),
        (([1, 2], [0], [True]), "eligible must be 2 booleans"),
        (([1, 2], [0], [0, 1]), "eligible must be 2 booleans"),
        (([1, 2], [0, 1], [True, False]), "at least the 2 rows to draw, got 1"),
    ],
)
def test_refuses(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LengthMatchedRandom().fit(*arguments)


def test_few_reference_rows_are_not_drawn_again() -> None:
    """Bands of one row each would draw the reference itself wherever lengths hardly repeat."""
    lengths = np.arange(100, 148)
    shared = [
        LengthMatchedRandom(seed).fit(lengths, np.arange(0, 48, 4)).report_ for seed in range(40)
    ]
    assert all(report.num_strata == 2 for report in shared)
    # Two bands of 24 rows, 6 drawn from each: 12 * 12 / 48 = 3 on average.
    assert abs(np.mean([report.overlap for report in shared]) - 3) < 1
