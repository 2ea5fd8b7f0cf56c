"""Every benchmark's metric against brute force over subsets, or its formula written out plainly."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest

from codeact.efficiency.comparing.benchmark_metrics import (
    beyond,
    clipped_ratio,
    differential_performance,
    efficiency_score,
    efficient_at_k,
    expected_best,
    is_optimised,
    speedup,
)
from codeact.errors import InputError

INF = float("inf")
SCORES = [0.3, 0.0, 1.2, 0.3, 0.7, 0.0, 0.9]


@pytest.mark.parametrize("k", range(1, len(SCORES) + 1))
def test_expected_best_is_the_mean_maximum_of_all_subsets(k):
    subsets = itertools.combinations(SCORES, k)
    truth = statistics.fmean(max(subset) for subset in subsets)
    assert expected_best(SCORES, k) == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(10, 3, 1), (10, 3, 5), (10, 0, 2), (5, 4, 2)])
def test_expected_best_of_verdicts_is_pass_at_k(n, c, k):
    truth = 1 - math.comb(n - c, k) / math.comb(n, k)
    assert expected_best([1.0] * c + [0.0] * (n - c), k) == pytest.approx(truth, abs=1e-12)


def test_expected_best_of_many_samples_does_not_overflow():
    scores = np.arange(1, 2001) / 2000
    # The mean maximum of k of 1..n is k (n + 1) / (k + 1).
    assert expected_best(scores, 1000) == pytest.approx(1000 * 2001 / 1001 / 2000, rel=1e-9)


def plain_enamel(times, references, hardness, factor):
    limit = factor * max(references)
    total = 0.0
    for t, reference, weight in zip(times, references, hardness, strict=True):
        total += weight * (0.0 if t >= limit else (limit - t) / (limit - reference))
    return total / sum(hardness)


@pytest.mark.parametrize(
    "times", [[0.1, 1.0, 4.0], [0.1, 1.0, INF], [9.0, 8.0, 7.9], [0.05, 0.5, 1.0], [INF] * 3]
)
def test_efficiency_score_by_levels(times):
    references, hardness = [0.1, 1.0, 4.0], [3.0, 3.0, 4.0]
    truth = plain_enamel(times, references, hardness, 2.0)
    assert efficiency_score(times, references, hardness) == pytest.approx(truth, abs=1e-12)


def test_efficiency_score_on_its_landmarks():
    assert efficiency_score([3.0], [3.0]) == 1.0
    assert efficiency_score([4.5], [3.0]) == 0.5
    assert efficiency_score([6.0], [3.0]) == 0.0
    assert efficiency_score([1.5], [3.0]) == 1.5  # faster than the reference, as published
    assert efficiency_score([6.0], [3.0], timeout_factor=3.0) == 0.5


def test_beyond_clips_at_the_references_and_not_at_a_second():
    # The released script would give clip(R_max - t, 0, 1 s): 1 / 8 for the first.
    scores = beyond([2.0, 4.0, 1.0, 12.0, INF], [2.0, 5.0, 10.0])
    assert scores.tolist() == [1.0, 0.75, 1.0, 0.0, 0.0]


def test_beyond_where_all_references_tie():
    assert beyond([2.0, 1.0, 2.5, INF], [2.0, 2.0]).tolist() == [1.0, 1.0, 0.0, 0.0]


def plain_dps(time, costs, sizes):
    """EvalPerf's walk from the fastest reference to the slowest."""
    order = sorted(range(len(costs)), key=lambda i: costs[i])
    for position, i in enumerate(order):
        if time <= costs[i]:
            slower = order[position:]
            share = 100 * sum(sizes[j] for j in slower) / sum(sizes)
            return share, 100 * len(slower) / len(costs)
    return 0.0, 0.0


@pytest.mark.parametrize("time", [0.5, 1.0, 1.5, 3.0, 3.1, 20.0, 20.1, INF])
def test_differential_performance_is_the_published_walk(time):
    costs, sizes = [3.0, 1.0, 20.0, 8.0], [5, 2, 1, 12]
    truth = plain_dps(time, costs, sizes)
    assert differential_performance(time, costs, sizes) == pytest.approx(truth, abs=1e-12)


def test_differential_performance_with_clusters_of_one():
    assert differential_performance(2.0, [1.0, 2.0, 4.0, 8.0]) == (75.0, 75.0)


def test_pie_counts_from_ten_percent_on_and_never_below_one():
    assert speedup(2.0, 5.0) == 2.5
    assert speedup(6.0, 5.0) == 1.0
    assert speedup(INF, 5.0) == 1.0
    # 11 / 10 is 1.1 exactly as PIE's script compares it; 10.9 / 10 is below.
    assert [is_optimised(10.0, t) for t in (10.9, 11.0, 30.0)] == [0.0, 1.0, 1.0]
    assert is_optimised(INF, 5.0) == 0.0


@pytest.mark.parametrize("k", [1, 2, 4])
def test_efficient_at_k_counts_subsets_with_a_faster_sample(k):
    times = [1.0, 3.0, INF, 2.0, 0.5]
    subsets = list(itertools.combinations(times, k))
    truth = sum(min(subset) < 2.0 for subset in subsets) / len(subsets)
    assert efficient_at_k(times, 2.0, k) == pytest.approx(truth, abs=1e-12)


def test_clipped_ratio():
    assert [clipped_ratio(t, 2.0) for t in (1.0, 2.0, 8.0, INF)] == [1.0, 1.0, 0.25, 0.0]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: expected_best([1.0], 2), "k must be from 1 to the number of samples"),
        (lambda: expected_best([], 1), "scores must be one row"),
        (lambda: efficiency_score([1.0], [1.0, 2.0]), "of one length, got 1, 2 and 2"),
        (lambda: efficiency_score([1.0], [0.0]), "reference_times must be above 0"),
        (lambda: efficiency_score([1.0], [1.0], timeout_factor=1.0), "timeout_factor"),
        (lambda: efficiency_score([float("nan")], [1.0]), "times must hold no NaN"),
        (lambda: differential_performance(1.0, [1.0], [0]), "cluster_sizes must hold 1"),
        (lambda: speedup(0.0, 1.0), "time and original_time must be above 0"),
        (lambda: clipped_ratio(1.0, 0.0), "time and reference_time must be above 0"),
    ],
)
def test_bad_input_is_named(call, said):
    with pytest.raises(InputError, match=said):
        call()
