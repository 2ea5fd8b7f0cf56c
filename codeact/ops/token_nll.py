"""Negative log-likelihood of target tokens, from logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from codeact.ops._backend import Backend, resolve_backend
from codeact.ops._derivatives import eager_only
from codeact.ops._token_nll_function import LOGITS_DTYPES, TokenNll
from codeact.ops.varlen import IGNORE_INDEX


@eager_only
def token_nll(
    logits: Tensor, targets: Tensor, *, ignore_index: int = IGNORE_INDEX, backend: Backend = "auto"
) -> Tensor:
    """Negative log-likelihood of each target token, in nats.

    Computes ``logsumexp(logits[i]) - logits[i, targets[i]]`` in float32 whatever the input
    dtype (online softmax, Milakov & Gimelshein, arXiv:1805.02867). Differentiable once, in reverse
    and in forward mode; the reference as often as wanted.

    Args:
        logits: (num_tokens, vocab_size) float32, float16 or bfloat16.
        targets: (num_tokens,) int64, already shifted. ``ignore_index`` scores 0.
        ignore_index: The target that scores 0; its row is not read.
        backend: ``"auto"`` is ``"cpu"`` (vector instructions, rows shared out to threads) on CPU
            tensors, Triton on CUDA tensors, or CUDA C++ where there is no Triton.

    Returns:
        (num_tokens,) float32, on the device of ``logits``. NaN where a target is neither a column
        of ``logits`` nor ``ignore_index``, or where a row has no finite maximum. The gradient has
        the dtype of ``logits``: zeros in ignored rows, NaN where the value is.

    Raises:
        ValueError: A shape, dtype or device differs from these. Target values are not read: that
            would wait for the device.
        RuntimeError: An explicit ``backend`` cannot run here, or its launch failed; a second
            derivative, or one under vmap, of any backend but the reference.
    """
    _check(logits, targets)
    chosen = resolve_backend(backend, logits, supported=("cpu", "triton", "cuda"))
    if chosen == "reference":
        return token_nll_reference(logits, targets, ignore_index)
    nll: Tensor = TokenNll.apply(  # type: ignore[no-untyped-call]
        logits, targets, ignore_index, chosen
    )
    return nll


def token_nll_reference(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    """The definition of :func:`token_nll` in plain PyTorch; makes float32 copies of ``logits``."""
    ignored = targets == ignore_index
    is_column = (targets >= 0) & (targets < logits.shape[1])
    label = torch.where(is_column, targets, 0)[:, None]
    # An ignored row may hold anything: zeros instead keep NaN out of its gradient too.
    log_p = F.log_softmax(logits.float().masked_fill(ignored[:, None], 0.0), dim=1)
    # As a factor, NaN reaches the gradient of a target that is no column.
    nan_or_one = torch.where(is_column | ignored, 1.0, torch.nan)
    return (-log_p.gather(1, label).squeeze(1) * nan_or_one).masked_fill(ignored, 0.0)


def _check(logits: Tensor, targets: Tensor) -> None:
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(
            "token_nll expects logits (num_tokens, vocab_size) and targets (num_tokens,), "
            f"got {tuple(logits.shape)} and {tuple(targets.shape)}"
        )
    if logits.shape[1] == 0:
        raise ValueError("logits must have at least one column, got vocab_size 0")
    if logits.dtype not in LOGITS_DTYPES:
        raise ValueError(f"logits must be float32, float16 or bfloat16, got {logits.dtype}")
    if targets.dtype != torch.int64:
        raise ValueError(f"targets must be int64, got {targets.dtype}")
    if targets.device != logits.device:
        raise ValueError(f"targets must be on {logits.device} like logits, got {targets.device}")
