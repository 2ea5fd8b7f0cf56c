"""Passes of a model over bins of its training, after which everything is as it was before."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from codeact.data import TokenizedExamples
from codeact.data.pairs import TokenizedPairs
from codeact.models import PeakMemory
from codeact.packing import BinPlan, ModelCost, PackedCollator, PackedDataset
from codeact.training.adapters import with_adapter
from codeact.training.arguments import uses_autocast
from codeact.training.config import TrainConfig
from codeact.training.cost.workload import bin_costs
from codeact.training.loss import packed_loss, scored_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Numbers that AdamW keeps beside each weight, in its dtype: two moments.
_NUM_STATES = {"adamw": 2, "sgd": 0}
# The optimizer is timed on 128 MiB of weights, gradients and states: more than caches hold.
_PIECE = 2**23
# Bins to time after the costliest one, as shares of the order by cost, while there is patience.
_PLACES = (0.5, 0.25, 0.75)
_ENOUGH_SECONDS = 10.0


@dataclass(frozen=True)
class DryRun:
    """What passes over bins took, forward and backward.

    Attributes:
        seconds_per_cost: of the timed bins together, over what they cost.
        optimizer_seconds: of one optimizer step, with the clipping of gradients before it.
        peak_mib: of the passes over the heaviest bin, without optimizer states.
        optimizer_bytes: of the optimizer's states.
        gradient_bytes: of the gradients of all weights that are trained.
        weight_bytes: of all weights, trained or not.
    """

    seconds_per_cost: float
    optimizer_seconds: float
    peak_mib: float
    optimizer_bytes: int
    gradient_bytes: int
    weight_bytes: int


def dry_run(
    model: PreTrainedModel,
    examples: TokenizedExamples | TokenizedPairs,
    plan: BinPlan,
    config: TrainConfig,
    *,
    cost: ModelCost,
    keeps_gradients: bool,
) -> DryRun:
    """Pass twice over the costliest bin of epoch 0, then over bins at the quartiles of cost.

    Weights, gradients, the state of the random number generators and the model's modes are as
    before afterwards, so that a training after it is the same to the bit.

    Args:
        model: as it will be given to training, without adapters.
        examples: of the plan.
        plan: of the bins.
        config: of the training.
        cost: of a sequence, forward and backward.
        keeps_gradients: whether some passes of an optimizer step find gradients of the ones
            before; not so where one bin makes a step.
    """
    dataset, collate = PackedDataset(examples, plan), PackedCollator()
    bins, autocast = plan.epoch(0), uses_autocast(config, model)
    costs = bin_costs(bins, cost)
    by_cost = np.argsort(costs, kind="stable")

    def seconds_of(place: float) -> tuple[float, float]:
        """Seconds and cost of the bin at this share of the order by cost."""
        chosen = int(by_cost[int(place * (len(by_cost) - 1))])
        batch = collate([dataset[int(span)] for span in bins[chosen]])
        return _seconds_of(trained_model, batch, autocast=autocast), float(costs[chosen])

    with _as_in_training(model, config) as trained_model:
        with PeakMemory() as memory:
            seconds_of(1.0)  # pays for kernels and allocations
            if not keeps_gradients:
                trained_model.zero_grad(set_to_none=True)
            timed = [seconds_of(1.0)]
            for place in _PLACES:
                if sum(seconds for seconds, _ in timed) < _ENOUGH_SECONDS:
                    timed.append(seconds_of(place))
        trained_model.zero_grad(set_to_none=True)
        trained = [p for p in trained_model.parameters() if p.requires_grad]
        gradient_bytes = _num_bytes(trained)
        return DryRun(
            seconds_per_cost=sum(s for s, _ in timed) / sum(c for _, c in timed),
            optimizer_seconds=_optimizer_seconds(trained, config),
            peak_mib=memory.mib,
            optimizer_bytes=_NUM_STATES[config.optimizer] * gradient_bytes,
            gradient_bytes=gradient_bytes,
            weight_bytes=_num_bytes(trained_model.parameters()),
        )


def computes_in(config: TrainConfig, model: PreTrainedModel) -> torch.dtype:
    """The dtype of the matrix products of a training, see ``TrainConfig.precision``."""
    return torch.bfloat16 if uses_autocast(config, model) else model.dtype


@contextmanager
def _as_in_training(model: PreTrainedModel, config: TrainConfig) -> Iterator[Any]:
    """The model with adapters, modes and no gradients, as training begins; then as it was."""
    parameters = list(model.parameters())
    before = [(parameter.grad, parameter.requires_grad) for parameter in parameters]
    was_training, was_checkpointing = model.training, _is_checkpointing(model)
    devices = [model.device] if model.device.type == "cuda" else []
    known = set(vars(model))
    try:
        with torch.random.fork_rng(devices=devices), _adapted(model, config) as trained:
            for parameter in parameters:
                parameter.grad = None
            if config.gradient_checkpointing:
                model.gradient_checkpointing_enable({"use_reentrant": False})
            yield trained.train()
    finally:
        if config.gradient_checkpointing and not was_checkpointing:
            model.gradient_checkpointing_disable()
        model.train(was_training)
        # What the fused loss has found out about the head: to find it out, training's first pass
        # takes another path, which rounds otherwise. And peft_config, of which PEFT would warn.
        for name in set(vars(model)) - known:
            del vars(model)[name]
        for parameter, (gradient, requires_grad) in zip(parameters, before, strict=True):
            parameter.grad = gradient
            parameter.requires_grad_(requires_grad)


@contextmanager
def _adapted(model: PreTrainedModel, config: TrainConfig) -> Iterator[Any]:
    """The model inside its adapters if the method has any; they are taken out again."""
    trained = with_adapter(model, config)
    try:
        yield trained
    finally:
        if trained is not model:
            trained.unload()
            if config.gradient_checkpointing:
                model.disable_input_require_grads()


def _is_checkpointing(model: nn.Module) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def _seconds_of(model: Any, batch: dict[str, Any], *, autocast: bool) -> float:
    """Wall time of one forward and backward pass; the batch is moved before."""
    device = model.device
    num_scored = float(len(scored_rows(batch["labels"])))
    batch = {key: x.to(device) if isinstance(x, torch.Tensor) else x for key, x in batch.items()}
    _wait(device)
    start = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        loss = packed_loss(model, batch, max(num_scored, 1.0))
    loss.backward()
    _wait(device)
    return time.perf_counter() - start


def _optimizer_seconds(trained: list[nn.Parameter], config: TrainConfig) -> float:
    """Of a step on a piece of as many numbers as fit 128 MiB with states, scaled to all."""
    total = sum(p.numel() for p in trained)
    like = trained[0]
    piece = nn.Parameter(torch.zeros(min(total, _PIECE), device=like.device, dtype=like.dtype))
    piece.grad = torch.ones_like(piece)
    optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW([piece], fused=True)
        if config.optimizer == "adamw"
        else torch.optim.SGD([piece])
    )
    times = []
    for _ in range(3):  # the first one makes the states
        _wait(like.device)
        start = time.perf_counter()
        torch.nn.utils.clip_grad_norm_([piece], 1.0)
        optimizer.step()
        _wait(like.device)
        times.append(time.perf_counter() - start)
    return min(times[1:]) * total / piece.numel()


def _num_bytes(parameters: Iterable[torch.Tensor]) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
