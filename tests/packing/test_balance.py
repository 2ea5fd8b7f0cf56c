"""Ranks of a step get like work, and the shuffle stays a shuffle."""

from __future__ import annotations

import numpy as np
import pytest

from codeact.errors import InputError
from codeact.packing.balance import WINDOW_STEPS, exact_costs, sync_efficiency
from codeact.packing.cost import AttentionCost, ModelCost
from codeact.packing.plan import plan_bins

# Qwen2.5 0.5B, 1.5B and 7B: linear FLOPs a token, layers, attention FLOPs a pair of one layer.
QWEN = {
    "0.5B": ModelCost(987_922_432, (AttentionCost(24, 4 * 896),)),
    "1.5B": ModelCost(3_087_138_816, (AttentionCost(28, 4 * 1536),)),
    "7B": ModelCost(14_140_571_648, (AttentionCost(28, 4 * 3584),)),
}


def mix32k(num_examples: int) -> np.ndarray:
    """85 % code lengths, 15 % long ones; research/packing.md."""
    rng = np.random.default_rng(0)
    short = np.clip(rng.lognormal(np.log(450), 0.8, num_examples), 16, 4096)
    long = np.clip(rng.lognormal(np.log(6000), 0.8, num_examples), 16, 32768)
    return np.where(rng.random(num_examples) < 0.85, short, long).astype(np.int32)


@pytest.mark.parametrize("size", QWEN)
def test_long_tails_are_balanced(size: str) -> None:
    cost = QWEN[size]
    plan = plan_bins(mix32k(40_000), 32768, world_size=8, cost=cost)
    bins = plan.epoch(0)
    costs = bins.costs(plan.costs)
    assert sync_efficiency(costs, 8) >= 0.985
    assert plan.report().sync_efficiency == pytest.approx(sync_efficiency(costs, 8))
    assert bins.num_tokens.max() <= 32768
    by_tokens = plan_bins(mix32k(40_000), 32768, world_size=8)
    assert sync_efficiency(by_tokens.epoch(0).costs(plan.costs), 8) < 0.9


def test_whole_costs_are_the_models() -> None:
    lengths = mix32k(2000)
    costs = exact_costs(QWEN["7B"], lengths)(lengths)
    assert costs.dtype == np.int64
    assert 2**58 < costs.max() * len(lengths) <= 2**62
    np.testing.assert_allclose(costs / costs.sum(), QWEN["7B"](lengths) / QWEN["7B"](lengths).sum())


def test_a_table_and_single_lengths_cost_alike() -> None:
    """Few long sequences are evaluated one by one, many from a table over all lengths."""
    few = np.array([5, 1_000_000, 70], dtype=np.int32)
    costs = exact_costs(QWEN["7B"], few)(few)
    np.testing.assert_allclose(costs / costs.sum(), QWEN["7B"](few) / QWEN["7B"](few).sum())


def test_steps_are_mixed_over_the_epoch_and_ranks_inside_a_step() -> None:
    """Sorted windows would leave costs rising inside a window and over the ranks of a step."""
    plan = plan_bins(mix32k(60_000), 32768, world_size=4, cost=QWEN["0.5B"])
    steps = plan.epoch(0).costs(plan.costs).astype(float).reshape(-1, 4)
    means = steps.mean(axis=1)
    neighbours = np.corrcoef(means[:-1], means[1:])[0, 1]
    assert abs(neighbours) < 0.15
    place = np.arange(len(means)) % WINDOW_STEPS
    assert abs(np.corrcoef(place, means)[0, 1]) < 0.15
    slowest = np.bincount(steps.argmax(axis=1), minlength=4) / len(steps)
    assert slowest.min() > 0.15


def test_efficiency_by_hand() -> None:
    assert sync_efficiency([4, 2, 3, 3], 2) == pytest.approx((3 + 3) / (4 + 3))
    assert sync_efficiency([5, 5, 5], 3) == 1.0
    assert sync_efficiency([], 2) == 1.0
    assert sync_efficiency([0, 0], 2) == 1.0
    with pytest.raises(ValueError, match="whole steps"):
        sync_efficiency([1, 2, 3], 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_cost_refused(value: float) -> None:
    with pytest.raises(InputError, match="one finite, non-negative number a sequence"):
        exact_costs(lambda lengths: np.full(len(lengths), value), np.array([3, 4], np.int32))
