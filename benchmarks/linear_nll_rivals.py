"""Losses from hidden states as other projects compute them; what is not installed is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rival:
    """Another way to the same numbers.

    Attributes:
        name: with its version.
        nll: (num_tokens,) losses of (hidden_states, weight, targets); None if it gives only a sum.
        loss: their sum, differentiable.
    """

    name: str
    nll: Loss | None
    loss: Loss


def rivals(device: torch.device) -> list[Rival]:
    """Those that are installed and run on ``device``."""
    found = [Rival("all logits", all_logits, lambda x, w, t: all_logits(x, w, t).sum())]
    if hasattr(F, "linear_cross_entropy"):
        found.append(Rival(f"torch {torch.__version__} chunked", _torch_nll, _torch_loss))
    if device.type != "cuda":
        return found  # the others are made of Triton and CUTLASS kernels
    for package, make in (
        ("liger-kernel", _liger), ("cut-cross-entropy", _cce), ("quack-kernels", _quack),
    ):  # fmt: skip
        if find_spec(MODULES[package]) is None:
            print(f"{package} is not installed: left out")
            continue
        found.append(make(f"{package} {metadata.version(package)}"))
    return found


MODULES = {
    "liger-kernel": "liger_kernel",
    "cut-cross-entropy": "cut_cross_entropy",
    "quack-kernels": "quack",
}


def all_logits(hidden_states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """What most code does: every logit in memory, twice where they are cast to float32."""
    logits = F.linear(hidden_states, weight).float()
    return F.cross_entropy(logits, targets, reduction="none")


def _torch(reduction: str) -> Loss:
    from torch.nn import LinearCrossEntropyOptions

    def call(hidden_states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return F.linear_cross_entropy(
            hidden_states, weight, targets, reduction=reduction, options=LinearCrossEntropyOptions()
        )

    return call


def _torch_nll(hidden_states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return _torch("none")(hidden_states, weight, targets)


def _torch_loss(hidden_states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return _torch("sum")(hidden_states, weight, targets)


def _liger(name: str) -> Rival:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    def call(reduction: str) -> Loss:
        return lambda x, w, t: liger_fused_linear_cross_entropy(x, w, t, reduction=reduction)

    return Rival(name, call("none"), call("sum"))


def _cce(name: str) -> Rival:
    from cut_cross_entropy import linear_cross_entropy

    def call(reduction: str) -> Loss:
        return lambda x, w, t: linear_cross_entropy(x, w, t, reduction=reduction)

    return Rival(name, call("none"), call("sum"))


def _quack(name: str) -> Rival:
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    return Rival(name, None, lambda x, w, t: chunked_linear_cross_entropy(x, w, t, reduction="sum"))
