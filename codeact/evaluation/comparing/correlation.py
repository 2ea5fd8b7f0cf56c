"""Rank correlation with an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation.

    Attributes:
        rho: In [-1, 1]; NaN where it is undefined (fewer than 2 pairs, or a constant side).
        interval: (low, high), two-sided; (-1, 1) where the data say nothing (rho is NaN, or fewer
            than 4 pairs).
        num_pairs: Pairs used.
        num_ignored: Pairs left out because one side is NaN or None.
        confidence: Of the interval.
    """

    rho: float
    interval: tuple[float, float]
    num_pairs: int
    num_ignored: int
    confidence: float


def spearman(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> Correlation:
    """Spearman's rho of two columns, ties at their mean rank, pairs with a NaN or None left out.

    The interval is Fisher's z with the standard error ``sqrt((1 + rho**2 / 2) / (num_pairs - 3))``
    of Bonett & Wright (Psychometrika 65, 2000), which holds its level to about |rho| = 0.95 where
    the plain ``1 / sqrt(num_pairs - 3)`` is too narrow.

    Args:
        a: (num_examples,) numbers, e.g. IFD.
        b: (num_examples,) numbers, e.g. response tokens.
        confidence: Of the interval, in (0, 1).

    Raises:
        InputError: Different lengths, no columns of numbers, or confidence out of range.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence must be above 0 and below 1, got {confidence}")
    try:
        x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"a and b must be numbers, NaN or None, got: {error}") from None
    if x.ndim != 1 or x.shape != y.shape:
        raise InputError(f"a and b must be 1-D and of one length, got {x.shape} and {y.shape}")
    used = ~(np.isnan(x) | np.isnan(y))
    num_pairs = int(used.sum())
    rho = _rank_correlation(x[used], y[used]) if num_pairs >= 2 else math.nan
    return Correlation(
        rho=rho,
        interval=_interval(rho, num_pairs, confidence),
        num_pairs=num_pairs,
        num_ignored=len(x) - num_pairs,
        confidence=confidence,
    )


def _rank_correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    from scipy.stats import rankdata

    rank_x, rank_y = rankdata(x), rankdata(y)
    rank_x, rank_y = rank_x - rank_x.mean(), rank_y - rank_y.mean()
    scale = math.sqrt(float(rank_x @ rank_x) * float(rank_y @ rank_y))
    if scale == 0:
        return math.nan
    return min(1.0, max(-1.0, float(rank_x @ rank_y) / scale))


def _interval(rho: float, num_pairs: int, confidence: float) -> tuple[float, float]:
    if math.isnan(rho) or num_pairs < 4:
        return -1.0, 1.0
    if abs(rho) == 1:  # Fisher's z is infinite
        return rho, rho
    from scipy.stats import norm

    error = math.sqrt((1 + rho**2 / 2) / (num_pairs - 3))
    reach = float(norm.ppf((1 + confidence) / 2)) * error
    return math.tanh(math.atanh(rho) - reach), math.tanh(math.atanh(rho) + reach)
