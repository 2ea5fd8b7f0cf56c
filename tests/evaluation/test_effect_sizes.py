"""Effect sizes, Holm's correction and power: against statsmodels, by hand and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from codeact.errors import InputError
from codeact.evaluation import compare
from codeact.evaluation.comparing.effect_sizes import (
    cohens_h,
    detectable_difference,
    discordant_pairs,
    holm,
)


def test_cohens_h_is_statsmodels() -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    for a, b in ((0.0, 1.0), (0.62, 0.74), (0.5, 0.5), (0.9, 0.1)):
        expected = proportion.proportion_effectsize(a, b)
        assert cohens_h(a, b) == pytest.approx(expected, abs=1e-12)


def test_odds_ratio_and_its_exact_interval() -> None:
    """61 against 16: the limits solve P(X >= 16) and P(X <= 16) = 2.5 % (Clopper & Pearson)."""
    ours = discordant_pairs(16, 61)
    assert ours.odds_ratio == pytest.approx(16 / 61)
    assert ours.cohens_g == pytest.approx(16 / 77 - 0.5)
    low, high = (odds / (1 + odds) for odds in ours.odds_ratio_interval)
    assert stats.binom.sf(15, 77, low) == pytest.approx(0.025, rel=1e-6)
    assert stats.binom.cdf(16, 77, high) == pytest.approx(0.025, rel=1e-6)


def test_interval_and_test_agree() -> None:
    """The exact interval leaves out 1 where exact McNemar rejects, for all small tables."""
    for only_a in range(12):
        for only_b in range(12):
            low, high = discordant_pairs(only_a, only_b).odds_ratio_interval
            p_value = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
            assert (p_value < 0.05) == (not low <= 1 <= high), (only_a, only_b)


def test_tables_without_one_side() -> None:
    none = discordant_pairs(0, 0)
    assert math.isnan(none.odds_ratio)
    assert math.isnan(none.cohens_g)
    assert none.odds_ratio_interval == (0.0, math.inf)
    five = discordant_pairs(5, 0)
    assert five.odds_ratio == math.inf
    assert five.odds_ratio_interval[1] == math.inf
    share = 0.025 ** (1 / 5)
    assert five.odds_ratio_interval[0] == pytest.approx(share / (1 - share))
    assert five.cohens_g == 0.5


def test_holm_is_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(0)
    for size in (1, 2, 4, 9):
        p_values = np.round(rng.random(size) ** 3, 2)  # ties too
        expected = multitest.multipletests(p_values, method="holm")[1]
        np.testing.assert_allclose(holm(p_values.tolist()), expected, atol=1e-12)


def test_holm_by_hand() -> None:
    """0.01 * 3; 0.02 * 2 = 0.04; 0.03 * 1 is raised to the one before it."""
    np.testing.assert_allclose(holm([0.03, 0.01, 0.02]), (0.04, 0.03, 0.04))


@pytest.mark.parametrize(("num_pairs", "share"), [(60, 0.0), (164, 0.11), (164, 0.3)])
def test_detectable_difference_is_found_in_four_of_five(num_pairs: int, share: float) -> None:
    """3,000 pairs of models that truly differ by it; the p-values are scipy's."""
    difference = detectable_difference(num_pairs, share)
    share = max(share, difference)
    rng = np.random.default_rng(1)
    chances = [(share + difference) / 2, (share - difference) / 2, 1 - share]
    tables = rng.multinomial(num_pairs, chances, size=3000)
    smaller, discordant = tables[:, :2].min(axis=1), tables[:, :2].sum(axis=1)
    p_values = np.minimum(1, 2 * stats.binom.cdf(smaller, discordant, 0.5))
    # Three standard errors of a share of 3,000 at 80 %.
    assert abs(float((p_values < 0.05).mean()) - 0.8) < 0.022


def test_too_few_tasks_detect_nothing() -> None:
    """Five against none has p = 2 / 32; six against none 2 / 64, found if nearly all are."""
    assert math.isnan(detectable_difference(5, 0.2))
    assert detectable_difference(6, 0.2) == pytest.approx(0.8 ** (1 / 6), abs=2e-5)


def test_comparison_carries_them() -> None:
    a = np.array([True] * 20 + [False] * 10 + [True] * 70)
    b = np.array([False] * 20 + [True] * 10 + [True] * 70)
    ours = compare(a, b, num_resamples=50)
    assert ours.discordant == discordant_pairs(20, 10)
    assert (ours.rate_a, ours.rate_b) == (0.9, 0.8)
    assert ours.cohens_h == pytest.approx(cohens_h(0.9, 0.8))
    assert ours.detectable == pytest.approx(detectable_difference(100, 0.3), abs=1e-4)
    assert f"below {100 * ours.detectable:.1f} points would be missed" in ours.power_words()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cohens_h(1.1, 0), "share_a must be from 0 to 1, got 1.1"),
        (lambda: cohens_h(0, math.nan), "share_b must be from 0 to 1, got nan"),
        (lambda: discordant_pairs(-1, 0), "at least 0, got -1 and 0"),
        (lambda: discordant_pairs(1, 0, confidence=1), "confidence must be above 0"),
        (lambda: detectable_difference(0, 0.1), "num_pairs must be at least 1, got 0"),
        (lambda: detectable_difference(9, -0.1), "discordant_share must be from 0 to 1"),
        (lambda: detectable_difference(9, 0.1, level=0), "level must be above 0"),
    ],
)
def test_refuses(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]
