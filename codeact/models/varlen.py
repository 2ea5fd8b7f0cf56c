"""Causal attention of sequences laid end to end, by the best kernel at hand."""

from __future__ import annotations

import inspect
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def varlen_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int | None,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    """Attention of each sequence to itself, causal.

    Half precision on CUDA goes to flash-attn when it is installed (it alone knows ``softcap``),
    else to PyTorch's ``varlen_attn``; everything else to ``scaled_dot_product_attention``, a
    sequence at a time.

    Args:
        query: (num_tokens, num_heads, head_dim).
        key: (num_tokens, num_kv_heads, head_dim).
        value: like ``key``.
        cu_seqlens: (num_seqs + 1,) int32.
        max_seqlen: longest sequence; None reads it from the device.
        scaling: factor on the dot products; None is ``head_dim ** -0.5``.
        sliding_window: how many tokens back a token sees, itself included; None is all.
        softcap: cap on the scores; None is none.

    Returns:
        (num_tokens, num_heads, head_dim).
    """
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        longest = max_seqlen if max_seqlen is not None else int(cu_seqlens.diff().max())
        window = (-1 if sliding_window is None else sliding_window - 1, 0)
        if flash := _flash_attn():
            output: Tensor = flash(
                query, key, value, cu_seqlens, cu_seqlens, longest, longest,
                softmax_scale=scaling, causal=True, window_size=window, softcap=softcap or 0.0,
            )  # fmt: skip
            return output
        if softcap is None and (options := _torch_options(sliding_window)) is not None:
            return _torch_varlen(query, key, value, cu_seqlens, longest, scaling, options)
    outputs = [
        _one_sequence(query[a:b], key[a:b], value[a:b], scaling, sliding_window, softcap)
        for a, b in pairwise(cu_seqlens.tolist())
        if b > a  # fixed shapes end in empty sequences
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


@lru_cache(maxsize=1)
def _flash_attn() -> Any:
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        return None
    return flash_attn_varlen_func


@lru_cache(maxsize=1)
def _torch_parameters() -> frozenset[str]:
    """Parameters of PyTorch's ``varlen_attn``; none before it existed (2.10)."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return frozenset()
    return frozenset(inspect.signature(varlen_attn).parameters)


def _torch_options(sliding_window: int | None) -> dict[str, Any] | None:
    """How this PyTorch is told about causality; None where it cannot do what is asked."""
    parameters = _torch_parameters()
    if "window_size" in parameters:
        return {"window_size": (-1 if sliding_window is None else sliding_window - 1, 0)}
    if "is_causal" in parameters and sliding_window is None:
        return {"is_causal": True}
    return None


def _torch_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    scaling: float | None,
    options: dict[str, Any],
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    parameters = _torch_parameters()
    groups = query.shape[1] // key.shape[1]
    if "enable_gqa" in parameters:
        options["enable_gqa"] = groups > 1
    elif groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    if "scale" in parameters:
        options["scale"] = scaling
    elif scaling is not None:
        query = query * (scaling * query.shape[-1] ** 0.5)
    output: Any = varlen_attn(
        query, key, value, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, **options
    )
    result: Tensor = output
    return result


def _one_sequence(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    """Causal attention of one (seqlen, heads, head_dim) sequence."""
    q, k, v = (x.transpose(0, 1)[None] for x in (query, key, value))
    banded = sliding_window is not None and len(query) > sliding_window
    if softcap is not None:
        return _softcapped(q, k, v, scaling, sliding_window if banded else None, softcap)
    mask = _band(len(query), sliding_window, query.device) if banded else None
    output = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling,
        enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    return output[0].transpose(0, 1)


def _band(seqlen: int, sliding_window: int | None, device: torch.device) -> Tensor:
    """(seqlen, seqlen) bool, True where a query may look: back, and not past the window."""
    distance = torch.arange(seqlen, device=device)[:, None] - torch.arange(seqlen, device=device)
    seen = distance >= 0
    return seen if sliding_window is None else seen & (distance < sliding_window)


def _softcapped(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float,
) -> Tensor:
    """Attention with capped scores, which ``scaled_dot_product_attention`` cannot express."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    seen = _band(q.shape[2], sliding_window, q.device)
    weights = scores.float().masked_fill(~seen, float("-inf")).softmax(dim=-1).to(v.dtype)
    return (weights @ v)[0].transpose(0, 1)
