"""Negative log-likelihood of target tokens, from logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from codeact import _C
from codeact.ops._backend import Backend, refuse_tangent, resolve_backend
from codeact.ops.varlen import IGNORE_INDEX

_LOGITS_DTYPES = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}


def token_nll(
    logits: Tensor, targets: Tensor, *, ignore_index: int = IGNORE_INDEX, backend: Backend = "auto"
) -> Tensor:
    """Negative log-likelihood of each target token, in nats.

    Computes ``logsumexp(logits[i]) - logits[i, targets[i]]`` in float32 whatever the input
    dtype (online softmax, Milakov & Gimelshein, arXiv:1805.02867). Not differentiable.

    Args:
        logits: (num_tokens, vocab_size) float32, float16 or bfloat16.
        targets: (num_tokens,) int64, already shifted. ``ignore_index`` scores 0.
        ignore_index: The target that scores 0; its row is not read.
        backend: ``"auto"`` is Triton on CUDA tensors (CUDA C++ where there is no Triton),
            ``"reference"`` elsewhere.

    Returns:
        (num_tokens,) float32, on the device of ``logits``. NaN where a target is neither a column
        of ``logits`` nor ``ignore_index``, or where a row has no finite maximum.

    Raises:
        ValueError: A shape, dtype or device differs from these. Target values are not read: that
            would wait for the device.
        RuntimeError: An explicit ``backend`` cannot run here, or its launch failed.
    """
    _check(logits, targets)
    chosen = resolve_backend(backend, logits)
    if chosen == "reference":
        return token_nll_reference(logits, targets, ignore_index)
    refuse_tangent("token_nll", logits)
    logits = logits.detach()
    if logits.stride(1) != 1:  # both kernels walk along a row
        logits = logits.contiguous()
    if chosen == "triton":
        from codeact.kernels.token_nll import token_nll as launch  # Triton is optional

        return launch(logits, targets.contiguous(), ignore_index)
    return _token_nll_cuda(logits, targets.contiguous(), ignore_index)


@torch.no_grad()
def token_nll_reference(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    """The definition of :func:`token_nll` in plain PyTorch; makes a float32 copy of ``logits``."""
    vocab_size = logits.shape[1]
    is_column = (targets >= 0) & (targets < vocab_size)
    label = torch.where(is_column, targets, 0)[:, None]
    nll = -F.log_softmax(logits.float(), dim=1).gather(1, label).squeeze(1)
    nll = nll.masked_fill(~is_column, float("nan"))
    return nll.masked_fill(targets == ignore_index, 0.0)


def _token_nll_cuda(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    nll = torch.empty(logits.shape[0], dtype=torch.float32, device=logits.device)
    with torch.cuda.device(logits.device):
        _C.token_nll(
            logits.data_ptr(),
            targets.data_ptr(),
            nll.data_ptr(),
            logits.shape[0],
            logits.shape[1],
            logits.stride(0),
            _LOGITS_DTYPES[logits.dtype],
            ignore_index,
            torch.cuda.current_stream().cuda_stream,
        )
    return nll


def _check(logits: Tensor, targets: Tensor) -> None:
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(
            "token_nll expects logits (num_tokens, vocab_size) and targets (num_tokens,), "
            f"got {tuple(logits.shape)} and {tuple(targets.shape)}"
        )
    if logits.shape[1] == 0:
        raise ValueError("logits must have at least one column, got vocab_size 0")
    if logits.dtype not in _LOGITS_DTYPES:
        raise ValueError(f"logits must be float32, float16 or bfloat16, got {logits.dtype}")
    if targets.dtype != torch.int64:
        raise ValueError(f"targets must be int64, got {targets.dtype}")
    if targets.device != logits.device:
        raise ValueError(f"targets must be on {logits.device} like logits, got {targets.device}")
