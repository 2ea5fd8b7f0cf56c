"""Influence as it is usually computed: a backward pass for each row, and a dot product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codeact.models import ScoredSequence


def row_gradient(model: Any, row: ScoredSequence) -> list[Tensor]:
    """The gradient of a row's mean loss, a tensor a parameter, by ``loss.backward()``."""
    ids = torch.from_numpy(row.input_ids.astype(np.int64))[None].to(model.device)
    labels = torch.from_numpy(row.labels.astype(np.int64))[None].to(model.device)
    model.zero_grad(set_to_none=True)
    model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def mean_gradient(model: Any, rows: Sequence[ScoredSequence]) -> list[Tensor]:
    """The mean of the rows' gradients: the direction of a validation set."""
    total = [part.float() / len(rows) for part in row_gradient(model, rows[0])]
    for row in rows[1:]:
        for whole, part in zip(total, row_gradient(model, row), strict=True):
            whole.add_(part, alpha=1 / len(rows))
    return total


def backward_each(
    model: Any, rows: Sequence[ScoredSequence], directions: Sequence[Sequence[Tensor]]
) -> NDArray[np.float64]:
    """(num_rows, num_directions) inner products, one backward pass a row for all directions.

    A tensor at a time: usual code flattens the gradient first, which copies all of it.
    """
    found = np.zeros((len(rows), len(directions)))
    for place, row in enumerate(rows):
        gradient = row_gradient(model, row)
        for k, direction in enumerate(directions):
            dots = [
                torch.dot(g.flatten(), v.flatten().to(g.dtype))
                for g, v in zip(gradient, direction, strict=True)
            ]
            found[place, k] = float(torch.stack(dots).double().sum())
    model.zero_grad(set_to_none=True)
    return found
