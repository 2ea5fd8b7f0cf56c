"""pass@k: the chance that one of k answers is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from codeact.errors import InputError
from codeact.evaluation.comparing.resampling import bootstrap_means, check_resampling, percentiles


@dataclass(frozen=True)
class PassAtK:
    """pass@k of a benchmark: the mean over its tasks.

    Attributes:
        k: Answers that one may choose from.
        value: In [0, 1].
        interval: (low, high), two-sided, for tasks like these.
        num_tasks: Tasks that the mean is taken over.
        num_samples: Answers to each task.
        confidence: Of the interval.
    """

    k: int
    value: float
    interval: tuple[float, float]
    num_tasks: int
    num_samples: int
    confidence: float


def pass_at_k(num_samples: int, num_passed: int, k: int) -> float:
    """Chance that at least one of k answers drawn without replacement passes.

    ``1 - C(n - c, k) / C(n, k)`` with n answers of which c pass: unbiased (Chen et al.,
    arXiv:2107.03374). Computed as ``1 - prod(1 - k / i for i in n - c + 1 .. n)``, whose factors
    stay in [0, 1] where the binomials overflow.

    Args:
        num_samples: n, at least 1.
        num_passed: c, from 0 to n.
        k: From 1 to n.

    Raises:
        InputError: One of them is out of range.
    """
    if num_samples < 1:
        raise InputError(f"num_samples must be at least 1, got {num_samples}")
    if not 0 <= num_passed <= num_samples:
        raise InputError(f"num_passed must be from 0 to {num_samples}, got {num_passed}")
    if not 1 <= k <= num_samples:
        raise InputError(f"k must be from 1 to num_samples = {num_samples}, got {k}")
    if num_samples - num_passed < k:  # fewer wrong ones than draws
        return 1.0
    i = np.arange(num_samples - num_passed + 1, num_samples + 1)
    return float(1.0 - np.prod(1.0 - k / i))


def mean_pass_at_k(
    verdicts: Mapping[str, Sequence[bool]],
    k: int,
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> PassAtK:
    """Mean of pass@k over tasks, with a percentile bootstrap interval over tasks.

    The interval says how far the mean would move with other tasks of the kind. Where every task
    passes (or none does) all resamples are equal, and it is the exact binomial one of Clopper &
    Pearson (Biometrika 26, 1934) instead.

    Args:
        verdicts: Task id -> passed or not, one an answer. A task with fewer answers than the
            others has lost some: these count as failed.
        k: From 1 to the number of answers of a task.
        confidence: Of the interval, in (0, 1).
        num_resamples: Bootstrap draws.
        seed: Of the draws.

    Raises:
        InputError: No tasks, k above the number of answers, or an option out of range.
    """
    check_resampling(confidence, num_resamples)
    if not verdicts:
        raise InputError("verdicts must hold at least 1 task, got 0")
    num_samples = max(map(len, verdicts.values()))
    values = np.array([pass_at_k(num_samples, sum(one), k) for one in verdicts.values()])
    if values.min() == values.max() and values[0] in (0.0, 1.0):
        interval = _clopper_pearson(int(values.sum()), len(values), confidence)
    else:
        rng = np.random.default_rng(seed)
        means = bootstrap_means(values, np.ones(len(values)), num_resamples, rng)
        interval = percentiles(means, confidence)
    return PassAtK(k, float(values.mean()), interval, len(values), num_samples, confidence)


def _clopper_pearson(num_passed: int, num_tasks: int, confidence: float) -> tuple[float, float]:
    from scipy.stats import binomtest

    exact = binomtest(num_passed, num_tasks).proportion_ci(confidence, method="exact")
    return float(exact.low), float(exact.high)
