"""The native module; ``codeact.ops`` is its only caller. Device memory crosses as addresses."""

from typing import Any

import numpy as np
import numpy.typing as npt

built_with_cuda: bool

def cuda_usable() -> bool:
    """A CUDA kernel can be launched: built with CUDA, a recent enough driver, a device."""

def pack_best_fit(
    seqlens: npt.NDArray[np.int32], capacity: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]: ...
def pack_next_fit(seqlens: npt.NDArray[np.int32], capacity: int) -> npt.NDArray[np.int64]: ...
def pack_window(
    seqlens: npt.NDArray[np.int32],
    ages: npt.NDArray[np.int32],
    capacity: int,
    max_carry: int,
    close_all: bool,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], int]: ...
def pack_windows(
    seqlens: npt.NDArray[np.int32], capacity: int, window: int, tail: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """``tail`` 0 is what remains after the full windows."""

def shuffled(num_items: int, seed: int, epoch: int) -> npt.NDArray[np.int32]: ...
def gather_tokens(
    values: npt.NDArray[np.integer[Any]],
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    out: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """``values`` is int16, uint16, int32, uint32 or int64."""

def pack_layout(
    seqlens: npt.NDArray[np.int32],
    position_ids: npt.NDArray[np.int64] | None = None,
    seq_idx: npt.NDArray[np.int32] | None = None,
    cu_seqlens: npt.NDArray[np.int32] | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32]]: ...

# Reductions over rows in memory, csrc/row_reduce.h. Plain ints are addresses, 0 for none: int64 for
# labels, excluded and index, float32 for the rest; `dtype` is float32, float16 or bfloat16.
def lse_rows(
    tile: int,
    num_rows: int,
    num_cols: int,
    stride: int,
    bias: int,
    scale: float,
    softcap: float,
    temperature: float,
    labels: int,
    first_col: int,
    maximum: int,
    sum: int,  # noqa: A002
    label: int,
    expected: int,
    num_threads: int,
) -> None: ...
def lse_tangent_rows(
    tile: int,
    tangent_tile: int,
    num_rows: int,
    num_cols: int,
    stride: int,
    bias: int,
    bias_tangent: int,
    scale: float,
    softcap: float,
    temperature: float,
    labels: int,
    first_col: int,
    maximum: int,
    sum: int,  # noqa: A002
    label: int,
    weighted: int,
    label_tangent: int,
    num_threads: int,
) -> None: ...
def max_rows(
    tile: int,
    num_rows: int,
    num_cols: int,
    stride: int,
    bias: int,
    excluded: int,
    first_col: int,
    best: int,
    index: int,
    num_threads: int,
) -> None: ...
def square_lse(
    points: int,
    num_points: int,
    samples: int,
    num_samples: int,
    sample_stride: int,
    dim: int,
    scale: float,
    cutoff: float,
    maximum: int,
    sum: int,  # noqa: A002
    num_threads: int,
) -> None:
    """``sum`` is float64."""

def square_max(
    points: int,
    num_points: int,
    samples: int,
    num_samples: int,
    sample_stride: int,
    dim: int,
    excluded: int,
    best: int,
    index: int,
    num_threads: int,
) -> None: ...
def nll_rows(
    logits: int,
    dtype: str,
    num_rows: int,
    num_cols: int,
    stride: int,
    labels: int,
    ignore_index: int,
    nll: int,
    num_threads: int,
) -> None: ...
def softmax_gradient_rows(
    logits: int,
    dtype: str,
    num_rows: int,
    num_cols: int,
    stride: int,
    bias: int,
    scale: float,
    softcap: float,
    temperature: float,
    labels: int,
    ignore_index: int,
    row_weights: int,
    nll: int,
    gradient: int,
    gradient_stride: int,
    num_threads: int,
) -> None: ...

# Nearest neighbours, csrc/neighbours.h. Plain ints are addresses: int64 for excluded, index, left
# and right, int32 for components, float64 for the squared distances of pairs, float32 for the rest.
def nearest_rows(
    tile: int,
    num_rows: int,
    num_cols: int,
    stride: int,
    row_squares: int,
    col_squares: int,
    first_col: int,
    excluded: int,
    k: int,
    squared: int,
    index: int,
    num_threads: int,
) -> None: ...
def reach_rows(
    tile: int,
    num_rows: int,
    num_cols: int,
    stride: int,
    row_squares: int,
    col_squares: int,
    first_col: int,
    col_floor: int,
    row_component: int,
    col_component: int,
    best: int,
    index: int,
    second: int,
    num_threads: int,
) -> None: ...
def squared_distances(
    points: int,
    dim: int,
    stride: int,
    left: int,
    right: int,
    num_pairs: int,
    squared: int,
    num_threads: int,
) -> None: ...

# The search for many strings at once, csrc/text_match.h. Texts are UTF-8, lower case beyond ASCII.
def text_index(
    patterns: list[bytes], documents: list[bytes], ngram: int
) -> tuple[object, npt.NDArray[np.int32]]:
    """The index, for ``find_texts`` only, and each document's number of different n-grams."""

def find_texts(
    index: object, texts: list[bytes], needed: npt.NDArray[np.int32], num_threads: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Rows of (text, pattern), and of (text, document, shared)."""

# Steps of k-means, csrc/kmeans.h; float32 where nothing else is said.
def kmeans_assign(
    points: npt.NDArray[np.float32],
    squares: npt.NDArray[np.float32],
    centroids: npt.NDArray[np.float32],
    panels: npt.NDArray[np.float32],
    half_squares: npt.NDArray[np.float32],
    shifts: npt.NDArray[np.float32] | None,
    panel_shifts: npt.NDArray[np.float32] | None,
    tolerance: float,
    max_square: float,
    labels: npt.NDArray[np.int32],
    upper: npt.NDArray[np.float32],
    lower: npt.NDArray[np.float32],
    rounder: float,
    sums: npt.NDArray[np.float64],
    counts: npt.NDArray[np.int64],
    num_threads: int,
) -> tuple[int, int]:
    """Rows that moved, and pairs of a row and a panel of 16 centroids that were multiplied."""

def kmeans_candidates(
    points: npt.NDArray[np.float32],
    squares: npt.NDArray[np.float32],
    candidates: npt.NDArray[np.float32],
    panels: npt.NDArray[np.float32],
    half_squares: npt.NDArray[np.float32],
    tolerance: float,
    nearest: npt.NDArray[np.float32],
    left: npt.NDArray[np.float32],
    potentials: npt.NDArray[np.float64],
    num_threads: int,
) -> None: ...
def kmeans_arrange(
    points: npt.NDArray[np.float32],
    order: npt.NDArray[np.int64],
    centre: npt.NDArray[np.float32],
    arranged: npt.NDArray[np.float32],
    squares: npt.NDArray[np.float32],
    num_threads: int,
) -> float:
    """The largest absolute value of ``arranged``."""

def kmeans_distances(
    points: npt.NDArray[np.float32],
    centroids: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    distances: npt.NDArray[np.float32],
    num_threads: int,
) -> None: ...

# Only where built_with_cuda. A `stream` is of the current device; work is enqueued, not awaited.
def gather_pack(
    input_ids: int,
    labels: int,
    starts: int,
    cu_tokens: int,
    cu_rows: int,
    num_seqs: int,
    ignore_index: int,
    out_ids: int,
    position_ids: int,
    cu_seqlens: int,
    rows: int,
    targets: int,
    stream: int,
) -> None: ...
def token_nll(
    logits: int,
    targets: int,
    nll: int,
    num_tokens: int,
    vocab_size: int,
    logits_stride: int,
    dtype: str,
    ignore_index: int,
    stream: int,
) -> None: ...
def row_lse_workspace(
    num_rows: int, num_columns: int, dim: int, row_stride: int, column_stride: int
) -> int: ...
def row_lse(
    rows: int,
    columns: int,
    labels: int,
    num_rows: int,
    num_columns: int,
    dim: int,
    row_stride: int,
    column_stride: int,
    bias: int,
    scale: float,
    softcap: float,
    temperature: float,
    skip: int,
    workspace: int,
    lse: int,
    label_logits: int,
    stream: int,
) -> None: ...
