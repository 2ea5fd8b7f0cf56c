"""Bootstrap intervals and sign-flip tests over pairs: what several comparisons compute alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codeact.errors import InputError

Floats = NDArray[np.float64]

# Numbers held at a time by a resampling loop: 2**21 float64 is 16 MiB.
_CHUNK = 2**21
# Up to here all 2**n sign patterns are listed: 16,384 for 14 pairs.
_MAX_EXACT_PAIRS = 14


def chunks(num_draws: int, num_numbers: int) -> list[int]:
    """Sizes of the parts that ``num_draws`` draws of ``num_numbers`` numbers each are made in."""
    step = max(1, _CHUNK // num_numbers)
    return [min(step, num_draws - start) for start in range(0, num_draws, step)]


def bootstrap_means(
    values: Floats, weights: Floats, num_resamples: int, rng: np.random.Generator
) -> Floats:
    """``sum(values) / sum(weights)`` of each resample of the rows: (num_resamples,)."""
    num_rows = len(values)
    means = []
    for size in chunks(num_resamples, num_rows):
        rows = rng.integers(num_rows, size=(size, num_rows))
        means.append(values[rows].sum(axis=1) / weights[rows].sum(axis=1))
    return np.concatenate(means)


def percentiles(draws: Floats, confidence: float) -> tuple[float, float]:
    """Percentile interval: the middle ``confidence`` of the draws."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def sign_flip_test(
    differences: Floats, num_draws: int, rng: np.random.Generator
) -> tuple[float, str]:
    """Two-sided p-value of "either sign of a difference is as likely", and the test's name.

    Up to 14 differences all sign patterns are counted; above, ``num_draws`` random ones m give
    (k + 1) / (m + 1), k being those whose sum is at least as far from 0 as what was seen
    (Phipson & Smyth, arXiv:1603.05766).
    """
    if len(differences) <= _MAX_EXACT_PAIRS:
        return _exact_sign_flip(differences), "exact sign-flip permutation test"
    name = f"sign-flip permutation test ({num_draws} draws)"
    return _random_sign_flip(differences, num_draws, rng), name


def check_resampling(confidence: float, num_resamples: int) -> None:
    """Refuse options that no interval can be made with.

    Raises:
        InputError: One of them is out of range.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence must be above 0 and below 1, got {confidence}")
    if num_resamples < 1:
        raise InputError(f"num_resamples must be at least 1, got {num_resamples}")


def _exact_sign_flip(differences: Floats) -> float:
    """Share of all sign patterns whose sum is at least as far from 0 as the one seen."""
    bits = np.arange(2 ** len(differences))[:, None] >> np.arange(len(differences)) & 1
    return float(_as_extreme(bits.astype(np.float64), differences).mean())


def _random_sign_flip(differences: Floats, num_draws: int, rng: np.random.Generator) -> float:
    num_extreme = 0
    for size in chunks(num_draws, len(differences)):
        bits = rng.integers(2, size=(size, len(differences)), dtype=np.int8)
        num_extreme += int(_as_extreme(bits.astype(np.float64), differences).sum())
    return (num_extreme + 1) / (num_draws + 1)


def _as_extreme(bits: Floats, differences: Floats) -> NDArray[np.bool_]:
    """Which rows of 0/1 signs give a sum at least as far from 0 as all ones do."""
    # Sums equal in exact arithmetic differ by rounding; they must count as ties.
    slack = 1e-12 * np.abs(differences).sum()
    sums = 2 * (bits @ differences) - differences.sum()
    return np.asarray(np.abs(sums) >= abs(differences.sum()) - slack)
