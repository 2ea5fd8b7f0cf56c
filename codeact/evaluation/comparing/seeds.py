"""Comparing two ways of training that were each run several times."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from codeact.errors import InputError
from codeact.evaluation.comparing.comparison import PassComparison
from codeact.evaluation.comparing.effect_sizes import POWER, cohens_h, detectable_difference
from codeact.evaluation.comparing.resampling import (
    Floats,
    check_resampling,
    chunks,
    percentiles,
    sign_flip_test,
)


@dataclass(frozen=True)
class RunsComparison(PassComparison):
    """A difference of mean pass rates of several runs a side.

    Attributes:
        run_rates_a: Pass rate of each run of a.
        run_rates_b: The same of b.
    """

    run_rates_a: tuple[float, ...] = ()
    run_rates_b: tuple[float, ...] = ()

    @property
    def spread_a(self) -> float:
        """Standard deviation between the runs of a (n - 1 below); NaN for one run."""
        return _spread(self.run_rates_a)

    @property
    def spread_b(self) -> float:
        """The same of b."""
        return _spread(self.run_rates_b)

    def _rates(self) -> str:
        sides = ((self.rate_a, self.run_rates_a), (self.rate_b, self.run_rates_b))
        return " against ".join(f"{100 * rate:.1f} %{_runs_words(runs)}" for rate, runs in sides)


def seeds_warning(num_runs_a: int, num_runs_b: int, name_a: str = "a", name_b: str = "b") -> str:
    """What a reader must know of a comparison with one run of a side; empty with several.

    Args:
        num_runs_a: Runs of a, at least 1.
        num_runs_b: Runs of b.
        name_a: What stands for a.
        name_b: What stands for b.
    """
    if num_runs_a == num_runs_b == 1:
        return "one run each: the spread between trainings is not in this test"
    for name, num_runs in ((name_a, num_runs_a), (name_b, num_runs_b)):
        if num_runs == 1:
            return f"one run of {name}: the spread between its trainings is not in this test"
    return ""


def compare_runs(
    rates_a: ArrayLike,
    rates_b: ArrayLike,
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> RunsComparison:
    """Difference in mean pass rate of two sets of runs on the same tasks.

    The rate of a task is the mean over the runs of a side. The p-value is of the sign-flip
    permutation test over tasks, paired by task (:func:`codeact.evaluation.compare_losses`); it
    takes the runs as they are. The interval does not: its bootstrap draws tasks, and draws whole
    runs of either side, as one training moves all tasks at once (the pigeonhole bootstrap of
    Owen, arXiv:0712.1111). A difference is called significant when both say so. Chance in single
    answers is counted more than once, which makes the interval up to 1.7 times as wide as need be
    where trainings hardly differ; n runs drawn from n vary too little, which makes it short where
    two or three trainings differ by far more than their tasks do: on 164 tasks, at the level of
    5 %, equal methods whose runs have a standard deviation of 5 points were told apart in 8 % of
    simulated pairs with two runs a side, in 4 % with three; at 8 points in 19 and 12 %. With one
    run of a side nothing of that side's spread is in it.

    ``detectable`` is ``(z(1 - level / 2) + z(0.8)) * s``, s the standard deviation of the draws;
    where nothing differs it is what McNemar's test would find.

    Args:
        rates_a: (num_runs_a, num_tasks) bool, or shares of a task's answers that pass, in [0, 1].
        rates_b: (num_runs_b, num_tasks); column i of both is the same task.
        confidence: Of the interval, in (0, 1).
        num_resamples: Bootstrap draws, and random sign patterns.
        seed: Of both.

    Raises:
        InputError: No run, no task, different numbers of tasks, or values outside [0, 1].
    """
    check_resampling(confidence, num_resamples)
    a, b = _rates("rates_a", rates_a), _rates("rates_b", rates_b)
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"rates_a and rates_b must have the same tasks, got {a.shape[1]} and {b.shape[1]}"
        )
    bootstrap_rng, flip_rng = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    differences = a.mean(axis=0) - b.mean(axis=0)
    p_value, test = sign_flip_test(differences, num_resamples, flip_rng)
    draws = _draw_tasks_and_runs(a, b, num_resamples, bootstrap_rng)
    rate_a, rate_b = float(a.mean()), float(b.mean())
    return RunsComparison(
        difference=rate_a - rate_b,
        interval=percentiles(draws, confidence),
        p_value=p_value,
        test=test,
        num_pairs=a.shape[1],
        confidence=confidence,
        rate_a=rate_a,
        rate_b=rate_b,
        cohens_h=cohens_h(rate_a, rate_b),
        detectable=_detectable(float(draws.std()), a.shape[1], confidence),
        run_rates_a=tuple(a.mean(axis=1).tolist()),
        run_rates_b=tuple(b.mean(axis=1).tolist()),
    )


def _draw_tasks_and_runs(
    a: Floats, b: Floats, num_resamples: int, rng: np.random.Generator
) -> Floats:
    """Difference of mean rates of each resample: (num_resamples,)."""
    num_tasks = a.shape[1]
    means = []
    for size in chunks(num_resamples, num_tasks):
        drawn = _run_weights(len(a), size, rng) @ a - _run_weights(len(b), size, rng) @ b
        tasks = rng.integers(num_tasks, size=(size, num_tasks))
        means.append(np.take_along_axis(drawn, tasks, axis=1).mean(axis=1))
    return np.concatenate(means)


def _run_weights(num_runs: int, num_draws: int, rng: np.random.Generator) -> Floats:
    """Share of each run in each draw: (num_draws, num_runs)."""
    counts = rng.multinomial(num_runs, np.full(num_runs, 1 / num_runs), size=num_draws)
    return np.asarray(counts / num_runs)


def _detectable(deviation: float, num_tasks: int, confidence: float) -> float:
    if deviation == 0:  # nothing differs, which says as much as one run each would
        return detectable_difference(num_tasks, 0.0, level=1 - confidence)
    from scipy.stats import norm

    return deviation * float(norm.ppf((1 + confidence) / 2) + norm.ppf(POWER))


def _spread(run_rates: tuple[float, ...]) -> float:
    return float(np.std(run_rates, ddof=1)) if len(run_rates) > 1 else math.nan


def _runs_words(run_rates: tuple[float, ...]) -> str:
    if len(run_rates) < 2:
        return " (1 run)"
    return f" ({len(run_rates)} runs, standard deviation {100 * _spread(run_rates):.1f})"


def _rates(name: str, rates: ArrayLike) -> Floats:
    """(num_runs, num_tasks) float64 in [0, 1]."""
    try:
        values = np.asarray(rates, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be one row of rates a run, got: {error}") from None
    if values.ndim != 2 or values.size == 0:
        raise InputError(f"{name} must be (num_runs, num_tasks), got shape {values.shape}")
    if not ((values >= 0) & (values <= 1)).all():  # NaN too
        raise InputError(f"{name} must be from 0 to 1, got {values.min()} to {values.max()}")
    return values
