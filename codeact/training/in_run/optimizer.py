"""What a measurement reads from the trainer's optimizer: its rate, and Adam's preconditioner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from codeact.errors import InputError


def learning_rate(optimizer: Any) -> float:
    """Of the step to come; the scheduler has set it."""
    rates = {float(group["lr"]) for group in optimizer.param_groups}
    if len(rates) > 1:
        raise InputError(f"in-run influence needs one learning rate, got {sorted(rates)}")
    return rates.pop()


def adam_direction(
    gradient: Mapping[str, Tensor], parameters: Mapping[str, Tensor], optimizer: Any
) -> dict[str, Tensor] | None:
    """``g / (sqrt(v_hat) + eps)`` with the optimizer's own second moments as they are.

    ``v_hat = max(exp_avg_sq, (1 - beta2) * g**2) / (1 - beta2**step)``: where training has moved a
    weight less than one step on the validation set would (rows of the embedding that it has not
    met), the moment is the one after such a step, or a single token would outweigh everything. A
    weight without a state of its own, since no batch reached it yet, is at that first step.

    Args:
        gradient: g, float32, by the parameter's name.
        parameters: the tensors that the optimizer knows, by the same names.
        optimizer: an Adam or AdamW of torch, or what wraps one.

    Returns:
        None before the optimizer's first step, when there are no moments.

    Raises:
        InputError: the optimizer has no second moments.
    """
    rates = {
        id(parameter): (group["betas"][1], group["eps"])
        for group in optimizer.param_groups
        if "betas" in group
        for parameter in group["params"]
    }
    if not rates:  # an SGD without momentum keeps no state by which to tell it from a first step
        raise InputError(
            "optimizer = adamw needs the moments of Adam (exp_avg_sq), the trainer's optimizer has "
            "no betas: use optimizer = sgd"
        )
    states = {name: optimizer.state.get(parameters[name]) for name in gradient}
    if not any(states.values()):
        return None
    direction = {}
    for name, grad in gradient.items():
        state = states[name] or {"exp_avg_sq": torch.zeros_like(grad), "step": 1}
        if "exp_avg_sq" not in state or not isinstance(state["exp_avg_sq"], Tensor):
            raise InputError(
                f"optimizer = adamw needs the moments of Adam (exp_avg_sq), the trainer's keeps "
                f"{sorted(state)}: use optimizer = sgd"
            )
        beta2, eps = rates[id(parameters[name])]
        least = (1.0 - beta2) * grad.square()
        moment = torch.maximum(state["exp_avg_sq"].to(grad), least)
        correction = 1.0 - beta2 ** float(state["step"])
        direction[name] = grad / ((moment / correction).sqrt() + eps)
    return direction
