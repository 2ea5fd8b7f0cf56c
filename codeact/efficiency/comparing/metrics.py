"""Time, memory and their integral beside a reference: means, and NET, NMU, NTMU three ways.

ET is net CPU seconds per call, MU the peak memory in bytes, TMU the integral of memory over CPU
time in byte-seconds (EffiBench, arXiv:2402.02037; EffiCoder, arXiv:2410.10209, where both times
are wall time). NET, NMU and NTMU set a model's value against the reference solution's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError

Floats = NDArray[np.float64]

# Numbers held at a time by the resampling loop: 2**21 float64 is 16 MiB.
_CHUNK = 2**21
# EffiBench reports the share of answers that need more than five times the reference.
_MUCH_WORSE = 5.0


@dataclass(frozen=True)
class Estimate:
    """A value over tasks and its percentile bootstrap interval (tasks resampled)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Normalised:
    """One metric relative to a reference over tasks; below 1 is better than the reference.

    With x_i of the model and r_i of the reference on task i:

    Attributes:
        geometric_mean: exp(mean_i log(x_i / r_i)), the headline: exchanging model and reference
            gives the reciprocal, and no task counts for more than another.
        ratio_of_sums: sum_i x_i / sum_i r_i, as EffiBench's script computes it: tasks that run
            long decide it.
        mean_of_ratios: mean_i(x_i / r_i), as EffiCoder's script and EffiBench's paper have it:
            few tasks with large ratios decide it.
        largest: The largest x_i / r_i.
        share_above_five: Share of tasks with x_i / r_i > 5.
        num_tasks: Tasks counted.
        confidence: Of the three intervals.
    """

    geometric_mean: Estimate
    ratio_of_sums: Estimate
    mean_of_ratios: Estimate
    largest: float
    share_above_five: float
    num_tasks: int
    confidence: float


def normalised(
    values: ArrayLike,
    references: ArrayLike,
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Normalised:
    """A metric relative to the reference's, as a geometric mean and as the two papers have it.

    The intervals are percentile bootstraps over tasks (Efron & Tibshirani 1993, chapter 13), the
    three of them from the same resamples. One task gives an interval of width 0: there is nothing
    to resample.

    Args:
        values: (num_tasks,) above 0.
        references: (num_tasks,) above 0; entry i of both is the same task.
        confidence: Of the intervals, in (0, 1).
        num_resamples: Bootstrap draws.
        seed: Of the draws.

    Raises:
        InputError: No task, different lengths, or a number that is not finite and above 0.
    """
    check_resampling(confidence, num_resamples)
    x, r = _positive("values", values), _positive("references", references)
    if len(x) != len(r):
        raise InputError(f"values and references must be of one length, got {len(x)} and {len(r)}")
    ratios = x / r
    # Each statistic is a function of column means, so that a resample is a gather and a mean.
    columns = np.stack([np.log(ratios), x, r, ratios])
    means = resampled_means(columns, num_resamples, np.random.default_rng(seed))
    whole = columns.mean(axis=1, keepdims=True)
    return Normalised(
        geometric_mean=estimate(np.exp(whole[0]), np.exp(means[0]), confidence),
        ratio_of_sums=estimate(whole[1] / whole[2], means[1] / means[2], confidence),
        mean_of_ratios=estimate(whole[3], means[3], confidence),
        largest=float(ratios.max()),
        share_above_five=float((ratios > _MUCH_WORSE).mean()),
        num_tasks=len(x),
        confidence=confidence,
    )


def mean_over_tasks(
    values: ArrayLike,
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Mean of one number a task (Beyond, eff@k, DPS, ...) with a bootstrap interval over tasks.

    Raises:
        InputError: No task, or a number that is not finite.
    """
    check_resampling(confidence, num_resamples)
    x = finite("values", values)
    means = resampled_means(x[None], num_resamples, np.random.default_rng(seed))
    return estimate(x.mean(keepdims=True), means[0], confidence)


def resampled_means(columns: Floats, num_resamples: int, rng: np.random.Generator) -> Floats:
    """(num_columns, num_resamples) means of resamples of the tasks (the last axis)."""
    num_columns, num_tasks = columns.shape
    step = max(1, _CHUNK // num_tasks)
    means = np.empty((num_columns, num_resamples))
    for start in range(0, num_resamples, step):
        size = min(step, num_resamples - start)
        rows = rng.integers(num_tasks, size=(size, num_tasks))
        for column in range(num_columns):  # all at once would hold num_columns times as much
            means[column, start : start + size] = columns[column][rows].mean(axis=1)
    return means


def estimate(value: Floats, draws: Floats, confidence: float) -> Estimate:
    """The value (one number in an array) with the percentile interval of its resamples."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Estimate(float(value[0]), float(low), float(high))


def check_resampling(confidence: float, num_resamples: int) -> None:
    """InputError unless 0 < confidence < 1 and there is a draw."""
    if not 0 < confidence < 1:
        raise InputError(f"confidence must be above 0 and below 1, got {confidence}")
    if num_resamples < 1:
        raise InputError(f"num_resamples must be at least 1, got {num_resamples}")


def finite(name: str, numbers: ArrayLike) -> Floats:
    """One row of at least one finite float64; InputError naming the argument otherwise."""
    try:
        values = np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers, got: {error}") from None
    if values.ndim != 1 or values.size == 0:
        raise InputError(f"{name} must be one row of numbers, got shape {values.shape}")
    num_bad = int((~np.isfinite(values)).sum())
    if num_bad:
        raise InputError(f"{name} must be finite, got {num_bad} of {len(values)} that are not")
    return values


def _positive(name: str, numbers: ArrayLike) -> Floats:
    values = finite(name, numbers)
    if (values <= 0).any():
        raise InputError(
            f"{name} must be above 0, got {int((values <= 0).sum())} of {len(values)} that are not"
        )
    return values
