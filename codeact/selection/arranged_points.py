"""Embeddings as the greedy methods walk through them: in the order of places, on a device."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codeact.errors import InputError
from codeact.ops.device import resolve_device
from codeact.selection.rows import Rows

_BLOCK = 8192  # rows


def arranged_points(
    rows: Rows, embeddings: NDArray[np.float32], device: str, form: Literal["centred", "unit"]
) -> Tensor:
    """(num_rows, dim) float32 in the order of places, less their mean or of unit length.

    Distances do not change with the mean gone, but products then cancel least.

    Raises:
        InputError: A row has no direction, or the device is not there.
    """
    arranged = rows.arranged(embeddings)
    # One copy and no more: a million rows of 768 take 3 GiB.
    points = torch.from_numpy(arranged.copy() if arranged is embeddings else arranged)
    if form == "centred":
        points -= _mean(points)
    else:
        lengths = torch.linalg.vector_norm(points, dim=1)
        bad = (~(lengths > 0)).nonzero()[:, 0].numpy()
        points /= lengths[:, None]
        if len(bad):
            raise InputError(
                f"embeddings must have no row of zeros, whose direction is unknown, got {len(bad)} "
                f"of {len(points)}, first in row {rows.order[bad].min()}"
            )
    return points.to(resolve_device(device))


def _mean(points: Tensor) -> Tensor:
    """(dim,) mean row in float64, a block at a time: torch would convert all rows first."""
    blocks = points.split(_BLOCK)
    total = sum(block.sum(dim=0, dtype=torch.float64) for block in blocks)
    return (torch.as_tensor(total) / len(points)).float()
