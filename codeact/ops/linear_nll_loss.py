"""The training loss straight from hidden states, its gradients made along with it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from codeact.ops._backend import Backend
from codeact.ops._derivatives import carries_tangent, eager_only
from codeact.ops.linear_nll import linear_nll
from codeact.ops.linear_nll_gradient import unrounded_gradients
from codeact.ops.streamed import Logits, choose_backend
from codeact.ops.varlen import IGNORE_INDEX


@eager_only
def linear_nll_loss(
    hidden_states: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    token_weights: Tensor | None = None,
    reduction: Literal["sum", "mean"] = "sum",
    bias: Tensor | None = None,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    temperature: float = 1.0,
    ignore_index: int = IGNORE_INDEX,
    workspace_bytes: int | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Weighted sum or mean of the losses of :func:`linear_nll`, in nats.

    ``sum_i w_i nll_i``, divided by ``sum_i w_i`` for the mean, over the positions that are scored:
    those whose target is not ``ignore_index`` and whose weight is not 0. The mean of none is 0.

    Where a gradient is wanted it is made at once, from the same logits as the loss (as Liger
    Kernel does, arXiv:2410.10989): three products of N x D x V instead of the four of
    :func:`linear_nll`, whose backward pass makes the logits again. The backward pass then
    multiplies what is kept, in float32, by one number. Neither pass holds N x V elements.

    Without a gradient, with a tangent, or inside a ``torch.func`` transform this is the weighted
    sum of :func:`linear_nll`, which has a derivative in both modes.

    Args:
        hidden_states: (num_tokens, hidden_size) float32, float16 or bfloat16; float64 runs in the
            reference.
        weight: (vocab_size, hidden_size), of the same dtype.
        targets: (num_tokens,) int64, already shifted; values are not checked.
        token_weights: (num_tokens,), a constant; None is ones.
        reduction: ``"sum"`` or ``"mean"``.
        bias: (vocab_size,) or None.
        softcap: Gemma 2's final logit cap, or None.
        logit_scale: multiplies the product of hidden states and weight.
        temperature: divides the logits.
        ignore_index: the target that is not scored.
        workspace_bytes: memory for a chunk of logits while gradients are made, see
            :func:`codeact.ops.linear_nll_gradient.linear_nll_gradients`.
        backend: ``"cpu"``, ``"triton"``, or ``"reference"``: all logits at once, plain autograd;
            ``"cuda"``, without a derivative, as of :func:`linear_nll`.

    Returns:
        () float32 (float64 of float64 inputs), on the device of ``hidden_states``.

    Raises:
        ValueError: a shape, dtype or option differs from these, or ``token_weights`` wants a
            derivative.
        RuntimeError: the gradient is itself to be differentiated, except in the reference.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean', got {reduction!r}")
    dtype = torch.promote_types(hidden_states.dtype, torch.float32)
    weights = _constant_weights(token_weights, targets != ignore_index, dtype)
    if token_weights is not None:  # a weight of 0 leaves out even a loss that is infinite
        targets = targets.where(weights != 0, ignore_index)
    if _gradient_in_forward(backend, hidden_states, weight, bias):
        how = _How(
            Logits(logit_scale, softcap, temperature), ignore_index, workspace_bytes, backend
        )
        summed: Tensor = _WeightedSum.apply(  # type: ignore[no-untyped-call]
            hidden_states, weight, bias, targets, weights, how
        )
    else:
        nll = linear_nll(
            hidden_states,
            weight,
            targets,
            bias=bias,
            softcap=softcap,
            logit_scale=logit_scale,
            temperature=temperature,
            ignore_index=ignore_index,
            backend=backend,
        )
        summed = (nll * weights).sum()
    if reduction == "sum":
        return summed
    # Weights that cancel are divided by their 0; weights that are all 0 leave a sum of 0 as it is.
    return summed / weights.sum().where((weights != 0).any(), 1.0)


class _How(NamedTuple):
    logits: Logits
    ignore_index: int
    workspace_bytes: int | None
    backend: Backend


class _WeightedSum(torch.autograd.Function):
    """``sum(weights * nll)`` of plain tensors; its gradients lie ready when the sum does."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        how: _How,
    ) -> Tensor:
        found = unrounded_gradients(
            hidden_states,
            weight,
            targets,
            weights,
            bias=bias,
            logits=how.logits,
            ignore_index=how.ignore_index,
            wanted=ctx.needs_input_grad[:3],
            workspace_bytes=how.workspace_bytes,
            backend=how.backend,
        )
        # Kept in float32 until the factor of the backward pass is known: rounded twice they would
        # be less exact, and in float16 a loss scale could not bring back what rounding to 0 lost.
        ctx.save_for_backward(hidden_states, weight, bias, *found[1:])
        return (found.nll * weights).sum()

    @staticmethod
    def backward(ctx: Any, loss_gradient: Tensor) -> tuple[Tensor | None, ...]:
        scaled = _Scaled.apply(loss_gradient, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return (*scaled, None, None, None)


class _Scaled(torch.autograd.Function):
    """``loss_gradient`` times the gradients that lie ready, rounded to the dtype of the inputs.

    An operation of its own on the inputs, so that to derive it again is an error. With
    ``once_differentiable`` its result would be a constant where ``loss_gradient`` is one, and a
    gradient penalty would do nothing.
    """

    @staticmethod
    def forward(
        ctx: Any,
        loss_gradient: Tensor,
        hidden_states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *unrounded: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        scaled: list[Tensor | None] = []
        for gradient, like in zip(unrounded, (hidden_states, weight, bias), strict=True):
            if gradient is None or like is None:
                scaled.append(None)
                continue
            out = torch.empty_like(gradient, dtype=like.dtype)
            scaled.append(torch.mul(gradient, loss_gradient, out=out))
        return tuple(scaled)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        raise RuntimeError(
            "linear_nll_loss is differentiable once, but this derives its gradient again; use "
            "backend='reference' for that"
        )


def _gradient_in_forward(backend: Backend, *inputs: Tensor | None) -> bool:
    given = [tensor for tensor in inputs if tensor is not None]
    return (
        torch.is_grad_enabled()
        and any(tensor.requires_grad for tensor in given)
        and not any(carries_tangent(tensor) for tensor in given)
        and choose_backend(backend, given[0]) != "reference"
    )


def _constant_weights(token_weights: Tensor | None, scored: Tensor, dtype: torch.dtype) -> Tensor:
    """(num_tokens,) weights as ``dtype``, 0 where nothing is scored."""
    if token_weights is None:
        return scored.to(dtype)
    if token_weights.shape != scored.shape:
        raise ValueError(
            "linear_nll_loss expects token_weights (num_tokens,), one for each of targets "
            f"{tuple(scored.shape)}, got {tuple(token_weights.shape)}"
        )
    if token_weights.requires_grad or carries_tangent(token_weights):
        raise ValueError("linear_nll_loss takes token_weights as constants; detach them")
    return token_weights.to(dtype).where(scored, 0.0)
