"""How large a difference in pass rates is, and how small a one the tasks could have shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codeact.errors import InputError

POWER = 0.8  # chance of finding a difference that is called detectable (Cohen 1988)


@dataclass(frozen=True)
class Discordant:
    """The tasks that only one of two models solves.

    Attributes:
        only_a: Tasks that a solves and b does not.
        only_b: The reverse.
        odds_ratio: ``only_a / only_b``, the conditional odds ratio of a matched pair; infinite
            for ``only_b = 0``, NaN where there is no such task at all.
        odds_ratio_interval: (low, high), exact: the Clopper-Pearson limits of
            ``only_a / (only_a + only_b)`` as odds.
        cohens_g: ``only_a / (only_a + only_b) - 1/2`` (Cohen 1988, chapter 5): 0.05 is small,
            0.15 medium, 0.25 large; NaN without discordant tasks.
    """

    only_a: int
    only_b: int
    odds_ratio: float
    odds_ratio_interval: tuple[float, float]
    cohens_g: float


def cohens_h(share_a: float, share_b: float) -> float:
    """``2 asin(sqrt(share_a)) - 2 asin(sqrt(share_b))``, in radians.

    The difference of two shares on the scale where its variance does not depend on them (Cohen
    1988, chapter 6): 0.2 is small, 0.5 medium, 0.8 large.

    Raises:
        InputError: A share is outside [0, 1].
    """
    for name, share in (("share_a", share_a), ("share_b", share_b)):
        if not 0 <= share <= 1:
            raise InputError(f"{name} must be from 0 to 1, got {share}")
    return 2 * math.asin(math.sqrt(share_a)) - 2 * math.asin(math.sqrt(share_b))


def discordant_pairs(only_a: int, only_b: int, *, confidence: float = 0.95) -> Discordant:
    """Effect sizes of the tasks that only one side solves.

    Args:
        only_a: Tasks that a alone solves, at least 0.
        only_b: Tasks that b alone solves.
        confidence: Of the interval of the odds ratio, in (0, 1).

    Raises:
        InputError: A count below 0, or confidence out of range.
    """
    if min(only_a, only_b) < 0:
        raise InputError(f"only_a and only_b must be at least 0, got {only_a} and {only_b}")
    if not 0 < confidence < 1:
        raise InputError(f"confidence must be above 0 and below 1, got {confidence}")
    total = only_a + only_b
    if total == 0:
        return Discordant(0, 0, math.nan, (0.0, math.inf), math.nan)
    from scipy.stats import binomtest

    exact = binomtest(only_a, total).proportion_ci(confidence, method="exact")
    return Discordant(
        only_a=only_a,
        only_b=only_b,
        odds_ratio=only_a / only_b if only_b else math.inf,
        odds_ratio_interval=(_odds(float(exact.low)), _odds(float(exact.high))),
        cohens_g=only_a / total - 0.5,
    )


def detectable_difference(num_pairs: int, discordant_share: float, *, level: float = 0.05) -> float:
    """Smallest true difference in pass rate that exact McNemar finds in 4 of 5 samples.

    Power is exact: the number of discordant tasks is binomial(num_pairs, discordant_share), and
    of these the ones in favour of a are binomial with the share that the difference implies.
    Tasks are taken to differ in as large a share as was seen, or as the difference itself asks.

    Args:
        num_pairs: Tasks, at least 1.
        discordant_share: Share of tasks that only one model solves, in [0, 1].
        level: Of the test, in (0, 1).

    Returns:
        A share in (0, 1]; NaN where even solving all against none would be found too rarely.

    Raises:
        InputError: An argument is out of range.
    """
    if num_pairs < 1:
        raise InputError(f"num_pairs must be at least 1, got {num_pairs}")
    if not 0 <= discordant_share <= 1:
        raise InputError(f"discordant_share must be from 0 to 1, got {discordant_share}")
    if not 0 < level < 1:
        raise InputError(f"level must be above 0 and below 1, got {level}")
    critical = _critical_values(num_pairs, level)
    low, high = 0.0, 1.0
    if _power(high, discordant_share, critical) < POWER:
        return math.nan
    while high - low > 1e-5:
        middle = (low + high) / 2
        if _power(middle, discordant_share, critical) < POWER:
            low = middle
        else:
            high = middle
    return high


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values: reject those below the level, and the chance of any false one
    among all of them stays below it (Scandinavian Journal of Statistics 6, 1979).

    The i-th smallest of m is multiplied by ``m - i + 1``, at least as large as the one before it
    and at most 1.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def _odds(share: float) -> float:
    return share / (1 - share) if share < 1 else math.inf


def _critical_values(num_pairs: int, level: float) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """For each number of discordant pairs the largest smaller count that rejects; -1 for none."""
    from scipy.stats import binom

    totals = np.arange(num_pairs + 1)
    count = binom.ppf(level / 2, totals, 0.5).astype(np.int64)  # cdf(count) >= level / 2
    # A p-value at the level does not reject (Comparison.significant), so the count itself is out.
    return np.asarray(count - 1)


def _power(
    difference: float,
    discordant_share: float,
    critical: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> float:
    from scipy.special import bdtr  # binom.cdf without its 0.1 ms of checks
    from scipy.stats import binom

    share = max(discordant_share, difference)
    in_favour = (share + difference) / (2 * share) if share else 0.5
    totals = np.arange(len(critical))
    rejected = sum(
        np.where(critical < 0, 0.0, bdtr(np.maximum(critical, 0), totals, chance))
        for chance in (in_favour, 1 - in_favour)
    )
    return float(binom.pmf(totals, len(critical) - 1, share) @ rejected)
