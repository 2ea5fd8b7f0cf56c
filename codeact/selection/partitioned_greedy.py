"""Facility location part by part, each part exactly, merged into one order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from codeact.selection.arranged_points import arranged_points
from codeact.selection.budget import split_by_largest_remainder
from codeact.selection.coverage import Coverage
from codeact.selection.lazy_greedy import LazyGreedy, lazy_greedy
from codeact.selection.room import Room
from codeact.selection.rows import Rows


def partitioned_greedy(
    rows: Rows,
    embeddings: NDArray[np.float32],
    room: Room,
    parts: Sequence[NDArray[np.int64]],
    similarity: Literal["euclidean", "cosine"],
    device: str,
) -> LazyGreedy:
    """:func:`lazy_greedy` within each part; all numbers are places, not row indices.

    Args:
        rows: Of the set.
        embeddings: (num_rows, dim) by row index.
        room: For all rows; its ``total`` is shared out by the costs of the parts.
        parts: Places, a partition of those that may be kept.
        similarity: Of :class:`Coverage`.
        device: For the products.

    Returns:
        The places kept by falling gain, and the losses of all places: 1 outside of the parts.
    """
    form: Literal["centred", "unit"] = "unit" if similarity == "cosine" else "centred"
    points = arranged_points(rows, embeddings, device, form)
    sizes = np.array([room.costs[part].sum() for part in parts], dtype=np.int64)
    quotas = split_by_largest_remainder(room.total, sizes, np.arange(len(parts)))
    losses = np.ones(len(points), dtype=np.float32)
    orders, gains, num_measured = [], [], 0
    for part, quota in zip(parts, quotas.tolist(), strict=True):
        part = np.sort(part)  # ties go by place
        whole = len(part) == len(points)
        found = lazy_greedy(
            Coverage(points if whole else points[torch.from_numpy(part)], similarity),
            room.among(part, quota),
        )
        losses[part] = found.losses
        num_measured += found.num_measured
        orders.append(part[found.order])
        gains.append(np.minimum.accumulate(found.gains))  # rounding must not swap two rows
    order, gain = np.concatenate(orders), np.concatenate(gains)
    best = np.argsort(-gain, kind="stable")
    order, gain = order[best], gain[best]
    room.fill(order)
    # What the parts left free of a budget in tokens, for the rows covered worst.
    rest = np.setdiff1d(np.concatenate(parts), order)
    fill = room.fill(rest[np.lexsort((rest, -losses[rest]))])
    losses[fill] = 0
    gain = np.concatenate([gain, np.full(len(fill), np.nan)])
    return LazyGreedy(np.concatenate([order, fill]), gain, losses, num_measured)
