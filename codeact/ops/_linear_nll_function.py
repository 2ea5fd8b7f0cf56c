"""Autograd of :func:`codeact.ops.linear_nll`: a value, a gradient and a tangent, all streamed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from codeact.ops._backend import Backend
from codeact.ops.linear_nll_gradient import linear_nll_gradients
from codeact.ops.streamed import Logits, row_lse, row_lse_tangent

_ONCE = (
    "linear_nll is differentiable once, in reverse or in forward mode, but this derives its "
    "derivative again; use backend='reference' for that"
)


class LinearNll(torch.autograd.Function):
    """:func:`linear_nll` by streamed reductions. Its derivatives are operations of their own.

    As such they refuse, level by level, what torch.func stacks on them: a derivative of a
    derivative is an error, not a constant.
    """

    @staticmethod
    def forward(
        hidden_states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        logits: Logits,
        ignore_index: int,
        backend: Backend,
    ) -> Tensor:
        found = row_lse(
            hidden_states.detach(),
            weight.detach(),
            targets,
            bias=None if bias is None else bias.detach(),
            logits=logits,
            skip=ignore_index,
            backend=backend,
        )
        return (found.lse - found.label_logits).masked_fill_(targets == ignore_index, 0.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, logits, ignore_index, backend = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.options = logits, ignore_index, backend
        ctx.set_materialize_grads(False)  # an input without a tangent needs no product

    @staticmethod
    def backward(ctx: Any, nll_gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        if nll_gradient is None:
            return (None,) * 7
        wanted = tuple(ctx.needs_input_grad[:3])
        gradients = _Gradients.apply(  # type: ignore[no-untyped-call]
            *ctx.saved_tensors, nll_gradient, *ctx.options, wanted
        )
        return (*gradients, None, None, None, None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor | None:
        along = tangents[:3]
        if all(tangent is None for tangent in along):
            return None
        nll_tangent: Tensor = _Tangent.apply(  # type: ignore[no-untyped-call]
            *ctx.saved_tensors, *along, *ctx.options
        )
        return nll_tangent


class _Derivative(torch.autograd.Function):
    """A derivative that is not differentiable again."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        raise RuntimeError(_ONCE)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError(_ONCE)


class _Gradients(_Derivative):
    @staticmethod
    def forward(
        hidden_states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        nll_gradient: Tensor,
        logits: Logits,
        ignore_index: int,
        backend: Backend,
        wanted: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, ...]:
        gradients = linear_nll_gradients(
            hidden_states.detach(),
            weight.detach(),
            targets,
            nll_gradient.detach().float(),
            bias=None if bias is None else bias.detach(),
            logits=logits,
            ignore_index=ignore_index,
            want_hidden=wanted[0],
            want_weight=wanted[1],
            want_bias=wanted[2],
            backend=backend,
        )
        return gradients.hidden_states, gradients.weight, gradients.bias


class _Tangent(_Derivative):
    @staticmethod
    def forward(
        hidden_states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        hidden_tangent: Tensor | None,
        weight_tangent: Tensor | None,
        bias_tangent: Tensor | None,
        logits: Logits,
        ignore_index: int,
        backend: Backend,
    ) -> Tensor:
        found = row_lse_tangent(
            hidden_states.detach(),
            weight.detach(),
            targets,
            *(None if x is None else x.detach() for x in (hidden_tangent, weight_tangent)),
            bias=None if bias is None else bias.detach(),
            bias_tangent=None if bias_tangent is None else bias_tangent.detach(),
            logits=logits,
            skip=ignore_index,
            backend=backend,
        )
        nll_tangent = found.lse_tangent - found.label_tangent
        return nll_tangent.masked_fill_(targets == ignore_index, 0.0)
