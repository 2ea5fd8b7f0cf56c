"""Embeddings for benchmarks: made up, or of a file and as many as are wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_NUM_CENTRES = 300


def made_embeddings(num_rows: int, dim: int, part: int = 0) -> NDArray[np.float32]:
    """Unit vectors in 300 clusters that overlap, the variance of columns falling as 1 / rank.

    Other ``part``s are further rows of the same clusters, for sets that do not fit into memory.
    """
    rng = np.random.default_rng(0)
    scales = (1 / np.sqrt(1 + np.arange(dim))).astype(np.float32)
    centres = rng.standard_normal((_NUM_CENTRES, dim), dtype=np.float32)
    if part:
        rng = np.random.default_rng((0, part))
    vectors = rng.standard_normal((num_rows, dim), dtype=np.float32)
    vectors += 0.7 * centres[rng.integers(0, _NUM_CENTRES, num_rows)]
    vectors *= scales
    vectors += scales  # a mean that is not the origin
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def read_embeddings(path: Path, num_rows: int | None) -> NDArray[np.float32]:
    """Rows of a file; more than it has are its rows again, each moved a little."""
    vectors = np.load(path).astype(np.float32)
    if num_rows is None or num_rows <= len(vectors):
        return vectors[:num_rows]
    rng = np.random.default_rng(0)
    again = vectors[rng.integers(0, len(vectors), num_rows - len(vectors))]
    jitter = rng.standard_normal(again.shape, dtype=np.float32)
    # A tenth of an entry's usual size: near its source, yet no copy of it.
    again += 0.1 * float(vectors.std()) * jitter
    return np.concatenate([vectors, again])
