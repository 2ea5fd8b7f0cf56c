"""The metrics of efficiency benchmarks: one score a sample, and estimators over k samples.

Times are in any one unit (net CPU seconds, instructions). A sample that fails its tests has an
infinite time; it scores 0 everywhere and is never left out of a mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.efficiency.comparing.metrics import finite
from codeact.errors import InputError

Floats = NDArray[np.float64]


def expected_best(scores: ArrayLike, k: int) -> float:
    """Expected largest score of k of these n samples drawn without replacement.

    ``sum_{r=k..n} C(r-1, k-1) / C(n, k) * e_(r)`` with ``e_(r)`` the r-th smallest score: the
    mean of the maximum over all subsets of size k, the estimator of eff@k that ENAMEL derives by
    Rao-Blackwell (arXiv:2406.06647). On scores of 0 and 1 it is pass@k (arXiv:2107.03374).
    """
    values = np.sort(finite("scores", scores))
    n = len(values)
    if not 1 <= k <= n:
        raise InputError(f"k must be from 1 to the number of samples ({n}), got {k}")
    # Downwards from C(n-1, k-1) / C(n, k) = k / n: no binomial is formed, so none overflows.
    weights = np.empty(n - k + 1)
    weights[-1] = k / n
    for r in range(n - 1, k - 1, -1):
        weights[r - k] = weights[r - k + 1] * (r + 1 - k) / r
    return float(weights @ values[k - 1 :])


def efficiency_score(
    times: Sequence[float],
    reference_times: Sequence[float],
    hardness: Sequence[float] | None = None,
    *,
    timeout_factor: float = 2.0,
) -> float:
    """ENAMEL's score of one sample: 1 is as fast as the reference, 0 is too slow (or wrong).

    ``sum_l h_l * max(0, T - t_l) / (T - t*_l) / sum_l h_l`` over levels l of rising difficulty,
    with ``t_l`` the sample's and ``t*_l`` the reference's longest time in a level and the limit
    ``T = timeout_factor * max_l t*_l`` (arXiv:2406.06647, where the factor is 2). A time at or
    above T is right-censored: it counts 0 whatever it would have been. A sample faster than the
    reference scores above 1, as published. One level is what a plain set of tests has.

    Args:
        times: One a level; infinite from the first level that was not passed on.
        reference_times: One a level, above 0.
        hardness: Weights of the levels, all 1 by default (ENAMEL: 3, 3, 4).
        timeout_factor: Above 1.
    """
    t = _times("times", times)
    reference = finite("reference_times", reference_times)
    weights = finite("hardness", hardness if hardness is not None else np.ones(len(reference)))
    if not len(t) == len(reference) == len(weights):
        raise InputError(
            "times, reference_times and hardness must be of one length, "
            f"got {len(t)}, {len(reference)} and {len(weights)}"
        )
    if (reference <= 0).any() or (weights < 0).any() or weights.sum() == 0:
        raise InputError("reference_times must be above 0 and hardness not below 0 nor all 0")
    if not (timeout_factor > 1 and math.isfinite(timeout_factor)):
        raise InputError(f"timeout_factor must be finite and above 1, got {timeout_factor}")
    limit = timeout_factor * reference.max()
    scores = (limit - np.minimum(t, limit)) / (limit - reference)
    return float(weights @ scores / weights.sum())


def beyond(times: ArrayLike, reference_times: ArrayLike) -> Floats:
    """Mercury's score of each sample against the reference solutions of its task, in [0, 1].

    ``(R_max - clip(t, R_min, R_max)) / (R_max - R_min)`` as published (arXiv:2402.07844); its
    released script clips the difference at 1 second instead. Where all references tie, where the
    formula is 0/0, a sample no slower than they are scores 1 and any other 0. Beyond@k is the
    mean over k samples, hence the mean over all samples whatever k is.
    """
    t, references = _times("times", times), finite("reference_times", reference_times)
    low, high = references.min(), references.max()
    if low == high:
        return np.asarray(t <= low, dtype=np.float64)
    return np.asarray((high - np.clip(t, low, high)) / (high - low), dtype=np.float64)


def differential_performance(
    time: float, cluster_times: Sequence[float], cluster_sizes: Sequence[int] | None = None
) -> tuple[float, float]:
    """EvalPerf's (DPS, DPS_norm) of one correct sample, in percent (arXiv:2408.06450).

    Reference solutions form clusters of like cost. The sample belongs to the fastest cluster that
    it is no slower than. DPS is the share of reference solutions in this cluster and the slower
    ones, DPS_norm the share of clusters: 100 for the fastest cluster, 0 for a sample slower than
    all. EvalPerf counts tasks with at least 10 correct samples (its paper: one); that choice is
    the caller's.

    Args:
        time: Of the sample; infinite for one that failed.
        cluster_times: One a cluster, its representative's, in any order.
        cluster_sizes: Solutions in each cluster, by default 1.
    """
    [t] = _times("time", [time])
    costs = finite("cluster_times", cluster_times)
    sizes = finite(
        "cluster_sizes", cluster_sizes if cluster_sizes is not None else [1] * len(costs)
    )
    if len(costs) != len(sizes) or (sizes <= 0).any():
        raise InputError(
            f"cluster_sizes must hold {len(costs)} numbers above 0, got {sizes.tolist()}"
        )
    # A cluster counts as soon as the sample is no slower than it; slower ones then count too.
    matched = costs >= t
    return float(100 * sizes[matched].sum() / sizes.sum()), float(100 * matched.mean())


def speedup(time: float, original_time: float) -> float:
    """PIE's speed-up of one program, ``max(1, original / new)``; 1 for a wrong or slower one.

    arXiv:2302.07867. Best@k is :func:`expected_best` of these over samples.
    """
    [t], [original] = _times("time", [time]), finite("original_time", [original_time])
    if t <= 0 or original <= 0:
        raise InputError(f"time and original_time must be above 0, got {time} and {original_time}")
    return float(max(1.0, original / t))


def is_optimised(time: float, original_time: float, *, at_least: float = 1.1) -> float:
    """1.0 if PIE counts the program into %Opt: correct and original / new >= 1.1, else 0.0."""
    return float(speedup(time, original_time) >= at_least)


def efficient_at_k(times: ArrayLike, best_reference_time: float, k: int) -> float:
    """COFFE's efficient@k of one task: chance that k samples hold one faster than the best truth.

    ``1 - C(n - c, k) / C(n, k)`` with c of the n samples correct and strictly faster than the
    fastest ground truth (arXiv:2502.02827, whose efficient@1 is c / n).
    """
    [best] = finite("best_reference_time", [best_reference_time])
    return expected_best((_times("times", times) < best).astype(np.float64), k)


def clipped_ratio(time: float, reference_time: float) -> float:
    """EffiBench-X's score of one program: ``clip(reference / time, 0, 1)``, 0 for a wrong one."""
    [t], [reference] = _times("time", [time]), finite("reference_time", [reference_time])
    if t <= 0 or reference <= 0:
        raise InputError(
            f"time and reference_time must be above 0, got {time} and {reference_time}"
        )
    return float(min(1.0, reference / t))


def _times(name: str, numbers: ArrayLike) -> Floats:
    """One row of times; infinity means a failed sample, NaN is refused."""
    values = np.asarray(numbers, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise InputError(f"{name} must be one row of numbers, got shape {values.shape}")
    if np.isnan(values).any() or (values < 0).any():
        raise InputError(f"{name} must hold no NaN and nothing below 0, got {values.tolist()}")
    return values
