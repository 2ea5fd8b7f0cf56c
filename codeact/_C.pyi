"""The native module; ``codeact.ops`` is its only caller. Device memory crosses as addresses."""

import numpy as np
import numpy.typing as npt

built_with_cuda: bool

def cuda_usable() -> bool:
    """A CUDA kernel can be launched: built with CUDA, a recent enough driver, a device."""

def pack_best_fit(
    seqlens: npt.NDArray[np.int32], capacity: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]: ...

# Only where built_with_cuda. Enqueues on `stream` of the current device and does not wait.
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
