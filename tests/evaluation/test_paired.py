"""Paired comparisons: against scipy, on cases done by hand, and by simulation."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from codeact.errors import InputError
from codeact.evaluation import Comparison, compare, compare_losses
from codeact.evaluation.comparing import resampling


def test_mcnemar_is_the_binomial_test_on_discordant_pairs() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.random((2, 60)) < np.array([[0.7], [0.5]])
        expected = stats.binomtest(int((a & ~b).sum()), int((a ^ b).sum()), 0.5).pvalue
        ours = compare(a, b, num_resamples=50)
        assert ours.p_value == pytest.approx(expected, rel=1e-9)
        assert ours.difference == pytest.approx(a.mean() - b.mean())


def tables() -> list[tuple[int, int, int]]:
    """200 random counts of tasks that only a, only b, or both solve."""
    return [tuple(row) for row in np.random.default_rng(7).integers(0, 80, size=(200, 3)).tolist()]


def test_p_values_are_statsmodels_and_scipys() -> None:
    """To 1e-9, over tables with many, few and no discordant pairs."""
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    for only_a, only_b, both in [*tables(), (0, 0, 9), (1, 0, 0), (700, 3, 40)]:
        a = [True] * only_a + [False] * only_b + [True] * both + [False]
        b = [False] * only_a + [True] * only_b + [True] * both + [False]
        ours = compare(a, b, num_resamples=1).p_value
        table = [[both, only_a], [only_b, 1]]
        assert ours == pytest.approx(contingency.mcnemar(table, exact=True).pvalue, abs=1e-9)
        if only_a + only_b:
            binomial = stats.binomtest(only_a, only_a + only_b).pvalue
            assert ours == pytest.approx(binomial, rel=1e-9)


def test_p_values_of_published_verdicts(data_folder: Path) -> None:
    """Columns of StarCoder2's file: base against plus, and EvalPlus 0.3.1 against 0.1."""
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    file = data_folder / "eval" / "starcoder2_15b_instruct_humaneval.jsonl.gz"
    with gzip.open(file, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    for name_a, name_b in (
        ("base_status", "plus_status"),
        ("published_base_status", "published_plus_status"),
        ("plus_status", "published_plus_status"),
    ):
        a = np.array([row[name_a] == "pass" for row in rows])
        b = np.array([row[name_b] == "pass" for row in rows])
        table = [[(x & y).sum() for y in (b, ~b)] for x in (a, ~a)]
        expected = contingency.mcnemar(table, exact=True).pvalue
        assert compare(a, b, num_resamples=1).p_value == pytest.approx(expected, abs=1e-9)
    # 14 of the 119 that pass the base tests fail EvalPlus's, none the other way round.
    base, plus = ([row[f"{name}_status"] == "pass" for row in rows] for name in ("base", "plus"))
    assert compare(base, plus).p_value == pytest.approx(2 * 0.5**14)


def test_verdicts_bootstrap_is_the_bootstrap_of_pairs() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 164)) < np.array([[0.67], [0.6]])
    expected = stats.bootstrap(
        (a.astype(float) - b,), np.mean, method="percentile", n_resamples=20_000, rng=rng
    ).confidence_interval
    # One task is 0.006; the ends of two bootstraps differ by little more.
    np.testing.assert_allclose(compare(a, b, num_resamples=20_000).interval, expected, atol=0.0125)


def test_equal_verdicts() -> None:
    ours = compare([True, False, True], [True, False, True])
    assert (ours.difference, ours.interval, ours.p_value) == (0.0, (0.0, 0.0), 1.0)
    assert not ours.significant


def test_five_against_none_is_two_sided() -> None:
    assert compare([True] * 5, [False] * 5).p_value == 2 / 32


def test_loss_p_value_by_hand() -> None:
    """Differences 1, 2, 3: of 8 sign patterns two reach |6|, and weights change the sums."""
    assert compare_losses([1.0, 2, 3], [0, 0, 0]).p_value == 2 / 8
    # 1, 2, -3 sums to 0: every pattern is as extreme.
    assert compare_losses([1.0, 2, 0], [0, 0, 3]).p_value == 1
    # Weighted: 1, 4, -3 sums to 2; |sums| are 8, 2, 0, 6, each twice: 6 of 8.
    weighted = compare_losses([1.0, 2, 0], [0, 0, 3], weights=[1, 2, 1])
    assert weighted.p_value == 6 / 8
    assert weighted.difference == 2 / 4


def test_ties_from_rounding_count() -> None:
    """0.1 + 0.2 and 0.3 differ in the last bit; the sums 0.6 and 0 must still be told as ties."""
    ours = compare_losses([0.1, 0.2, 0.0], [0.0, 0.0, 0.3])
    assert ours.p_value == 1.0


def test_exact_test_is_scipys() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 12))
    expected = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    ours = compare_losses(a, b)
    assert ours.p_value == pytest.approx(expected)
    assert ours.test == "exact sign-flip permutation test"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_random_signs_estimate_the_exact_p_value(seed: int) -> None:
    differences = np.random.default_rng(seed).normal(0.3, 1, size=12)
    exact = resampling._exact_sign_flip(differences)
    drawn = resampling._random_sign_flip(differences, 4000, np.random.default_rng([seed, 7]))
    assert abs(drawn - exact) < 5 * math.sqrt(exact * (1 - exact) / 4000) + 1 / 4000


def test_random_p_value_is_never_zero() -> None:
    ours = compare_losses(np.ones(100), np.zeros(100), num_resamples=199)
    assert ours.p_value == 1 / 200
    assert ours.test == "sign-flip permutation test (199 draws)"


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_interval_is_the_bootstrap_of_pairs(weighted: bool) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.gamma(2, size=(2, 80))
    w = rng.integers(1, 200, 80).astype(float) if weighted else np.ones(80)
    expected = stats.bootstrap(
        (a, b, w),
        lambda x, y, v, axis: (v * (x - y)).sum(axis) / v.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=10_000,
        rng=rng,
    ).confidence_interval
    ours = compare_losses(a, b, weights=w)
    assert ours.difference == pytest.approx(np.average(a - b, weights=w))
    np.testing.assert_allclose(ours.interval, expected, atol=0.03)


def test_seed_decides_and_chunks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = np.random.default_rng(4).normal(size=(2, 50))
    whole = compare_losses(a, b, num_resamples=500, seed=1)
    assert compare_losses(a, b, num_resamples=500, seed=1) == whole
    assert compare_losses(a, b, num_resamples=500, seed=2).interval != whole.interval
    monkeypatch.setattr(resampling, "_CHUNK", 50 * 16)
    assert compare_losses(a, b, num_resamples=500, seed=1).interval == whole.interval


def test_swapping_sides_flips_the_sign() -> None:
    a, b = np.random.default_rng(5).normal(size=(2, 40))
    one, other = compare_losses(a, b), compare_losses(b, a)
    assert one.difference == -other.difference
    assert one.p_value == other.p_value
    np.testing.assert_allclose(one.interval, (-other.interval[1], -other.interval[0]))


@pytest.mark.parametrize("num_pairs", [12, 30])
def test_size_and_coverage(num_pairs: int) -> None:
    """400 sets of equal models: the test rejects 5 % of them, the interval holds the truth."""
    rng = np.random.default_rng(num_pairs)
    results = [
        compare_losses(*rng.exponential(size=(2, num_pairs)), num_resamples=399, seed=trial)
        for trial in range(400)
    ]
    rejected = np.mean([result.p_value <= 0.05 for result in results])
    covered = np.mean([result.interval[0] <= 0 <= result.interval[1] for result in results])
    # Three standard errors of a share of 400 at 5 % are 0.033; the test is discrete, so below too.
    assert abs(rejected - 0.05) < 0.033
    # The percentile interval of 12 pairs is known to be short: about 91 % instead of 95 %.
    assert covered > (0.95 if num_pairs == 30 else 0.91) - 0.045


def test_power_on_a_real_difference() -> None:
    rng = np.random.default_rng(6)
    base = rng.gamma(2, size=200)
    ours = compare_losses(base - 0.05 + 0.1 * rng.normal(size=200), base)
    assert ours.significant
    assert ours.interval[0] < -0.05 < ours.interval[1]


@pytest.mark.parametrize(
    ("difference", "lower_is_better", "words"),
    [(-0.02, True, "better"), (0.02, True, "worse"), (0.02, False, "better")],
)
def test_verdict_names_the_better(difference: float, lower_is_better: bool, words: str) -> None:
    interval = (difference - 0.01, difference + 0.01)
    ours = Comparison(difference, interval, 0.001, "exact McNemar test", 164, 0.95)
    text = ours.verdict("cdas", "random", lower_is_better)
    assert text.startswith(f"cdas is {words} than random (difference {difference:+.4g}, 95 %")
    assert text.endswith("p = 0.001, 164 pairs, exact McNemar test)")


@pytest.mark.parametrize(
    ("interval", "p_value"),
    [((-0.01, 0.05), 0.01), ((0.0, 0.05), 0.01), ((0.01, 0.05), 0.2), ((0.01, 0.05), 0.05)],
    ids=["interval holds 0", "interval ends at 0", "p above", "p at the level"],
)
def test_verdict_says_no_difference(interval: tuple[float, float], p_value: float) -> None:
    ours = Comparison(0.02, interval, p_value, "t", 50, 0.95)
    text = ours.verdict("cdas", "random", lower_is_better=True)
    assert text.startswith("no significant difference between cdas and random (difference +0.02")


NAN = float("nan")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare([], []), "must hold at least 1 pair, got 0"),
        (lambda: compare([True], [True, False]), "of one length, got 1 and 2"),
        (lambda: compare([1, 0], [True, False]), "verdicts_a must be one boolean a task, got int"),
        (lambda: compare([True, False], [True, None]), "verdicts_b must be .* got object"),
        (lambda: compare([True], [True], confidence=1.0), "confidence must be above 0"),
        (lambda: compare([True], [True], num_resamples=0), "num_resamples must be at least 1"),
        (lambda: compare_losses([], []), "must hold at least 1 pair"),
        (lambda: compare_losses([1.0], [1.0, 2.0]), "of one length, got 1 and 2"),
        (lambda: compare_losses([1.0, NAN, None], [1, 2, 3]), "losses_a .* in 2 of 3"),
        (lambda: compare_losses([1.0], ["x"]), "losses_b must be numbers"),
        (lambda: compare_losses([[1.0]], [[1.0]]), r"got shape \(1, 1\)"),
        (lambda: compare_losses([1.0, 2], [1, 2], weights=[1]), "weights must hold 2 numbers"),
        (lambda: compare_losses([1.0, 2], [1, 2], weights=[1, 0]), "above 0, got 1 that are not"),
        (lambda: compare_losses([1.0], [1], weights=[NAN]), "weights must be finite"),
    ],
)
def test_refuses(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]
