"""The definition of the streamed reductions: all logits at once, in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from codeact.ops._products import exact_products


def row_logits(
    rows: Tensor,
    columns: Tensor,
    bias: Tensor | None,
    scale: float = 1.0,
    softcap: float | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """(num_rows, num_columns) logits, float32, or float64 if the rows are; differentiable."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    with exact_products(rows.device, dtype):
        logits = scale * F.linear(rows.to(dtype), columns.to(dtype))
    if bias is not None:
        logits = logits + bias.to(dtype)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits / temperature


def row_lse(
    rows: Tensor,
    columns: Tensor,
    labels: Tensor | None,
    bias: Tensor | None,
    scale: float,
    softcap: float | None,
    temperature: float,
    skip: int | None,
    expectation: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    logits = row_logits(rows, columns, bias, scale, softcap, temperature)
    lse = _lse(logits)
    expected = None
    if expectation:
        share = torch.exp(logits - lse[:, None])
        nothing = logits.isneginf() & ~lse.isneginf()[:, None]  # no probability, if any has one
        expected = torch.where(nothing, 0.0, share * logits).sum(dim=1)
    return lse, _at_labels(logits, labels), expected


def row_lse_tangent(
    rows: Tensor,
    columns: Tensor,
    labels: Tensor,
    rows_tangent: Tensor | None,
    columns_tangent: Tensor | None,
    bias: Tensor | None,
    bias_tangent: Tensor | None,
    scale: float,
    softcap: float | None,
    temperature: float,
    skip: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    logits = row_logits(rows, columns, bias, scale, softcap, temperature)
    tangent = torch.zeros_like(logits)
    if rows_tangent is not None:
        tangent += row_logits(rows_tangent, columns, None, scale)
    if columns_tangent is not None:
        tangent += row_logits(rows, columns_tangent, None, scale)
    if bias_tangent is not None:
        tangent += bias_tangent.to(tangent.dtype)
    if softcap is not None:
        tangent *= 1 - (logits * temperature / softcap) ** 2
    tangent /= temperature
    lse = _lse(logits)
    weighted = (torch.exp(logits - lse[:, None]) * tangent).sum(dim=1)
    return lse, _at_labels(logits, labels), weighted, _at_labels(tangent, labels)


def row_max(
    rows: Tensor, columns: Tensor, bias: Tensor | None, excluded: Tensor | None
) -> tuple[Tensor, Tensor]:
    values = row_logits(rows, columns, bias)
    if excluded is not None:
        column = torch.arange(values.shape[1], device=values.device)
        values = values.masked_fill(column == excluded[:, None], float("-inf"))
    best, index = values.max(dim=1)
    # torch.max leaves open which of equal columns it names; the first is ours.
    same = (values == best[:, None]) | (values.isnan() & best.isnan()[:, None])
    index = torch.where(same.any(dim=1), same.int().argmax(dim=1), index)
    return best, index.masked_fill(best.isneginf(), -1)


def _lse(logits: Tensor) -> Tensor:
    # torch.logsumexp gives +inf for a row with +inf in it, whose probabilities are undefined.
    return torch.logsumexp(logits, dim=1).masked_fill(logits.isposinf().any(dim=1), float("nan"))


def _at_labels(logits: Tensor, labels: Tensor | None) -> Tensor:
    if labels is None:
        return logits.new_full(logits.shape[:1], float("nan"))
    is_column = (labels >= 0) & (labels < logits.shape[1])
    picked = logits.gather(1, torch.where(is_column, labels, 0)[:, None])[:, 0]
    return picked.masked_fill(~is_column, float("nan"))
