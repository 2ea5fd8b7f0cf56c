"""Spearman's rho: against scipy, a published interval, gaps and constants."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from codeact.errors import InputError
from codeact.evaluation import spearman


def test_rho_is_scipys_with_ties() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 8, size=(2, 100))
    assert spearman(a, b).rho == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


def test_interval_of_a_published_example() -> None:
    """The worked example of ``ci.spear`` in Bonett's R package statpsych."""
    y = [21, 4, 9, 12, 35, 18, 10, 22, 24, 1, 6, 8, 13, 16, 19]
    x = [67, 28, 30, 28, 52, 40, 25, 37, 44, 10, 14, 20, 28, 40, 51]
    ours = spearman(x, y)
    assert ours.rho == pytest.approx(0.8699639, abs=1e-7)
    assert ours.interval == pytest.approx((0.5840951, 0.9638297), abs=1e-6)


def test_gaps_are_left_out_and_counted() -> None:
    full = spearman([1.0, 2, 3, 4, 5], [1.0, 3, 2, 5, 4])
    gaps = spearman([1.0, 2, None, 3, 4, 5, 9], [1.0, 3, 7, 2, 5, 4, math.nan])
    assert gaps.rho == full.rho
    assert gaps.interval == full.interval
    assert (gaps.num_pairs, gaps.num_ignored) == (5, 2)


@pytest.mark.parametrize(
    ("a", "b"), [([], []), ([1.0], [2.0]), ([1.0, 1, 1, 1], [1.0, 2, 3, 4]), ([None], [1.0])]
)
def test_undefined_is_nan_with_an_interval_that_says_nothing(a: list, b: list) -> None:
    ours = spearman(a, b)
    assert math.isnan(ours.rho)
    assert ours.interval == (-1.0, 1.0)


def test_perfect_order() -> None:
    assert spearman(range(10), range(10)).interval == (1.0, 1.0)
    assert spearman(range(10), range(0, -10, -1)).rho == -1.0
    assert spearman([1, 2, 3], [1, 2, 3]).interval == (-1.0, 1.0)


def test_coverage() -> None:
    """500 samples of 40 from a normal with rho_s = 6/pi asin(0.4): 95 % of intervals hold it."""
    rng = np.random.default_rng(1)
    truth = 6 / math.pi * math.asin(0.4)
    held = 0
    for _ in range(500):
        x, noise = rng.normal(size=(2, 40))
        low, high = spearman(x, 0.8 * x + 0.6 * noise).interval
        held += low <= truth <= high
    assert abs(held / 500 - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 500)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1, 2], [1], r"of one length, got \(2,\) and \(1,\)"),
        ([[1, 2]], [[1, 2]], "must be 1-D"),
        (["x"], [1], "must be numbers"),
    ],
)
def test_refuses(a: list, b: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        spearman(a, b)
