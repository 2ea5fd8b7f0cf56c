"""Comparing two models on the same examples: verdicts (passed or not) and losses."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.evaluation.comparison import Comparison

Floats = NDArray[np.float64]

# Numbers held at a time by a resampling loop: 2**21 float64 is 16 MiB.
_CHUNK = 2**21
# Up to here all 2**n sign patterns are listed: 16,384 for 14 pairs.
_MAX_EXACT_PAIRS = 14


def compare(
    verdicts_a: ArrayLike,
    verdicts_b: ArrayLike,
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
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
        Comparison; ``difference`` is pass rate a - pass rate b, in [-1, 1].

    Raises:
        InputError: No pairs, different lengths, or verdicts that are not booleans.
    """
    _check_options(confidence, num_resamples)
    a, b = _verdicts("verdicts_a", verdicts_a), _verdicts("verdicts_b", verdicts_b)
    _check_pairs("verdicts", a, b)
    from scipy.stats import binom

    num_pairs, only_a, only_b = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    # With no discordant pair the binomial has 0 trials and its distribution function is 1.
    tail = float(binom.cdf(min(only_a, only_b), only_a + only_b, 0.5))
    shares = np.array([only_a, only_b, num_pairs - only_a - only_b]) / num_pairs
    draws = np.random.default_rng(seed).multinomial(num_pairs, shares, size=num_resamples)
    return Comparison(
        difference=(only_a - only_b) / num_pairs,
        interval=_percentiles((draws[:, 0] - draws[:, 1]) / num_pairs, confidence),
        p_value=min(1.0, 2 * tail),
        test="exact McNemar test",
        num_pairs=num_pairs,
        confidence=confidence,
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
    _check_options(confidence, num_resamples)
    a, b = _finite("losses_a", losses_a), _finite("losses_b", losses_b)
    _check_pairs("losses", a, b)
    w = _weights(weights, len(a))
    weighted = w * (a - b)
    bootstrap_rng, flip_rng = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    if len(a) <= _MAX_EXACT_PAIRS:
        test, p_value = "exact sign-flip permutation test", _exact_sign_flip(weighted)
    else:
        test = f"sign-flip permutation test ({num_resamples} draws)"
        p_value = _random_sign_flip(weighted, num_resamples, flip_rng)
    return Comparison(
        difference=float(weighted.sum() / w.sum()),
        interval=_percentiles(_bootstrap(weighted, w, num_resamples, bootstrap_rng), confidence),
        p_value=p_value,
        test=test,
        num_pairs=len(a),
        confidence=confidence,
    )


def _bootstrap(
    weighted: Floats, weights: Floats, num_resamples: int, rng: np.random.Generator
) -> Floats:
    """Weighted mean difference of each resample of the pairs."""
    num_pairs = len(weighted)
    step = max(1, _CHUNK // num_pairs)
    means = np.empty(num_resamples)
    for start in range(0, num_resamples, step):
        size = min(step, num_resamples - start)
        rows = rng.integers(num_pairs, size=(size, num_pairs))
        means[start : start + size] = weighted[rows].sum(axis=1) / weights[rows].sum(axis=1)
    return means


def _exact_sign_flip(weighted: Floats) -> float:
    """Share of all sign patterns whose sum is at least as far from 0 as the one seen."""
    bits = np.arange(2 ** len(weighted))[:, None] >> np.arange(len(weighted)) & 1
    return float(_as_extreme(bits.astype(np.float64), weighted).mean())


def _random_sign_flip(weighted: Floats, num_draws: int, rng: np.random.Generator) -> float:
    num_pairs = len(weighted)
    step = max(1, _CHUNK // num_pairs)
    num_extreme = 0
    for start in range(0, num_draws, step):
        size = min(step, num_draws - start)
        bits = rng.integers(2, size=(size, num_pairs), dtype=np.int8)
        num_extreme += int(_as_extreme(bits.astype(np.float64), weighted).sum())
    return (num_extreme + 1) / (num_draws + 1)


def _as_extreme(bits: Floats, weighted: Floats) -> NDArray[np.bool_]:
    """Which rows of 0/1 signs give a sum at least as far from 0 as all ones do."""
    # Sums equal in exact arithmetic differ by rounding; they must count as ties.
    slack = 1e-12 * np.abs(weighted).sum()
    sums = 2 * (bits @ weighted) - weighted.sum()
    return np.asarray(np.abs(sums) >= abs(weighted.sum()) - slack)


def _percentiles(draws: Floats, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def _check_options(confidence: float, num_resamples: int) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence must be above 0 and below 1, got {confidence}")
    if num_resamples < 1:
        raise InputError(f"num_resamples must be at least 1, got {num_resamples}")


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
