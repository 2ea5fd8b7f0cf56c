"""Comparing two models on the same examples: verdicts (passed or not) and losses."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.evaluation.comparing.comparison import Comparison, PassComparison
from codeact.evaluation.comparing.effect_sizes import (
    cohens_h,
    detectable_difference,
    discordant_pairs,
)
from codeact.evaluation.comparing.resampling import (
    Floats,
    bootstrap_means,
    check_resampling,
    percentiles,
    sign_flip_test,
)


def compare(
    verdicts_a: ArrayLike,
    verdicts_b: ArrayLike,
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> PassComparison:
    """Difference in pass rate of two models on the same tasks.

    The test is McNemar's, exact: of the tasks that only one of the two solves, either is equally
    likely to be the one (binomial, two-sided). The interval is the percentile bootstrap over
    tasks (Efron & Tibshirani 1993, chapter 13); as a pair's difference is -1, 0 or 1, a resample
    is one multinomial draw of the three counts.

    Args:
        verdicts_a: (num_pairs,) bool, True for a pass; row i of both is the same task.
        verdicts_b: (num_pairs,) bool.
        confidence: Of the interval, in (0, 1).
        num_resamples: Bootstrap draws.
        seed: Of the draws.

    Returns:
        ``difference`` is pass rate a - pass rate b, in [-1, 1]; with effect sizes, and the
        smallest difference that McNemar's test would find (80 % power) where as many tasks are
        discordant.

    Raises:
        InputError: No pairs, different lengths, or verdicts that are not booleans.
    """
    check_resampling(confidence, num_resamples)
    a, b = _verdicts("verdicts_a", verdicts_a), _verdicts("verdicts_b", verdicts_b)
    _check_pairs("verdicts", a, b)
    from scipy.stats import binom

    num_pairs, only_a, only_b = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    # With no discordant pair the binomial has 0 trials and its distribution function is 1.
    tail = float(binom.cdf(min(only_a, only_b), only_a + only_b, 0.5))
    shares = np.array([only_a, only_b, num_pairs - only_a - only_b]) / num_pairs
    draws = np.random.default_rng(seed).multinomial(num_pairs, shares, size=num_resamples)
    rate_a, rate_b = float(a.mean()), float(b.mean())
    return PassComparison(
        difference=(only_a - only_b) / num_pairs,
        interval=percentiles((draws[:, 0] - draws[:, 1]) / num_pairs, confidence),
        p_value=min(1.0, 2 * tail),
        test="exact McNemar test",
        num_pairs=num_pairs,
        confidence=confidence,
        rate_a=rate_a,
        rate_b=rate_b,
        cohens_h=cohens_h(rate_a, rate_b),
        detectable=detectable_difference(
            num_pairs, (only_a + only_b) / num_pairs, level=1 - confidence
        ),
        discordant=discordant_pairs(only_a, only_b, confidence=confidence),
    )


def compare_losses(
    losses_a: ArrayLike,
    losses_b: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Mean difference of two models' losses on the same examples.

    ``sum(w * (a - b)) / sum(w)``. The test flips the sign of each example's difference: if the
    models are interchangeable, ``a - b`` and ``b - a`` are equally likely. Up to 14 pairs all
    sign patterns are counted; above, ``num_resamples`` random ones m give (k + 1) / (m + 1), k
    being those at least as far from 0 as what was seen (Phipson & Smyth, arXiv:1603.05766). The
    interval is the percentile bootstrap over pairs, weights included. Time is O(num_pairs *
    num_resamples), memory O(num_pairs).

    Args:
        losses_a: (num_pairs,) mean NLL of each example, nats.
        losses_b: (num_pairs,); row i of both is the same example.
        weights: (num_pairs,) above 0, e.g. response tokens for a mean per token; equal by default.
        confidence: Of the interval, in (0, 1).
        num_resamples: Bootstrap draws, and random sign patterns.
        seed: Of both.

    Raises:
        InputError: No pairs, different lengths, NaN or infinity, a weight of 0 or below.
    """
    check_resampling(confidence, num_resamples)
    a, b = _finite("losses_a", losses_a), _finite("losses_b", losses_b)
    _check_pairs("losses", a, b)
    w = _weights(weights, len(a))
    weighted = w * (a - b)
    bootstrap_rng, flip_rng = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    p_value, test = sign_flip_test(weighted, num_resamples, flip_rng)
    return Comparison(
        difference=float(weighted.sum() / w.sum()),
        interval=percentiles(
            bootstrap_means(weighted, w, num_resamples, bootstrap_rng), confidence
        ),
        p_value=p_value,
        test=test,
        num_pairs=len(a),
        confidence=confidence,
    )


def _check_pairs(name: str, a: NDArray[np.generic], b: NDArray[np.generic]) -> None:
    if len(a) != len(b):
        raise InputError(f"{name}_a and {name}_b must be of one length, got {len(a)} and {len(b)}")
    if len(a) == 0:
        raise InputError(f"{name}_a and {name}_b must hold at least 1 pair, got 0")


def _verdicts(name: str, verdicts: ArrayLike) -> NDArray[np.bool_]:
    values = np.asarray(verdicts)
    if values.size == 0:
        values = values.astype(bool)
    if values.dtype != bool or values.ndim != 1:
        raise InputError(
            f"{name} must be one boolean a task, got {values.dtype} of shape {values.shape}"
        )
    return values


def _finite(name: str, numbers: ArrayLike) -> Floats:
    """One finite float64 a pair; None counts as NaN."""
    try:
        values = np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers, got: {error}") from None
    if values.ndim != 1:
        raise InputError(f"{name} must be one number an example, got shape {values.shape}")
    num_bad = int((~np.isfinite(values)).sum())
    if num_bad:
        raise InputError(
            f"{name} must be finite, got NaN or infinity in {num_bad} of {len(values)}; "
            "leave these examples out of both sides"
        )
    return values


def _weights(weights: ArrayLike | None, num_pairs: int) -> Floats:
    if weights is None:
        return np.ones(num_pairs)
    values = _finite("weights", weights)
    if len(values) != num_pairs:
        raise InputError(f"weights must hold {num_pairs} numbers, one a pair, got {len(values)}")
    if (values <= 0).any():
        raise InputError(f"weights must be above 0, got {int((values <= 0).sum())} that are not")
    return values
