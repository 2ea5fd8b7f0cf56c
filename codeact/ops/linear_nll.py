"""Per-token loss straight from hidden states: the logits are never stored whole."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from codeact.ops.varlen import IGNORE_INDEX

LinearNllBackend = Literal["auto", "reference", "tiled"]

# A tile of float32 logits this large stays in the last-level cache of a CPU ...
_CPU_TILE = (256, 4096)
# ... and on a GPU it is one well-filled matrix product of 512 MiB.
_CUDA_TILE = (4096, 32768)


def linear_nll(
    hidden_states: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    ignore_index: int = IGNORE_INDEX,
    backend: LinearNllBackend = "auto",
) -> Tensor:
    """Negative log-likelihood, in nats, of each target under ``hidden_states @ weight.T``.

    With ``z = cap(hidden_states[i] @ weight.T + bias)`` the value is
    ``logsumexp(z) - z[targets[i]]``, where ``cap(z) = softcap * tanh(z / softcap)`` if a
    ``softcap`` is given. Sums and exponentials are float32 whatever the inputs are; the target's
    logit is read from the same product as the sum, so the value is never below zero by more than
    rounding. Ignored positions score 0; on the CPU they are left out of the product, on a GPU the
    caller does that (:class:`PackedBatch` holds the scored rows), since finding them would wait for
    the device.

    Args:
        hidden_states: (num_tokens, hidden_size) float32, float16 or bfloat16.
        weight: (vocab_size, hidden_size), the output projection, of the same dtype.
        targets: (num_tokens,) int64, already shifted; values are not checked, since reading them
            would wait for the device.
        bias: (vocab_size,) or None.
        softcap: Gemma 2's final logit cap, or None.
        ignore_index: the target that scores 0.
        backend: ``"tiled"`` walks over blocks of rows and vocabulary and keeps a running
            log-sum-exp (Milakov & Gimelshein, arXiv:1805.02867), not differentiable;
            ``"reference"`` forms all logits and is differentiable. ``"auto"`` is ``"tiled"``
            unless a gradient is wanted.

    Returns:
        (num_tokens,) float32, on the device of ``hidden_states``.

    Raises:
        ValueError: shapes or dtypes differ from these.
        RuntimeError: ``backend="tiled"`` where a gradient or a tangent is wanted.
    """
    _check(hidden_states, weight, targets, bias)
    differentiated = _is_differentiated(hidden_states, weight, bias)
    if backend == "tiled" and differentiated:
        raise RuntimeError(
            "linear_nll(backend='tiled') has no derivative; use 'reference' or torch.no_grad()"
        )
    if backend == "reference" or differentiated:
        return linear_nll_reference(hidden_states, weight, targets, bias, softcap, ignore_index)
    if hidden_states.is_cuda:
        nll = _linear_nll_tiled(hidden_states, weight, targets, bias, softcap)
        return nll.masked_fill_(targets == ignore_index, 0.0)
    scored = targets != ignore_index
    nll = torch.zeros(targets.shape, dtype=torch.float32)
    nll[scored] = _linear_nll_tiled(hidden_states[scored], weight, targets[scored], bias, softcap)
    return nll


def linear_nll_reference(
    hidden_states: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    softcap: float | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """The definition: all logits at once in float32 (float64 if given), then cross-entropy."""
    dtype = torch.promote_types(hidden_states.dtype, torch.float32)
    logits = F.linear(
        hidden_states.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    )
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return F.cross_entropy(logits, targets, reduction="none", ignore_index=ignore_index)


def _check(hidden_states: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None) -> None:
    if (
        hidden_states.ndim != 2
        or weight.ndim != 2
        or weight.shape[1] != hidden_states.shape[1]
        or targets.shape != hidden_states.shape[:1]
        or (bias is not None and bias.shape != weight.shape[:1])
    ):
        raise ValueError(
            "linear_nll expects hidden_states (num_tokens, hidden_size), weight (vocab_size, "
            "hidden_size), targets (num_tokens,) and bias (vocab_size,), got "
            f"{tuple(hidden_states.shape)}, {tuple(weight.shape)}, {tuple(targets.shape)} and "
            f"{None if bias is None else tuple(bias.shape)}"
        )
    if hidden_states.dtype != weight.dtype:
        raise ValueError(
            f"linear_nll expects one dtype, got hidden_states {hidden_states.dtype} and weight "
            f"{weight.dtype}"
        )


def _is_differentiated(*tensors: Tensor | None) -> bool:
    given = [tensor for tensor in tensors if tensor is not None]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        return True
    # Dual tensors and functorch wrappers ask for a tangent, which in-place tiles would lose.
    return any(
        torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None
        or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        for tensor in given
    )


def _linear_nll_tiled(
    hidden_states: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    softcap: float | None,
) -> Tensor:
    nll = torch.empty(targets.shape, dtype=torch.float32, device=targets.device)
    tile_rows, tile_cols = _CUDA_TILE if hidden_states.is_cuda else _CPU_TILE
    tile_rows = max(1, min(tile_rows, len(targets)))
    buffer = torch.empty(
        tile_rows * min(tile_cols, len(weight)), dtype=torch.float32, device=targets.device
    )
    for start in range(0, len(targets), tile_rows):
        rows = slice(start, start + tile_rows)
        nll[rows] = _nll_of_rows(
            hidden_states[rows], weight, targets[rows], bias, softcap, buffer, tile_cols
        )
    return nll


def _nll_of_rows(
    hidden_states: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    softcap: float | None,
    buffer: Tensor,
    tile_cols: int,
) -> Tensor:
    """Log-sum-exp over vocabulary tiles, merged at the end in a fixed order."""
    maxima, sums = [], []
    # A target outside the vocabulary is found in no tile and stays NaN, as its loss should be.
    target_logits = torch.full(targets.shape, torch.nan, device=targets.device)
    for start in range(0, len(weight), tile_cols):
        columns = slice(start, start + tile_cols)
        logits = _tile(hidden_states, weight[columns], buffer)
        if bias is not None:
            logits += bias[columns]
        if softcap is not None:
            logits.div_(softcap).tanh_().mul_(softcap)
        column = targets - start
        here = (column >= 0) & (column < logits.shape[1])
        picked = logits.gather(1, column.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
        target_logits = torch.where(here, picked, target_logits)
        maximum = logits.amax(dim=1)
        # A column block of -inf only must add exp(-inf) = 0, not exp(-inf + inf) = nan.
        shift = maximum.masked_fill(maximum == float("-inf"), 0.0)
        maxima.append(maximum)
        sums.append(logits.sub_(shift[:, None]).exp_().sum(dim=1))
    maximum = torch.stack(maxima).amax(dim=0)
    shares = [s * torch.exp(m - maximum) for m, s in zip(maxima, sums, strict=True)]
    total = torch.stack(shares).sum(dim=0)
    return maximum + torch.log(total) - target_logits


def _tile(hidden_states: Tensor, weight: Tensor, buffer: Tensor) -> Tensor:
    """One block of float32 logits, in memory that every block reuses."""
    logits = buffer[: len(hidden_states) * len(weight)].view(len(hidden_states), len(weight))
    if hidden_states.dtype == torch.float32:
        return torch.mm(hidden_states, weight.t(), out=logits)
    if hidden_states.is_cuda:  # the product accumulates in float32; keep it instead of rounding
        return torch.mm(hidden_states, weight.t(), out_dtype=torch.float32, out=logits)
    return torch.mm(hidden_states.float(), weight.float().t(), out=logits)
