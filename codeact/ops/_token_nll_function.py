"""Autograd of :func:`codeact.ops.token_nll`, and the calls of the native code behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from codeact import _C

LOGITS_DTYPES = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}

# A float32 copy of this many logits is 16 MiB, of which the torch operations below make a few.
_BLOCK_ELEMENTS = 1 << 22

_ONCE = (
    "token_nll is differentiable once, in reverse or in forward mode, but this derives its "
    "derivative again; use backend='reference' for that"
)


class TokenNll(torch.autograd.Function):
    """:func:`token_nll`. Its derivatives are operations of their own, which refuse another one."""

    @staticmethod
    def forward(logits: Tensor, targets: Tensor, ignore_index: int, backend: str) -> Tensor:
        logits, targets = _dense_rows(logits), targets.contiguous()
        if backend == "cpu":
            return _nll_cpu(logits, targets, ignore_index)
        if backend == "triton":
            from codeact.kernels.token_nll import token_nll as launch  # Triton is optional

            return launch(logits, targets, ignore_index)
        return _nll_cuda(logits, targets, ignore_index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        logits, targets, *ctx.options = inputs
        ctx.save_for_backward(logits, targets)
        ctx.save_for_forward(logits, targets)

    @staticmethod
    def backward(ctx: Any, nll_gradient: Tensor) -> tuple[Tensor | None, ...]:
        gradient = _Gradient.apply(  # type: ignore[no-untyped-call]
            *ctx.saved_tensors, nll_gradient, *ctx.options
        )
        return gradient, None, None, None

    @staticmethod
    def jvp(ctx: Any, logits_tangent: Tensor, *_: None) -> Tensor:
        tangent: Tensor = _Tangent.apply(  # type: ignore[no-untyped-call]
            *ctx.saved_tensors, logits_tangent, ctx.options[0]
        )
        return tangent


class _Derivative(torch.autograd.Function):
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise RuntimeError(_ONCE)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError(_ONCE)


class _Gradient(_Derivative):
    """``nll_gradient * (softmax(logits) - onehot(targets))``, in the dtype of ``logits``."""

    @staticmethod
    def forward(
        logits: Tensor, targets: Tensor, nll_gradient: Tensor, ignore_index: int, backend: str
    ) -> Tensor:
        logits, targets = _dense_rows(logits), targets.contiguous()
        weights = nll_gradient.detach().float().contiguous()
        gradient = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
        if backend == "cpu":
            _softmax_gradient_cpu(logits, targets, weights, ignore_index, gradient)
        elif backend == "triton":
            from codeact.kernels.softmax_gradient import softmax_gradient as launch

            launch(logits, targets, weights, gradient, None, 1.0, None, 1.0, ignore_index)
        else:
            for rows, p, label in _blocks(logits, targets, ignore_index):
                p.scatter_add_(1, label, torch.full_like(p[:, :1], -1.0))
                gradient[rows] = p.mul_(weights[rows, None])
            gradient.masked_fill_((targets == ignore_index)[:, None], 0.0)
        return gradient


class _Tangent(_Derivative):
    """``sum_j softmax(logits)_j * tangent_j - tangent[targets]``, float32."""

    @staticmethod
    def forward(
        logits: Tensor, targets: Tensor, logits_tangent: Tensor, ignore_index: int
    ) -> Tensor:
        tangent = torch.empty(targets.shape, dtype=torch.float32, device=logits.device)
        for rows, p, label in _blocks(logits.detach(), targets, ignore_index):
            along = logits_tangent.detach()[rows].float()
            tangent[rows] = (p * along).sum(1) - along.gather(1, label)[:, 0]
        return tangent.masked_fill_(targets == ignore_index, 0.0)


def _blocks(
    logits: Tensor, targets: Tensor, ignore_index: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows, their softmax in float32 and their labels as a column.

    NaN stands for the softmax of a row whose label is no column; the label is 0 there.
    """
    num_rows, vocab_size = logits.shape
    step = max(1, _BLOCK_ELEMENTS // vocab_size)
    for start in range(0, num_rows, step):
        rows = slice(start, start + step)
        label = targets[rows, None]
        is_column = (label >= 0) & (label < vocab_size)
        p = logits[rows].float().softmax(1).masked_fill_(~is_column, torch.nan)
        yield rows, p, label.where(is_column, 0)


def _dense_rows(logits: Tensor) -> Tensor:
    """Without what autograd keeps beside it, each row in one piece: kernels walk along rows."""
    logits = logits.detach()
    return logits if logits.stride(1) == 1 else logits.contiguous()


def _nll_cpu(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    nll = torch.empty(targets.shape, dtype=torch.float32)
    _C.nll_rows(
        logits.data_ptr(),
        LOGITS_DTYPES[logits.dtype],
        logits.shape[0],
        logits.shape[1],
        logits.stride(0),
        targets.data_ptr(),
        ignore_index,
        nll.data_ptr(),
        torch.get_num_threads(),
    )
    return nll


def _softmax_gradient_cpu(
    logits: Tensor, targets: Tensor, weights: Tensor, ignore_index: int, gradient: Tensor
) -> None:
    _C.softmax_gradient_rows(
        logits.data_ptr(),
        LOGITS_DTYPES[logits.dtype],
        logits.shape[0],
        logits.shape[1],
        logits.stride(0),
        bias=0,
        scale=1.0,
        softcap=0.0,
        temperature=1.0,
        labels=targets.data_ptr(),
        ignore_index=ignore_index,
        row_weights=weights.data_ptr(),
        nll=0,
        gradient=gradient.data_ptr(),
        gradient_stride=gradient.stride(0),
        num_threads=torch.get_num_threads(),
    )


def _nll_cuda(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    nll = torch.empty(targets.shape, dtype=torch.float32, device=logits.device)
    with torch.cuda.device(logits.device):
        _C.token_nll(
            logits.data_ptr(),
            targets.data_ptr(),
            nll.data_ptr(),
            logits.shape[0],
            logits.shape[1],
            logits.stride(0),
            LOGITS_DTYPES[logits.dtype],
            ignore_index,
            torch.cuda.current_stream().cuda_stream,
        )
    return nll
