"""What a training will take, before it begins: steps, tokens, seconds, peak memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from codeact.data import TokenizedExamples
from codeact.data.pairs import TokenizedPairs
from codeact.errors import InputError
from codeact.packing import BinPlan, ModelCost
from codeact.training.config import TrainConfig, num_optimizer_steps, resolve_accumulation
from codeact.training.cost.dry_run import DryRun, dry_run
from codeact.training.cost.workload import bin_costs, training_cost, workload
from codeact.training.loss import num_ranks
from codeact.training.out_of_memory import is_out_of_memory, memory_advice

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Forecast:
    """A training before it begins.

    Attributes:
        num_steps: optimizer steps.
        num_tokens: every pass over a token, of all ranks.
        accumulation: bins that a rank adds up in an optimizer step.
        padding: share of the bins' token slots that hold no token.
        seconds: predicted wall time of the steps, in seconds; without checkpoints, and without
            what ranks need to exchange gradients.
        optimizer_seconds: the part of it that is the optimizer's.
        peak_mib: predicted peak memory of a rank, in MiB, measured as ``PeakMemory`` does.
        device_mib: memory that the device has, in MiB.
    """

    num_steps: int
    num_tokens: int
    accumulation: int
    padding: float
    seconds: float
    optimizer_seconds: float
    peak_mib: float
    device_mib: float

    @property
    def fits(self) -> bool:
        """Whether the predicted peak is below the memory of the device."""
        return self.peak_mib <= self.device_mib


def forecast(
    model: PreTrainedModel,
    examples: TokenizedExamples | TokenizedPairs,
    plan: BinPlan,
    config: TrainConfig,
    *,
    cost: ModelCost | None = None,
    reference_pass: bool = False,
) -> Forecast:
    """Predict time and peak memory from a few passes over bins of the plan.

    Time: forward and backward passes over the costliest bin (the first one does not count) and, as
    long as they take less than ten seconds, those at the median and the quartiles give the seconds
    of a unit of the cost model; times the cost of every bin of the run, where ranks wait for the
    slowest one; plus the optimizer's steps. Memory: the peak of these passes, with gradients there
    already, plus the optimizer's states (8 bytes a float32 weight that is trained, under AdamW)
    and what sharding takes away (FSDP) or the exchange of gradients adds (DDP). The passes are not
    compiled whatever ``config.compile`` says. The model is left as it was, to the bit. Where
    several processes train, every one must call this; all get the slowest and the largest.

    Args:
        model: as training will be given it, without adapters.
        examples: what to train on; a preference pair counts as one sequence.
        plan: bins of ``examples``.
        config: of the training.
        cost: of a sequence, forward; None counts the model's weights.
        reference_pass: add a forward pass over an epoch, as DPO makes before training.

    Raises:
        InputError: the passes alone run out of memory; the text says what to change.
    """
    forward = ModelCost.from_config(model.config) if cost is None else cost
    whole = training_cost(forward, frozen_weights=config.method != "full")
    accumulation = resolve_accumulation(config, plan)
    work = workload(
        plan, whole, num_steps=num_optimizer_steps(config, plan), accumulation=accumulation
    )
    run: DryRun | InputError
    try:
        run = dry_run(model, examples, plan, config, cost=whole, keeps_gradients=accumulation > 1)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        run = memory_advice(config, plan, error)
    per_cost, optimizer_seconds, peak_mib = _worst_of_ranks(run, config)
    optimizer_seconds *= work.num_steps
    cost_in_time = work.cost_of_slowest
    if reference_pass:
        cost_in_time += float(bin_costs(plan.epoch(0), forward).sum()) / plan.world_size
    return Forecast(
        num_steps=work.num_steps,
        num_tokens=work.num_tokens,
        accumulation=accumulation,
        padding=1.0 - plan.fill,
        seconds=cost_in_time * per_cost + optimizer_seconds,
        optimizer_seconds=optimizer_seconds,
        peak_mib=peak_mib,
        device_mib=device_mib(model.device),
    )


def device_mib(device: torch.device) -> float:
    """Memory of a GPU, or what is free on this machine and what this process has, in MiB."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**20
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        resident = int(Path("/proc/self/statm").read_text().split()[1])
        available = int(fields["MemAvailable"].split()[0]) * 1024
        return (available + resident * os.sysconf("SC_PAGE_SIZE")) / 2**20
    except (OSError, KeyError, ValueError):  # no Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20


def _worst_of_ranks(run: DryRun | InputError, config: TrainConfig) -> tuple[float, float, float]:
    """Seconds of a unit of cost and of an optimizer step, and the peak in MiB, over all ranks."""
    mine: Any = run
    if isinstance(run, DryRun):
        mine = (run.seconds_per_cost, *_under_ranks(run, config))
    found = [mine]
    if num_ranks() > 1:
        found = [None] * num_ranks()
        dist.all_gather_object(found, mine)
    for error in found:
        if isinstance(error, InputError):  # also where it was another rank's
            raise error
    per_cost, optimizer_seconds, peak_mib = np.array(found, dtype=np.float64).max(axis=0)
    return float(per_cost), float(optimizer_seconds), float(peak_mib)


def _under_ranks(run: DryRun, config: TrainConfig) -> tuple[float, float]:
    """Seconds of an optimizer step and peak in MiB, where weights are sharded or copied."""
    ranks = num_ranks()
    optimizer_seconds, extra = run.optimizer_seconds, float(run.optimizer_bytes)
    if ranks > 1 and config.fsdp:
        optimizer_seconds /= ranks
        kept = 1.0 / ranks
        extra = kept * extra - (1.0 - kept) * (run.weight_bytes + run.gradient_bytes)
    elif ranks > 1:
        extra += run.gradient_bytes  # DDP's buckets hold every gradient once more
    return optimizer_seconds, run.peak_mib + extra / 2**20
