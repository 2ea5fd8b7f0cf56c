"""Several runs a side: against compare_losses, by hand, and by simulation of trainings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from codeact.errors import InputError
from codeact.evaluation import compare_losses
from codeact.evaluation.comparing.effect_sizes import detectable_difference
from codeact.evaluation.comparing.seeds import compare_runs, seeds_warning


def trainings(
    rng: np.random.Generator, num_runs: int, abilities: NDArray[np.float64], spread: float
) -> NDArray[np.bool_]:
    """Verdicts of runs on tasks; ``spread`` moves all tasks of a run, in logits."""
    moved = abilities + rng.normal(0, spread, size=(num_runs, 1))
    return np.asarray(rng.random(moved.shape) < 1 / (1 + np.exp(-moved)))


def test_is_the_paired_difference_of_mean_rates() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 50)) < 0.7, rng.random((2, 50)) < 0.5
    ours = compare_runs(a, b, num_resamples=999, seed=3)
    by_task = compare_losses(a.mean(axis=0), b.mean(axis=0), num_resamples=999, seed=3)
    assert ours.difference == pytest.approx(a.mean() - b.mean())
    assert (ours.p_value, ours.test) == (by_task.p_value, by_task.test)
    assert ours.run_rates_a == pytest.approx([run.mean() for run in a])
    assert ours.spread_b == pytest.approx(abs(b[0].mean() - b[1].mean()) / math.sqrt(2))
    assert ours.cohens_h == pytest.approx(
        2 * math.asin(math.sqrt(a.mean())) - 2 * math.asin(math.sqrt(b.mean()))
    )


def test_p_value_by_hand() -> None:
    """Differences 1, 1/2, 1/2 over tasks: of 8 sign patterns only two reach |2|."""
    ours = compare_runs([[True, True, False], [True, False, True]], [[False] * 3])
    assert ours.p_value == 2 / 8


def test_interval_of_equal_tasks_is_that_of_the_runs() -> None:
    """Runs that pass all or nothing: tasks add nothing, 2 of 3 drawn runs are binomial thirds."""
    a = np.array([[True], [True], [False]]).repeat(40, axis=1)
    ours = compare_runs(a, np.zeros((1, 40)), confidence=0.9, num_resamples=20_000)
    # P(no pass in 3 draws) = 1/27 < 5 %, P(at most one) = 7/27; P(three) = 8/27.
    assert ours.interval == pytest.approx((1 / 3, 1.0))


def test_one_run_each_is_the_bootstrap_over_tasks() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 1, 378)) < 0.6
    ours, paired = compare_runs(a, b), compare_losses(a[0], b[0])
    np.testing.assert_allclose(ours.interval, paired.interval, atol=0.006)
    deviation = (a[0].astype(float) - b[0]).std() / math.sqrt(378)
    assert ours.detectable == pytest.approx((1.959964 + 0.841621) * deviation, rel=0.03)
    assert math.isnan(ours.spread_a)


@pytest.mark.parametrize(("num_runs", "spread"), [(3, 0.0), (3, 0.15), (5, 0.15)])
def test_coverage_and_false_alarms(num_runs: int, spread: float) -> None:
    """200 pairs of equal methods whose runs differ by up to some two points."""
    covered = alarms = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        abilities = rng.normal(0, 2.5, size=160)
        a, b = (trainings(rng, num_runs, abilities, spread) for _ in "ab")
        ours = compare_runs(a, b, num_resamples=199, seed=trial)
        covered += ours.interval[0] <= 0 <= ours.interval[1]
        alarms += ours.significant
    # Three standard errors of a share of 200 at 95 % are 0.046.
    assert covered / 200 > 0.95 - 0.046
    assert alarms / 200 < 0.05 + 0.046


def test_the_spread_between_runs_widens_the_interval() -> None:
    """Runs that differ by far more than their tasks make the difference uncertain."""
    rng = np.random.default_rng(4)
    abilities = rng.normal(0, 2.5, size=200)
    a, b = (trainings(rng, 4, abilities, 0.8) for _ in "ab")
    ours = compare_runs(a, b)
    of_tasks = compare_losses(a.mean(axis=0), b.mean(axis=0)).interval
    between = math.hypot(ours.spread_a, ours.spread_b) / 2  # of the difference of means of 4
    assert ours.interval[1] - ours.interval[0] > of_tasks[1] - of_tasks[0]
    assert ours.interval[1] - ours.interval[0] > 3 * between


def test_finds_a_real_difference() -> None:
    rng = np.random.default_rng(5)
    abilities = rng.normal(0, 2.5, size=378)
    a, b = trainings(rng, 4, abilities + 1, 0.05), trainings(rng, 4, abilities, 0.05)
    ours = compare_runs(a, b)
    assert ours.significant
    assert ours.interval[0] > 0
    words = ours.verdict("cdas", "random", lower_is_better=False)
    assert words.startswith("cdas is better than random (")
    assert "(4 runs, standard deviation " in words


def test_swapping_sides_flips_the_sign() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.random((2, 3, 80)) < 0.5
    one, other = compare_runs(a, b), compare_runs(b, a)
    assert one.difference == pytest.approx(-other.difference)
    assert one.p_value == other.p_value
    np.testing.assert_allclose(one.interval, (-other.interval[1], -other.interval[0]), atol=0.02)


def test_equal_runs_say_nothing_of_small_differences() -> None:
    same = np.ones((2, 30), dtype=bool)
    ours = compare_runs(same, same)
    assert (ours.difference, ours.interval, ours.p_value) == (0.0, (0.0, 0.0), 1.0)
    assert ours.detectable == pytest.approx(detectable_difference(30, 0), abs=1e-4)


@pytest.mark.parametrize(
    ("num_runs", "words"),
    [
        ((1, 1), "one run each: the spread between trainings is not in this test"),
        ((3, 1), "one run of random: the spread between its trainings is not in this test"),
        ((1, 2), "one run of cdas: the spread between its trainings is not in this test"),
        ((2, 2), ""),
    ],
)
def test_warning(num_runs: tuple[int, int], words: str) -> None:
    assert seeds_warning(*num_runs, "cdas", "random") == words


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([[1, 0]], [[1]], "must have the same tasks, got 2 and 1"),
        ([1, 0], [[1, 0]], r"rates_a must be \(num_runs, num_tasks\), got shape \(2,\)"),
        ([[]], [[]], r"rates_a must be \(num_runs, num_tasks\), got shape \(1, 0\)"),
        ([[1, 0]], [[1, 1.5]], "rates_b must be from 0 to 1, got 1.0 to 1.5"),
        ([[1, math.nan]], [[1, 1]], "rates_a must be from 0 to 1"),
        ([["x"]], [[1]], "rates_a must be one row of rates a run"),
        ([[1, 0], [1]], [[1, 1]], "rates_a must be one row of rates a run"),
    ],
)
def test_refuses(a: list, b: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare_runs(a, b)
