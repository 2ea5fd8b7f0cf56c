"""From a block of products to its losses and their derivative with respect to the products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from codeact import _C

if TYPE_CHECKING:
    from codeact.ops.streamed import Logits


def softmax_gradient(
    products: Tensor,
    labels: Tensor,
    row_weights: Tensor | None,
    bias: Tensor | None,
    logits: Logits,
    ignore_index: int,
    *,
    dtype: torch.dtype,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Losses of whole rows, and ``row_weights * d nll / d u``, ``u = scale * products + bias``.

    Args:
        products: (num_rows, vocab_size) float32 (float64 in the reference), the columns dense,
            overwritten by all but the reference.
        labels: (num_rows,) int64; ``ignore_index`` gives a loss of 0 and a row of zeros, a label
            that is no column NaN.
        row_weights: (num_rows,) of the products' dtype, or None for ones.
        bias: (vocab_size,) of the products' dtype, or None.
        dtype: of the gradient, if Triton makes it: half precision lies in the products' memory,
            row r where row r of the products starts.

    Returns:
        nll (num_rows,) and gradient (num_rows, vocab_size).
    """
    if backend == "reference":
        return softmax_gradient_reference(products, labels, row_weights, bias, logits, ignore_index)
    if backend == "triton":
        from codeact.kernels.softmax_gradient import softmax_gradient as launch

        gradient = products
        if dtype != products.dtype:
            gradient = products.view(dtype)[:, : products.shape[1]]
        nll = launch(products, labels, row_weights, gradient, bias, *logits, ignore_index)
        return nll, gradient
    nll = torch.empty_like(labels, dtype=torch.float32)
    num_rows, num_cols = products.shape
    _C.softmax_gradient_rows(
        products.data_ptr(),
        "float32",
        num_rows,
        num_cols,
        products.stride(0),
        0 if bias is None else bias.data_ptr(),
        logits.scale,
        logits.softcap or 0.0,
        logits.temperature,
        labels.data_ptr(),
        ignore_index,
        0 if row_weights is None else row_weights.data_ptr(),
        nll.data_ptr(),
        products.data_ptr(),
        products.stride(0),
        torch.get_num_threads(),
    )
    return nll, products


def softmax_gradient_reference(
    products: Tensor,
    labels: Tensor,
    row_weights: Tensor | None,
    bias: Tensor | None,
    logits: Logits,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:
    """The definition of :func:`softmax_gradient` in plain PyTorch."""
    u = logits.scale * products
    if bias is not None:
        u = u + bias
    slope = torch.full_like(u, 1.0 / logits.temperature)
    if logits.softcap is not None:
        tanh = torch.tanh(u / logits.softcap)
        u, slope = logits.softcap * tanh, slope * (1.0 - tanh * tanh)
    log_p = torch.log_softmax(u / logits.temperature, dim=1)
    is_column = (labels >= 0) & (labels < u.shape[1])
    label = torch.where(is_column, labels, 0)[:, None]
    nll = -log_p.gather(1, label)[:, 0]
    gradient = log_p.exp().scatter_add_(1, label, torch.full_like(nll, -1.0)[:, None]) * slope
    if row_weights is not None:
        gradient *= row_weights[:, None]
    ignored = labels == ignore_index
    nll = nll.masked_fill(~is_column, torch.nan).masked_fill(ignored, 0.0)
    gradient.masked_fill_(~is_column[:, None], torch.nan)
    return nll, gradient.masked_fill_(ignored[:, None], 0.0)
