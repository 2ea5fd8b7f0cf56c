"""How much work a run is: steps, tokens and floating-point operations, from its plan alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from codeact.packing import BinPlan, ModelCost
from codeact.packing.bins import Bins


@dataclass(frozen=True)
class Workload:
    """All optimizer steps of a run.

    Attributes:
        num_steps: optimizer steps.
        num_tokens: tokens of all their bins on all ranks; a token counts in every epoch.
        cost: of all their bins on all ranks, in units of the cost model.
        cost_of_slowest: the sum over bins of the costliest rank's: ranks wait for one another,
            so that this is what time follows. Equal to ``cost`` on one rank.
    """

    num_steps: int
    num_tokens: int
    cost: float
    cost_of_slowest: float


def training_cost(cost: ModelCost, *, frozen_weights: bool) -> ModelCost:
    """Forward and backward of a sequence, from its forward cost.

    A backward pass multiplies twice where a forward pass multiplies once: for the gradient of the
    input and for that of the weight (the 6 N of a token, arXiv:2001.08361). Frozen weights, as
    beside LoRA, need no second one; both operands of attention are activations, whose gradients
    are needed anyway. What gradient checkpointing computes again does not count: it is no work of
    the model (arXiv:2204.02311, appendix B). Adapters' own weights are left out, below 1 %.

    Args:
        cost: forward, in FLOPs.
        frozen_weights: the weights of the linear layers get no gradient.
    """
    linear = 2.0 if frozen_weights else 3.0
    attention = tuple(
        kind._replace(flops_per_pair=3.0 * kind.flops_per_pair) for kind in cost.attention
    )
    return replace(cost, flops_per_token=linear * cost.flops_per_token, attention=attention)


def workload(plan: BinPlan, cost: ModelCost, *, num_steps: int, accumulation: int) -> Workload:
    """What so many optimizer steps of a run take.

    Every epoch has the same sequences in other bins, so whole epochs count as epoch 0; the bins of
    an epoch that ends early are looked at.

    Args:
        plan: of the bins.
        cost: of a sequence, as of :func:`training_cost`.
        num_steps: optimizer steps of the whole run.
        accumulation: bins of a rank in one of them.
    """
    epochs, rest = divmod(num_steps, plan.num_updates(accumulation))
    totals = np.zeros(3)
    if epochs:
        totals += epochs * _part(plan, cost, 0, plan.num_updates(accumulation), accumulation)
    if rest:
        totals += _part(plan, cost, epochs, rest, accumulation)
    return Workload(num_steps, round(totals[0]), float(totals[1]), float(totals[2]))


def bin_costs(bins: Bins, cost: ModelCost) -> NDArray[np.float64]:
    """(num_bins,) what each bin costs."""
    running = np.append(0.0, np.cumsum(cost(bins.seqlens[bins.order])))
    costs: NDArray[np.float64] = running[bins.stops] - running[bins.starts]
    return costs


def _part(
    plan: BinPlan, cost: ModelCost, epoch: int, num_updates: int, accumulation: int
) -> NDArray[np.float64]:
    """Tokens, cost and cost of the slowest rank of an epoch's first optimizer steps."""
    bins = plan.epoch(epoch)[: num_updates * accumulation * plan.world_size]
    by_step = bin_costs(bins, cost).reshape(-1, plan.world_size)
    tokens = float(bins.num_tokens.sum())
    return np.array([tokens, by_step.sum(), by_step.max(axis=1).sum()])
