"""pass@k against its definition, and its interval against the exact and the plain bootstrap."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from codeact.errors import InputError
from codeact.evaluation.comparing.pass_at_k import mean_pass_at_k, pass_at_k


@pytest.mark.parametrize("num_samples", [1, 2, 7])
def test_is_the_share_of_choices_with_a_pass(num_samples: int) -> None:
    """Counted over every choice of k of n answers of which the first c pass."""
    for num_passed in range(num_samples + 1):
        for k in range(1, num_samples + 1):
            chosen = [min(each) < num_passed for each in combinations(range(num_samples), k)]
            expected = sum(chosen) / len(chosen)
            assert pass_at_k(num_samples, num_passed, k) == pytest.approx(expected, abs=1e-12)


def test_exact_where_binomials_overflow() -> None:
    """C(10,000, 5,000) has 3,009 digits; Python's integers still give the truth."""
    for n, c, k in ((10_000, 1, 5_000), (10_000, 3, 17), (2_000, 2, 1)):
        wrong, all_choices = math.comb(n - c, k), math.comb(n, k)
        expected = (all_choices - wrong) / all_choices
        assert pass_at_k(n, c, k) == pytest.approx(expected, rel=1e-9)


def test_is_unbiased() -> None:
    """Mean over binomial counts of 12 answers equals 1 - (1 - p)**k."""
    chances = stats.binom.pmf(np.arange(13), 12, 0.3)
    for k in (1, 4, 12):
        mean = sum(chance * pass_at_k(12, c, k) for c, chance in enumerate(chances))
        assert mean == pytest.approx(1 - 0.7**k, abs=1e-12)


def test_mean_over_tasks_counts_what_is_missing_as_failed() -> None:
    verdicts = {"a": [True, False, False, True], "b": [False] * 4, "c": [True]}  # c lost three
    one = mean_pass_at_k(verdicts, 2, num_resamples=50)
    by_hand = ((1 - 1 / 6) + 0 + (1 - 3 / 6)) / 3  # C(2,2)/C(4,2), none passes, C(3,2)/C(4,2)
    assert one.value == pytest.approx(by_hand, abs=1e-12)
    assert (one.k, one.num_tasks, one.num_samples) == (2, 3, 4)
    assert mean_pass_at_k(verdicts, 1, num_resamples=50).value == pytest.approx(3 / 12)


def test_interval_is_the_bootstrap_over_tasks() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.random((164, 10)) < rng.beta(1, 1, size=(164, 1))
    ours = mean_pass_at_k({str(task): row.tolist() for task, row in enumerate(drawn)}, 1)
    expected = stats.bootstrap(
        (drawn.mean(axis=1),), np.mean, method="percentile", n_resamples=10_000, rng=rng
    ).confidence_interval
    # The ends of two bootstraps of 10,000 draws differ by about 2 % of the interval's length.
    np.testing.assert_allclose(ours.interval, expected, atol=0.005)
    assert ours.value == pytest.approx(drawn.mean())


@pytest.mark.parametrize("passed", [False, True])
def test_interval_of_all_or_none_is_exact(passed: bool) -> None:
    """Resamples of equal tasks are all equal; 0 of 20 still leaves 1 - 0.025**(1/20) open."""
    ours = mean_pass_at_k({str(task): [passed] for task in range(20)}, 1)
    reach = 1 - 0.025 ** (1 / 20)
    expected = (1 - reach, 1.0) if passed else (0.0, reach)
    np.testing.assert_allclose(ours.interval, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 1), "num_samples must be at least 1, got 0"),
        ((3, 4, 1), "num_passed must be from 0 to 3, got 4"),
        ((3, -1, 1), "num_passed must be from 0 to 3, got -1"),
        ((3, 1, 4), "k must be from 1 to num_samples = 3, got 4"),
        ((3, 1, 0), "k must be from 1 to num_samples = 3, got 0"),
    ],
)
def test_refuses(arguments: tuple[int, int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pass_at_k(*arguments)


def test_refuses_no_tasks_and_k_above_the_answers() -> None:
    with pytest.raises(InputError, match="at least 1 task, got 0"):
        mean_pass_at_k({}, 1)
    with pytest.raises(InputError, match="k must be from 1 to num_samples = 1, got 10"):
        mean_pass_at_k({"a": [True]}, 10)
    with pytest.raises(InputError, match="confidence must be above 0"):
        mean_pass_at_k({"a": [True]}, 1, confidence=0)
