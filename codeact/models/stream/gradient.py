"""The gradient of a weighted sum of sequence losses, over packed passes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codeact.models.hidden_states import OutputHead, hidden_states, output_head
from codeact.models.isolation import assert_isolated
from codeact.models.stream.losses import budget_of, plan_stream
from codeact.models.stream.pack_pass import ScoredSequence
from codeact.ops.varlen import pack_sequences
from codeact.progress import OnProgress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# A backward pass keeps the activations of every layer: some 34 hidden states a token and layer,
# 15 GB for 8192 tokens of a model of 1.5 billion weights in bfloat16.
_CPU_BUDGET = 1024
_CUDA_BUDGET = 8192


class LossGradient(NamedTuple):
    """A loss and its gradient.

    Attributes:
        value: the loss in nats, summed in float64.
        gradient: for each name a tensor of the parameter's shape on its device, float32 whatever
            the dtype of the parameter (float64 of a float64 parameter). Zero where the loss does
            not depend on it.
    """

    value: float
    gradient: dict[str, Tensor]


def loss_gradient(
    model: PreTrainedModel,
    sequences: Sequence[ScoredSequence],
    weights: NDArray[np.float64],
    names: Sequence[str],
    *,
    token_budget: int | None = None,
    on_progress: OnProgress | None = None,
) -> LossGradient:
    """Value and gradient of ``sum_i weights[i] * total_i`` by reverse mode.

    ``total_i`` is the sum of the losses of the scored tokens of sequence i, in nats. With weights
    ``1 / (num_sequences * num_scored_i)`` this is the mean over sequences of their mean losses.
    Packs go one after the other, the gradient of each in the dtype of the parameters, their sum in
    float32. Only scored positions meet the output head. ``.grad`` and ``requires_grad`` of the
    parameters are afterwards what they were.

    Args:
        model: in evaluation mode, loaded with ``attn_implementation="codeact"``; checked once by
            :func:`assert_isolated`.
        sequences: what is summed; one without a scored token, or of weight 0, adds nothing.
        weights: (num_sequences,) finite.
        names: of ``model.named_parameters()``; tied weights count under their first name, with
            both their uses.
        token_budget: tokens a pack holds, which bounds the activations kept. None is 1024 on a CPU
            and 8192 on a GPU; a longer sequence is a pack of its own.
        on_progress: called with sequences done and sequences in all.

    Raises:
        ValueError: the model is in training mode, the weights are not as above, a name is of no
            floating-point parameter, or a sequence has noise.
        RuntimeError: a gradient is not finite, or the model does not keep packed sequences apart.
    """
    if model.training:
        raise ValueError("loss_gradient needs a model in evaluation mode: call model.eval()")
    weights = np.asarray(weights, dtype=np.float64)
    _check(sequences, weights)
    chosen = _parameters(model, names)
    assert_isolated(model)
    counted = [i for i, s in enumerate(sequences) if weights[i] != 0 and s.num_scored]
    # Half precision has few exponents: the largest weight becomes 1 to 2, exactly, for the pass.
    scale = 2.0 ** math.floor(math.log2(np.abs(weights[counted]).max())) if counted else 1.0
    sums = {name: torch.zeros_like(p, dtype=_wide(p)) for name, p in chosen.items()}
    value = 0.0
    tokens = token_budget or (_CPU_BUDGET if model.device.type == "cpu" else _CUDA_BUDGET)
    window, done = [sequences[i] for i in counted], len(sequences) - len(counted)
    with _differentiable(model, list(chosen.values())):
        head = output_head(model)
        for members, pack in plan_stream([window], lambda _: budget_of(tokens)):
            share = weights[[counted[member] for member in members]] / scale
            value += _add_gradient(model, head, pack, share, chosen, sums)
            done += len(members)
            if on_progress is not None:
                on_progress(done, len(sequences))
    for total in sums.values():
        total.mul_(scale)
    _require_finite(sums)
    return LossGradient(value * scale, sums)


def _add_gradient(
    model: PreTrainedModel,
    head: OutputHead,
    pack: Sequence[ScoredSequence],
    weights: NDArray[np.float64],
    chosen: dict[str, torch.nn.Parameter],
    sums: dict[str, Tensor],
) -> float:
    """Add one pack's gradient to ``sums``; its weighted loss."""
    batch = pack_sequences([s.input_ids for s in pack], [s.labels for s in pack])
    of_rows = torch.from_numpy(np.repeat(weights, np.diff(batch.cu_rows))).to(model.device)
    batch = batch.to(model.device)
    nll = head.nll(hidden_states(model, batch)[batch.rows], batch.targets)
    loss = (nll.double() * of_rows).sum()
    if loss.requires_grad:  # not if no chosen parameter was met at all
        parts = torch.autograd.grad(loss, list(chosen.values()), allow_unused=True)
        for total, part in zip(sums.values(), parts, strict=True):
            if part is not None:
                total.add_(part)
    return float(loss.detach())


@contextmanager
def _differentiable(model: PreTrainedModel, chosen: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    """The chosen parameters and no others require a gradient, whatever mode the caller is in."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, was in before:
            if was:
                parameter.requires_grad_(False)
        for parameter in chosen:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for parameter, was in before:
            if parameter.requires_grad != was:
                parameter.requires_grad_(was)


def _parameters(model: PreTrainedModel, names: Sequence[str]) -> dict[str, torch.nn.Parameter]:
    every = dict(model.named_parameters())
    for name in names:
        if name not in every or not every[name].is_floating_point():
            raise ValueError(f"names must be of floating-point parameters of the model: {name!r}")
    if len(set(names)) != len(names) or len(names) == 0:
        raise ValueError(f"names must be at least one and differ, got {list(names)[:4]}")
    return {name: every[name] for name in names}


def _check(sequences: Sequence[ScoredSequence], weights: NDArray[np.float64]) -> None:
    if weights.shape != (len(sequences),) or not np.isfinite(weights).all():
        raise ValueError(
            f"weights must be finite, one for each of {len(sequences)} sequences, got shape "
            f"{weights.shape}"
        )
    for index, sequence in enumerate(sequences):
        if sequence.noise is not None:
            raise ValueError(f"loss_gradient takes no noise, sequences[{index}] has some")


def _wide(parameter: Tensor) -> torch.dtype:
    return torch.float64 if parameter.dtype == torch.float64 else torch.float32


def _require_finite(gradient: dict[str, Tensor]) -> None:
    finite = torch.stack([total.isfinite().all() for total in gradient.values()]).tolist()
    for name, is_finite in zip(gradient, finite, strict=True):
        if not is_finite:
            raise RuntimeError(f"the gradient of the loss is not finite at parameter {name!r}")
