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


def arranged_points(
    rows: Rows, embeddings: NDArray[np.float32], device: str, form: Literal["centred", "unit"]
) -> Tensor:
    """(num_rows, dim) float32 in the order of places, less their mean or of unit length.

    Distances do not change with the mean gone, but products then cancel least.

    Raises:
        InputError: A row has no direction, or the device is not there.
    """
    # A copy only of what cannot be written to: torch warns of it, though nothing here writes.
    points = torch.from_numpy(np.require(rows.arranged(embeddings), requirements="W"))
    if form == "centred":
        points = points - points.mean(dim=0, dtype=torch.float64).float()
    else:
        points = torch.nn.functional.normalize(points, dim=1, eps=0)
        bad = (~points.isfinite().all(dim=1)).nonzero()[:, 0].numpy()
        if len(bad):
            raise InputError(
                f"embeddings must have no row of zeros, whose direction is unknown, got {len(bad)} "
                f"of {len(points)}, first in row {rows.order[bad].min()}"
            )
    return points.to(resolve_device(device))
