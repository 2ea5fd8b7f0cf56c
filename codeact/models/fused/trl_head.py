"""What TRL's trainers ask of a model's loss: each token's log-probability, entropy and accuracy.

TRL (1.16) gives the model a forward that takes ``fused_lm_head=True`` and returns them per label,
computed in tiles of logits. Here they come from the reductions of :mod:`codeact.ops.streamed`.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers.utils.generic import ModelOutput

from codeact.models.fused.forward import ProjectedRows
from codeact.models.fused.head_call import NotFusableError
from codeact.ops.linear_nll_gradient import linear_nll_gradients
from codeact.ops.streamed import Logits, row_lse, row_max
from codeact.ops.varlen import IGNORE_INDEX

_KNOWN_OUTPUTS = {"log_probs", "entropy", "is_top1"}


@dataclass
class TokenOutput(ModelOutput):
    """As TRL's own output; per-token fields are (batch_size, seqlen - 1), 0 without a label."""

    loss: Tensor | None = None
    log_probs: Tensor | None = None
    entropy: Tensor | None = None
    is_top1: Tensor | None = None
    label_mask: Tensor | None = None
    aux_loss: Tensor | None = None


class TokenStats(NamedTuple):
    """(num_rows,) each: loss of the target, entropy, and whether the target is the likeliest."""

    nll: Tensor
    entropy: Tensor
    is_top1: Tensor


def asked_temperature(previous: Any) -> float | None:
    """The temperature of the fused head that TRL gave to a model, None where it gave none.

    Raises:
        NotFusableError: the trainer asks for what is not known here.
    """

    def is_trls(function: Any) -> bool:
        return "fused_lm_head" in getattr(getattr(function, "__code__", None), "co_varnames", ())

    function = inspect.unwrap(getattr(previous, "__func__", previous), stop=is_trls)
    if not is_trls(function):
        return None
    # TRL keeps what its trainer asked for nowhere else than in the closure of its forward.
    asked = inspect.getclosurevars(function).nonlocals
    outputs, temperature = set(asked.get("outputs", ["?"])), asked.get("temperature")
    if temperature is None or not outputs <= _KNOWN_OUTPUTS:
        raise NotFusableError(
            f"this trainer of TRL asks the loss for {sorted(outputs)} at temperature {temperature};"
            f" only {sorted(_KNOWN_OUTPUTS)} are known: leave its model as it is"
        )
    return float(temperature)


def token_stats(rows: ProjectedRows, temperature: float) -> TokenStats:
    """Of each row, the loss differentiable, by one product of logits and some rows of another."""
    hidden_states, weight, bias, form, scored = rows
    targets = scored.targets
    logits = Logits(form.scale, form.softcap, temperature)
    found: tuple[Tensor, Tensor] = _NllAndEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_states, weight, bias, targets, logits
    )
    nll, entropy = found
    with torch.no_grad():
        # Above one half nothing else can be likelier. A softcap keeps the order of logits. NaN is
        # unsure, and then found to be no maximum.
        unsure = (~(nll.detach() < math.log(2.0))).nonzero()[:, 0]
        best = row_max(
            hidden_states.detach()[unsure] * form.scale,
            weight.detach(),
            bias=None if bias is None else bias.detach(),
        )
        is_top1 = torch.ones_like(targets, dtype=torch.bool)
        is_top1[unsure] = best.indices == targets[unsure]
    return TokenStats(nll, entropy, is_top1)


class _NllAndEntropy(torch.autograd.Function):
    """The loss of each row, and the entropy, which has no gradient here as it is only logged."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        logits: Logits,
    ) -> tuple[Tensor, Tensor]:
        found = row_lse(hidden_states, weight, targets, bias=bias, logits=logits, expectation=True)
        assert found.expected is not None  # asked for
        ctx.save_for_backward(hidden_states, weight, bias, targets)
        ctx.logits = logits
        entropy = found.lse - found.expected
        ctx.mark_non_differentiable(entropy)
        return found.lse - found.label_logits, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, nll_gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden_states, weight, bias, targets = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        gradients = linear_nll_gradients(
            hidden_states, weight, targets, nll_gradient.float(), bias=bias, logits=ctx.logits,
            ignore_index=IGNORE_INDEX, want_hidden=wanted[0], want_weight=wanted[1],
            want_bias=wanted[2],
        )  # fmt: skip
        return gradients.hidden_states, gradients.weight, gradients.bias, None, None


def token_output(
    stats: TokenStats, rows: Tensor, labels: Tensor, *, is_shifted: bool
) -> TokenOutput:
    """The fields as TRL reads them, from those of the scored ``rows`` of ``labels``."""

    def spread(values: Tensor) -> Tensor:
        # Part of the graph even if no row is scored, so that backward() has something to do.
        whole = values.new_zeros(labels.numel()).index_copy(0, rows, values).view(labels.shape)
        return whole if is_shifted else whole[:, :-1]

    return TokenOutput(
        log_probs=spread(-stats.nll),
        entropy=spread(stats.entropy),
        is_top1=spread(stats.is_top1),
        label_mask=spread(torch.ones_like(stats.is_top1)),
    )
