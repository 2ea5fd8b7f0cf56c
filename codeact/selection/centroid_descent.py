"""Centroids trained to lie where rows are and apart from each other: the objective of ActiveFT.

With unit rows ``f``, unit centroids ``t``, temperature ``tau`` and ``c_i`` the centroid of the
largest product with row ``i``, the loss is the mean over rows of

    -log s_i + log(s_i + balance * sum_l exp(t_l . t_{c_i} / tau)),  s_i = exp(f_i . t_{c_i} / tau)

where no gradient flows through ``t_l`` (arXiv:2303.14382, as in the code of the CodeACT authors'
follow-up). A row pulls at one centroid only, so no (num_rows, num_centroids) matrix is needed: a
streamed row maximum, a sum of rows by centroid, and blocks of the centroids' softmax.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from codeact.ops import row_max

_BLOCK = 1 << 22  # elements of a block of the centroids' products, or of gathered rows: 16 MiB


class LossGradient(NamedTuple):
    """The mean loss of some rows, its derivative, and where the rows belong."""

    loss: Tensor  # scalar
    gradient: Tensor  # (num_centroids, dim), with respect to unit centroids
    labels: Tensor  # (num_rows,) int64, the centroid of each row
    similarities: Tensor  # (num_rows,) their products


def loss_gradient(
    rows: Tensor, centroids: Tensor, *, temperature: float, balance: float
) -> LossGradient:
    """The loss of ``rows`` and its gradient, written out.

    With ``p_i = s_i / (s_i + balance * R_{c_i})`` and ``w_i = (1 - p_i) / num_rows``, a row pulls
    with ``-w_i f_i / tau``; centroid ``j`` is pushed by ``sum_{i: c_i = j} w_i`` times the mean of
    the ``t_l / tau`` under ``softmax_l(t_l . t_j / tau)``.

    Args:
        rows: (num_rows, dim) float32 or float64, of unit length.
        centroids: (num_centroids, dim), likewise.
        temperature: ``tau``.
        balance: Weight of the repulsion, above 0.
    """
    nearest = row_max(rows, centroids)
    labels = nearest.indices
    # Measured from the vectors: in the dtype of the rows, whatever the product was taken in.
    similarities = torch.cat(
        [(r * centroids[c]).sum(dim=1) for r, c in zip(*_split(rows, labels), strict=True)]
    )
    crowd, mean = _crowding(centroids, temperature)
    margin = crowd[labels] + math.log(balance) - similarities / temperature
    weights = torch.sigmoid(margin) / len(rows)
    gradient = mean * _sums(weights.unsqueeze(1), labels, len(centroids))
    for part, where, weight in zip(*_split(rows, labels, weights), strict=True):
        gradient -= _sums(part * weight.unsqueeze(1), where, len(centroids))
    loss = torch.nn.functional.softplus(margin).mean()
    return LossGradient(loss, gradient / temperature, labels, similarities)


def descend(
    rows: Tensor,
    start: Tensor,
    *,
    temperature: float,
    balance: float,
    learning_rate: float,
    num_steps: int,
    batches: list[Tensor] | None = None,
) -> tuple[Tensor, list[float]]:
    """Unit centroids after ``num_steps`` of Adam from ``start``, and the loss before each step.

    Adam moves free vectors of which the centroids are the directions: the gradient loses its part
    along them and is divided by their length.

    Args:
        rows: (num_rows, dim), of unit length.
        start: (num_centroids, dim).
        temperature: Of :func:`loss_gradient`, as is ``balance``.
        balance: See there.
        learning_rate: Of Adam, whose other settings are PyTorch's defaults.
        num_steps: At least 1.
        batches: Indices of the rows that each step reads, used in turn; None is all rows.
    """
    free = start.clone()
    adam = torch.optim.Adam([free], lr=learning_rate)
    losses = []
    for step in range(num_steps):
        lengths = free.norm(dim=1, keepdim=True)
        unit = free / lengths
        part = rows if batches is None else rows[batches[step % len(batches)]]
        found = loss_gradient(part, unit, temperature=temperature, balance=balance)
        along = (found.gradient * unit).sum(dim=1, keepdim=True)
        free.grad = (found.gradient - along * unit) / lengths
        adam.step()
        losses.append(found.loss)
    return free / free.norm(dim=1, keepdim=True), torch.stack(losses).tolist()


def _crowding(centroids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """``log sum_l exp(t_l . t_j / tau)`` of each centroid, and the softmax mean of the ``t_l``."""
    crowd = centroids.new_empty(len(centroids))
    mean = torch.empty_like(centroids)
    size = max(1, _BLOCK // len(centroids))
    for first in range(0, len(centroids), size):
        here = slice(first, first + size)
        logits = (centroids[here] @ centroids.t()).div_(temperature)
        crowd[here] = logits.logsumexp(dim=1)
        mean[here] = logits.sub_(crowd[here].unsqueeze(1)).exp_() @ centroids
    return crowd, mean


def _sums(values: Tensor, labels: Tensor, num_centroids: int) -> Tensor:
    """(num_centroids, dim): the sum of the rows of ``values`` with each label."""
    sums = values.new_zeros((num_centroids, values.shape[1]))
    if not values.is_cuda:
        return sums.index_add_(0, labels, values)
    # Atomic additions would make the sum depend on chance: a sorted order and a prefix do not.
    ordered, order = labels.sort(stable=True)
    counts = torch.bincount(ordered, minlength=num_centroids)
    return torch.segment_reduce(values[order], "sum", lengths=counts, axis=0, initial=0.0)


def _split(*parts: Tensor) -> list[tuple[Tensor, ...]]:
    """Each tensor in blocks of as many rows."""
    size = max(1, _BLOCK // parts[0].shape[1])
    return [part.split(size) for part in parts]
