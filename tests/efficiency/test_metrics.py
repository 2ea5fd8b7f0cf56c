"""NET, NMU and NTMU against arithmetic by hand, their intervals against a plain bootstrap."""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest

from codeact.efficiency.comparing.metrics import Normalised, mean_over_tasks, normalised
from codeact.errors import InputError


def test_three_ways_by_hand():
    # Ratios 2, 0.5 and 8; sums 2 + 50 + 8 over 1 + 100 + 1.
    result = normalised([2.0, 50.0, 8.0], [1.0, 100.0, 1.0], num_resamples=10)
    assert result.ratio_of_sums.value == pytest.approx(60 / 102, rel=1e-12)
    assert result.mean_of_ratios.value == pytest.approx(10.5 / 3, rel=1e-12)
    assert result.geometric_mean.value == pytest.approx(2.0, rel=1e-12)
    assert (result.largest, result.share_above_five) == (8.0, pytest.approx(1 / 3))
    assert result.num_tasks == 3


def test_exchanging_model_and_reference_gives_the_reciprocal_only_in_the_headline():
    x, r = [1.0, 3.0, 20.0], [2.0, 2.0, 5.0]
    there, back = normalised(x, r), normalised(r, x)
    assert there.geometric_mean.value == pytest.approx(1 / back.geometric_mean.value, rel=1e-12)
    # Both means of ratios say that the other one is slower: why they are no headline.
    assert there.mean_of_ratios.value > 1
    mixed = normalised([1.0, 4.0], [2.0, 2.0])
    assert mixed.mean_of_ratios.value == 1.25
    assert normalised([2.0, 2.0], [1.0, 4.0]).mean_of_ratios.value == 1.25


def plain_bootstrap(x: list[float], r: list[float]) -> dict[str, tuple[float, float]]:
    """The same three intervals from Python's own generator and statistics."""
    rng = random.Random(5)
    draws: dict[str, list[float]] = {
        "geometric_mean": [],
        "ratio_of_sums": [],
        "mean_of_ratios": [],
    }
    for _ in range(20_000):
        rows = rng.choices(range(len(x)), k=len(x))
        draws["geometric_mean"].append(statistics.geometric_mean(x[i] / r[i] for i in rows))
        draws["ratio_of_sums"].append(sum(x[i] for i in rows) / sum(r[i] for i in rows))
        draws["mean_of_ratios"].append(statistics.fmean(x[i] / r[i] for i in rows))
    cuts = {name: statistics.quantiles(values, n=40) for name, values in draws.items()}
    return {name: (cut[0], cut[-1]) for name, cut in cuts.items()}


def test_intervals_match_a_plain_bootstrap():
    rng = np.random.default_rng(3)
    r = np.exp(rng.normal(0, 1, size=25))
    x = r * np.exp(rng.normal(0.2, 0.5, size=25))
    result = normalised(x, r, num_resamples=20_000, seed=1)
    for name, (low, high) in plain_bootstrap(x.tolist(), r.tolist()).items():
        estimate = getattr(result, name)
        # Two bootstraps of 20,000 draws differ at a 2.5 % point by about 1 % of the width.
        slack = 0.05 * (high - low)
        assert abs(estimate.low - low) < slack
        assert abs(estimate.high - high) < slack
        assert estimate.low < estimate.value < estimate.high


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(11)
    covered = 0
    for seed in range(200):
        x = np.exp(rng.normal(0.1, 0.4, size=40))
        interval = normalised(x, np.ones(40), num_resamples=400, seed=seed).geometric_mean
        covered += interval.low <= math.exp(0.1) <= interval.high
    # Binomial(200, 0.95) is within 0.90..0.99 but for 1 case in 500; percentiles cover a bit less.
    assert 0.89 <= covered / 200 <= 0.995


def test_seed_decides_and_chunks_do_not(monkeypatch):
    x, r = np.arange(1.0, 31.0), np.sqrt(np.arange(3.0, 33.0))
    first = normalised(x, r, num_resamples=1000, seed=7)
    assert normalised(x, r, num_resamples=1000, seed=7) == first
    assert normalised(x, r, num_resamples=1000, seed=8) != first
    monkeypatch.setattr("codeact.efficiency.comparing.metrics._CHUNK", 30 * 300)
    assert normalised(x, r, num_resamples=1000, seed=7) == first


def test_one_task_has_an_interval_of_no_width():
    result = normalised([3.0], [2.0])
    assert isinstance(result, Normalised)
    estimate = result.geometric_mean
    assert (estimate.low, estimate.high) == (pytest.approx(1.5), pytest.approx(1.5))


def test_mean_over_tasks():
    result = mean_over_tasks([0.0, 1.0, 1.0, 0.5], num_resamples=5000)
    assert result.value == 0.625
    assert 0.1 < result.low < 0.4
    assert 0.8 < result.high <= 1


@pytest.mark.parametrize(
    ("values", "references", "said"),
    [
        ([1.0], [1.0, 2.0], "of one length, got 1 and 2"),
        ([], [], "values must be one row of numbers"),
        ([1.0, 0.0], [1.0, 1.0], "values must be above 0, got 1 of 2"),
        ([1.0, 1.0], [1.0, float("nan")], "references must be finite, got 1 of 2"),
        (["fast"], [1.0], "values must be numbers"),
    ],
)
def test_bad_input_is_named(values, references, said):
    with pytest.raises(InputError, match=said):
        normalised(values, references)


def test_bad_options_are_named():
    with pytest.raises(InputError, match="confidence"):
        normalised([1.0], [1.0], confidence=1.0)
    with pytest.raises(InputError, match="num_resamples"):
        mean_over_tasks([1.0], num_resamples=0)
