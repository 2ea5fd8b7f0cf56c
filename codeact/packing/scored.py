"""Which labels carry a loss, found in pieces so that no array is as long as the store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeact.ops.varlen import IGNORE_INDEX

LabelArray = NDArray[np.integer[Any]]
Int64Array = NDArray[np.int64]

_PIECE = 1 << 20  # tokens


def count_scored(labels: LabelArray, starts: Int64Array, stops: Int64Array) -> NDArray[np.int32]:
    """(num_spans,) int32 scored labels of spans in ascending order, beyond each first token."""
    counts = [np.empty(0, dtype=np.int32)]
    for scored, begin, end in _scored_pieces(labels, starts, stops):
        running = np.zeros(len(scored) + 1, dtype=np.int32)
        np.cumsum(scored, out=running[1:])
        counts.append(running[end] - running[np.minimum(begin + 1, end)])
    return np.concatenate(counts)


def prompt_seqlens(labels: LabelArray, starts: Int64Array, stops: Int64Array) -> NDArray[np.int32]:
    """(num_spans,) int32 tokens before each span's first scored one; all of them without any."""
    prompts = [np.empty(0, dtype=np.int32)]
    for scored, begin, end in _scored_pieces(labels, starts, stops):
        found = np.append(np.flatnonzero(scored), len(scored) + 1)  # beyond every begin + 1 too
        first = found[np.searchsorted(found, begin + 1)]
        prompts.append((np.minimum(first, end) - begin).astype(np.int32))
    return np.concatenate(prompts)


def _scored_pieces(
    labels: LabelArray, starts: Int64Array, stops: Int64Array
) -> Iterator[tuple[NDArray[np.bool_], Int64Array, Int64Array]]:
    """Labels != ``IGNORE_INDEX`` of about a million tokens at a time, and the spans inside."""
    first = 0
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(stops, starts[first] + _PIECE, side="right")))
        base = int(starts[first])
        scored = labels[base : int(stops[first:last].max())] != IGNORE_INDEX
        yield scored, starts[first:last] - base, stops[first:last] - base
        first = last
