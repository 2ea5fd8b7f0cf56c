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
