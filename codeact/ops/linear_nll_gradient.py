"""Gradients of the per-token loss with respect to hidden states and output projection.

With N rows, D hidden units and V columns the logits and each gradient are 2NDV operations, and no
tensor of N x V elements exists: :mod:`codeact.ops._gradient_chunks` takes some rows at a time, few
enough for a workspace (as Hsu et al., Liger Kernel, arXiv:2410.10989) yet as many as it holds,
since small chunks starve the products.
"""

from __future__ import annotations

import torch
from torch import Tensor

from codeact.ops._backend import Backend
from codeact.ops._derivatives import refuse_derivatives
from codeact.ops._gradient_chunks import Gradients, Request, gradients_by_chunks
from codeact.ops._products import exact_products
from codeact.ops.streamed import Logits, choose_backend

# 341 rows of 49152 columns, enough for the products of a CPU.
_CPU_WORKSPACE = 64 << 20
# 2048 rows of 128256 columns.
_CUDA_WORKSPACE = 1 << 30


def linear_nll_gradients(
    hidden_states: Tensor,
    weight: Tensor,
    targets: Tensor,
    row_gradients: Tensor | None,
    *,
    bias: Tensor | None,
    logits: Logits,
    ignore_index: int,
    want_hidden: bool,
    want_weight: bool,
    want_bias: bool,
    workspace_bytes: int | None = None,
    backend: Backend = "auto",
) -> Gradients:
    """Losses as of :func:`linear_nll`, and the gradients of ``sum(row_gradients * nll)``.

    Sums are float32 until the end, the sum over chunks too, so that the number of chunks does not
    show in the gradient of the weight. Not differentiable itself.

    Args:
        hidden_states: (num_tokens, hidden_size) float32, float16 or bfloat16 (float64 in the
            reference).
        weight: (vocab_size, hidden_size), of the same dtype.
        targets: (num_tokens,) int64. A target that is neither a column nor ``ignore_index`` makes
            its loss, and every gradient that it reaches, NaN.
        row_gradients: (num_tokens,), the derivative of the result with respect to each loss; None
            is ones. Those of ignored positions do not count.
        bias: (vocab_size,) or None.
        logits: the way from a product to a logit.
        ignore_index: the target of a position that is left out.
        want_hidden, want_weight, want_bias: which gradients to make; the others cost nothing.
        workspace_bytes: the most that a chunk of logits may take, if that leaves it 16 rows, on
            CUDA 1024. None is 64 MiB on a CPU, 1 GiB on CUDA.
        backend: ``"cpu"``, ``"triton"`` or ``"reference"`` for the step from logits to their
            gradient. With ``"triton"`` that gradient has the dtype of ``hidden_states``, as the
            tensor cores take it; elsewhere it is float32.

    Returns:
        The gradients in the dtype of what they are gradients of.
    """
    found = unrounded_gradients(
        hidden_states,
        weight,
        targets,
        row_gradients,
        bias=bias,
        logits=logits,
        ignore_index=ignore_index,
        wanted=(want_hidden, want_weight, want_bias),
        workspace_bytes=workspace_bytes,
        backend=backend,
    )
    likes = (hidden_states, weight, bias)
    gradients = [
        None if gradient is None or like is None else gradient.to(like.dtype)
        for gradient, like in zip(found[1:], likes, strict=True)
    ]
    return Gradients(found.nll, *gradients)


def unrounded_gradients(
    hidden_states: Tensor,
    weight: Tensor,
    targets: Tensor,
    row_gradients: Tensor | None,
    *,
    bias: Tensor | None,
    logits: Logits,
    ignore_index: int,
    wanted: tuple[bool, bool, bool],
    workspace_bytes: int | None,
    backend: Backend,
) -> Gradients:
    """:func:`linear_nll_gradients` before the gradients are rounded: float32, or float64."""
    check_linear(
        "linear_nll_gradients", hidden_states, weight, targets, bias, logits, row_gradients
    )
    refuse_derivatives("linear_nll_gradients", hidden_states, weight, bias, row_gradients)
    chosen = choose_backend(backend, hidden_states)
    if workspace_bytes is None:
        workspace_bytes = _CUDA_WORKSPACE if hidden_states.is_cuda else _CPU_WORKSPACE
    request = Request(logits, ignore_index, wanted, workspace_bytes, chosen)
    # Only Triton multiplies half precision as it is.
    dtype = hidden_states.dtype
    factor = dtype if chosen == "triton" else torch.promote_types(dtype, torch.float32)
    with exact_products(hidden_states.device, factor):
        if hidden_states.is_cuda or chosen == "triton":
            # The number of scored rows is on the device; asking for it would wait.
            return gradients_by_chunks(hidden_states, weight, targets, row_gradients, bias, request)
        rows = (targets != ignore_index).nonzero()[:, 0]
        if len(rows) == len(targets):
            return gradients_by_chunks(hidden_states, weight, targets, row_gradients, bias, request)
        row_gradients = None if row_gradients is None else row_gradients[rows]
        found = gradients_by_chunks(
            hidden_states[rows], weight, targets[rows], row_gradients, bias, request
        )
    nll = found.nll.new_zeros(len(targets)).index_copy_(0, rows, found.nll)
    hidden_gradient = found.hidden_states
    if hidden_gradient is not None:
        zeros = hidden_gradient.new_zeros(hidden_states.shape)
        hidden_gradient = zeros.index_copy_(0, rows, hidden_gradient)
    return Gradients(nll, hidden_gradient, found.weight, found.bias)


def check_linear(
    operation: str,
    hidden_states: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    logits: Logits,
    row_gradients: Tensor | None = None,
) -> None:
    """What every operation on ``hidden_states @ weight.T`` and its targets asks of them."""
    tensors = (hidden_states, weight, targets, bias, row_gradients)
    given = [tensor for tensor in tensors if tensor is not None]
    if (
        hidden_states.ndim != 2
        or weight.ndim != 2
        or len(weight) == 0
        or weight.shape[1] != hidden_states.shape[1]
        or targets.shape != hidden_states.shape[:1]
        or (bias is not None and bias.shape != weight.shape[:1])
        or (row_gradients is not None and row_gradients.shape != targets.shape)
    ):
        shapes = ", ".join(str(None if x is None else tuple(x.shape)) for x in tensors)
        raise ValueError(
            f"{operation} expects hidden_states (num_tokens, hidden_size), weight (vocab_size > 0, "
            "hidden_size), targets (num_tokens,), bias (vocab_size,) or None and any row_gradients "
            f"(num_tokens,), got {shapes}"
        )
    if hidden_states.dtype != weight.dtype or targets.dtype != torch.int64:
        raise ValueError(
            f"{operation} expects hidden_states and weight of one dtype and int64 targets, got "
            f"{hidden_states.dtype}, {weight.dtype} and {targets.dtype}"
        )
    if not all(x.is_floating_point() for x in (hidden_states, bias) if x is not None):
        raise ValueError(
            f"{operation} expects floating point, got hidden_states {hidden_states.dtype} and bias "
            f"{None if bias is None else bias.dtype}"
        )
    if len({tensor.device for tensor in given}) > 1:
        devices = ", ".join(str(None if x is None else x.device) for x in tensors)
        raise ValueError(f"{operation} expects one device, got {devices}")
    if not logits.temperature > 0 or not (logits.softcap is None or logits.softcap > 0):
        raise ValueError(f"temperature and softcap must be positive, got {logits}")
