"""What a training took, and what the same examples would have taken otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.ops.shuffle import shuffled
from codeact.packing import BinPlan, ModelCost
from codeact.packing.seeds import derive_seed
from codeact.training.cost.peak_flops import PeakFlops
from codeact.training.cost.workload import training_cost, workload
from codeact.training.run_trainer import TrainResult


@dataclass(frozen=True)
class Saving:
    """Against another way to train: its seconds at this run's speed, less this run's.

    ``share`` is the part of the other way's time that was saved, ``1 - cost / its cost`` by the
    floating-point operations of both; below 0 where the other way would have been cheaper.
    """

    seconds: float
    share: float


@dataclass(frozen=True)
class Spending:
    """A training after it is over.

    Attributes:
        num_steps: optimizer steps.
        num_tokens: every pass over a token, of all ranks.
        seconds: wall time.
        tokens_per_second: of all ranks together.
        flops_per_second: of the model, of one rank, see :func:`spending`.
        mfu: model FLOPs utilisation, that over ``peak_flops`` (arXiv:2204.02311, appendix B).
        peak_flops: of one device, in FLOP/s.
        peak_source: what that is the peak of, in words.
        peak_mib: peak memory of the first rank, in MiB.
        padding: share of the bins' token slots that hold no token.
        batch_size: examples of the padded batches compared with.
        saved_by_packing: against such batches, each padded to its longest example.
        saved_by_selection: against the full set, packed alike; None without a full set.
        saved_in_all: against the full set in padded batches; None without a full set.
    """

    num_steps: int
    num_tokens: int
    seconds: float
    tokens_per_second: float
    flops_per_second: float
    mfu: float
    peak_flops: float
    peak_source: str
    peak_mib: float
    padding: float
    batch_size: int
    saved_by_packing: Saving
    saved_by_selection: Saving | None = None
    saved_in_all: Saving | None = None


def spending(
    result: TrainResult,
    plan: BinPlan,
    cost: ModelCost,
    *,
    peak: PeakFlops,
    accumulation: int,
    frozen_weights: bool = False,
    head_flops: float = 0.0,
    batch_size: int = 8,
    seqlens: ArrayLike | None = None,
    full_seqlens: ArrayLike | None = None,
) -> Spending:
    """The achieved speed, and the savings by the FLOPs of a cost model.

    FLOPs are those of :func:`codeact.training.cost.workload.training_cost`: three times forward,
    twice for the linear layers under adapters, and what gradient checkpointing computes again not
    counted. ``head_flops`` takes out those of the output projection at positions without a loss,
    which packed training does not compute and most other counts of MFU include.

    Padded batches cost ``batch_size`` times their longest example each, padding included, in the
    shuffled order of ``plan.report``. Savings assume that a FLOP takes as long there as it did
    here; a padded slot of attention counts like a token.

    Args:
        result: of the training.
        plan: whose bins it trained on.
        cost: of a sequence, forward, in FLOPs.
        peak: of one device.
        accumulation: bins of a rank in an optimizer step.
        frozen_weights: the linear layers got no gradients, as beside adapters.
        head_flops: forward FLOPs of the output projection for a token, ``2 * hidden_size *
            vocab_size``.
        batch_size: of the padded batches.
        seqlens: (num_examples,) tokens of each example, or (num_examples, 2) of both sequences of
            preference pairs; None is what the plan packs.
        full_seqlens: the same of the set that the plan's was selected from, cut as the plan's.

    Raises:
        InputError: no example in ``full_seqlens``.
    """
    both = training_cost(cost, frozen_weights=frozen_weights)
    work = workload(plan, both, num_steps=len(result.steps), accumulation=accumulation)
    num_scored = sum(step.num_loss_tokens for step in result.steps)
    head = training_cost(ModelCost(head_flops), frozen_weights=frozen_weights).flops_per_token
    lengths = _packed_lengths(plan) if seqlens is None else np.asarray(seqlens, dtype=np.int64)
    packed = float(both(lengths).sum())
    # Of a pair the plan knows both sequences as one.
    flops = work.cost if seqlens is None else packed * work.num_tokens / plan.num_tokens
    flops -= head * (work.num_tokens - num_scored)
    per_second = flops / result.seconds / result.num_ranks if result.seconds else 0.0
    savings: dict[str, Saving] = {}
    if full_seqlens is not None:
        full = np.asarray(full_seqlens, dtype=np.int64)
        if not full.size:
            raise InputError("the full set has no example with a response")
        savings = {
            "saved_by_selection": _saving(result.seconds, packed, float(both(full).sum())),
            "saved_in_all": _saving(result.seconds, packed, _padded(full, both, batch_size, plan)),
        }
    return Spending(
        num_steps=len(result.steps),
        num_tokens=result.num_tokens,
        seconds=result.seconds,
        tokens_per_second=result.tokens_per_second,
        flops_per_second=per_second,
        mfu=per_second / peak.flops,
        peak_flops=peak.flops,
        peak_source=peak.source,
        peak_mib=result.peak_mib,
        padding=1.0 - plan.fill,
        batch_size=batch_size,
        saved_by_packing=_saving(result.seconds, packed, _padded(lengths, both, batch_size, plan)),
        **savings,
    )


def _packed_lengths(plan: BinPlan) -> NDArray[Any]:
    """Of what goes into bins; fillers do not count."""
    seqlens = plan.packing.seqlens
    return seqlens if plan.packing.packed is None else seqlens[plan.packing.packed]


def _padded(seqlens: NDArray[Any], cost: ModelCost, batch_size: int, plan: BinPlan) -> float:
    """Cost of an epoch of shuffled batches, every row as long as the longest of its batch."""
    rows = seqlens.reshape(len(seqlens), -1)  # a pair is two rows of its batch
    order = shuffled(len(rows), seed=derive_seed(plan.seed, "report"))
    first = np.arange(0, len(rows), batch_size)
    longest = np.maximum.reduceat(rows[order].max(axis=1), first)
    num_rows = np.diff(np.append(first, len(rows))) * rows.shape[1]
    return float((num_rows * cost(longest)).sum())


def _saving(seconds: float, cost: float, other_cost: float) -> Saving:
    """Of a run of ``seconds`` whose epoch costs ``cost``."""
    return Saving(seconds * (other_cost / cost - 1.0), 1.0 - cost / other_cost)
