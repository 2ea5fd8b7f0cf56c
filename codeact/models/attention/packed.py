"""Attention over a flat stream of sequences, registered with transformers as ``"codeact"``.

A transformers model loaded with ``attn_implementation="codeact"`` keeps packed sequences apart
wherever it is called from: with ``cu_seq_lens_q`` given or only ``position_ids`` that restart, with
a cache or without, with an all-ones ``attention_mask`` or none. (With a cache or such a mask
transformers' own ``sdpa`` and ``eager`` mix the sequences silently.) Padded batches and generation
go through transformers' ``sdpa``; there a row is one sequence, whatever its ``position_ids`` say.

``"codeact"`` takes the fastest kernel that can serve a call; ``"codeact_fa3"`` and the like, one
for each of :func:`codeact.models.attention_backends`, take the named one or raise.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from codeact.models.attention.choice import ATTENTION_BACKENDS, check_backend_name
from codeact.models.attention.pack_bounds import once_per_tensor
from codeact.models.attention.varlen import varlen_attention

ATTN_IMPLEMENTATION = "codeact"

# What some models hand to their attention and no kernel here reads: gpt-oss's sinks, T5's bias.
_UNKNOWN_TERMS = ("s_aux", "sinks", "position_bias")

_FROM_PADDING = "_codeact_from_padding"


def register_attention() -> None:
    """Tell transformers of ``"codeact"`` and each ``"codeact_<backend>"``; may be repeated."""
    from transformers import AttentionInterface, AttentionMaskInterface

    for backend in ("auto", *ATTENTION_BACKENDS):
        name = attn_implementation_of(backend)
        AttentionInterface.register(name, partial(packed_attention, backend=backend))
        AttentionMaskInterface.register(name, _packed_mask)


def attn_implementation_of(backend: str) -> str:
    """The ``attn_implementation`` that takes one backend for packed sequences.

    Raises:
        ValueError: there is no backend of that name.
    """
    check_backend_name(backend)
    return ATTN_IMPLEMENTATION if backend == "auto" else f"{ATTN_IMPLEMENTATION}_{backend}"


def _packed_mask(
    *,
    q_length: int,
    kv_length: int,
    attention_mask: Tensor | None = None,
    use_vmap: bool = False,
    **kwargs: Any,
) -> Tensor | None:
    """No mask where causality and ``cu_seqlens`` say it all, transformers' dense one elsewhere."""
    from transformers.masking_utils import sdpa_mask

    # use_vmap marks masks with rules of their own (image tokens, prefixes).
    if q_length == kv_length and not use_vmap and not _has_padding(attention_mask):
        return None
    mask: Tensor | None = sdpa_mask(
        q_length=q_length,
        kv_length=kv_length,
        attention_mask=attention_mask,
        use_vmap=use_vmap,
        **kwargs,
    )
    if mask is not None and not torch.compiler.is_compiling():
        setattr(mask, _FROM_PADDING, True)
    return mask


def _knows_no_boundaries(attention_mask: Tensor | None) -> bool:
    """Whether a mask was made of a row of ones and zeros; a dense one of the caller's is his."""
    if torch.compiler.is_compiling():  # a graph has no such attributes
        return False
    return getattr(attention_mask, _FROM_PADDING, False)


def _has_padding(attention_mask: Tensor | None) -> bool:
    """Whether a token is masked, for which transformers' ``sdpa_mask`` does not always look.

    With a sliding window and under torch.compile it makes a mask of ones into a dense one, in which
    packed sequences see each other. A graph cannot look either, so the question breaks it.
    """
    if attention_mask is None:
        return False
    # The second condition is for frames that Dynamo gave up: it tries again what they call.
    if torch.compiler.is_dynamo_compiling() or "torch._dynamo" in sys.modules:
        outside: bool = torch.compiler.disable(_has_zero)(attention_mask)
        return outside
    return _has_zero(attention_mask)


def _has_zero(attention_mask: Tensor) -> bool:
    return not bool(attention_mask.all())


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    position_ids: Tensor | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    *,
    backend: str = "auto",
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each sequence of a flat stream (transformers' attention interface).

    Args:
        module: the calling attention layer; ``is_causal`` is read, and more for padded batches.
        query: (batch_size, num_heads, num_tokens, head_dim).
        key: (batch_size, num_kv_heads, num_tokens, head_dim); grouped-query attention is allowed.
        value: like ``key``.
        attention_mask: a dense mask when transformers made one (padding, decoding), else None.
        scaling: factor on the dot products; None is ``head_dim ** -0.5``.
        dropout: must be 0 on packed batches.
        cu_seq_lens_q: (num_seqs + 1,) int32; None derives it from ``position_ids``.
        max_length_q: longest sequence.
        position_ids: (batch_size, num_tokens).
        sliding_window: how many tokens back a token sees, itself included; None is all.
        softcap: Gemma 2's cap on attention scores.
        backend: the kernel for packed batches, as in :func:`varlen_attention`.
        **kwargs: passed on to transformers' ``sdpa`` for padded batches.

    Returns:
        The attention output, (batch_size, num_tokens, num_heads, head_dim), and None.

    Raises:
        ValueError: dropout or a term of the scores that no kernel here knows on a packed batch,
            ``cu_seq_lens_q`` beside padding, or something that the named backend cannot do.
        ImportError: the named backend is not installed.
    """
    if attention_mask is not None or query.shape[2] != key.shape[2]:
        if cu_seq_lens_q is not None and _knows_no_boundaries(attention_mask):
            raise ValueError(
                "packed attention takes boundaries or an attention_mask with zeros, got both: "
                "the mask would let packed sequences see each other"
            )
        return _dense_attention(
            module, query, key, value, attention_mask, scaling, dropout, softcap, kwargs
        )
    if dropout:
        raise ValueError(f"packed attention has no dropout, got attention_dropout = {dropout}")
    _refuse_unknown(module, kwargs)
    batch_size, _, num_tokens, _ = query.shape
    if cu_seq_lens_q is None:
        cu_seq_lens_q = _boundaries(position_ids, batch_size, num_tokens, query.device)
        max_length_q = num_tokens if position_ids is None else None
    elif cu_seq_lens_q.dtype != torch.int32:
        cu_seq_lens_q = cu_seq_lens_q.to(torch.int32)  # the only one that kernels take
    # (batch_size * num_tokens, heads, head_dim): rows of a batch are sequences like any other.
    if torch.is_autocast_enabled(query.device.type):
        # Rotary embeddings leave queries and keys in float32; kernels want one dtype.
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
    output = varlen_attention(
        q, k, v, cu_seq_lens_q, max_length_q, scaling, sliding_window or None, softcap, backend
    )
    return output.unflatten(0, (batch_size, num_tokens)), None


def _refuse_unknown(module: nn.Module, kwargs: dict[str, Any]) -> None:
    for term in _UNKNOWN_TERMS:
        if kwargs.get(term) is not None:
            raise ValueError(
                f"packed attention does not know {term!r}, which this model adds to its scores; "
                "load it with attn_implementation='eager'"
            )
    is_causal = kwargs.get("is_causal")
    if (getattr(module, "is_causal", True) if is_causal is None else is_causal) is False:
        raise ValueError("packed attention is causal, and this layer asks for is_causal=False")


def _dense_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None,
    dropout: float,
    softcap: float | None,
    kwargs: dict[str, Any],
) -> tuple[Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if softcap is not None:
        raise ValueError(
            f"padded batches of a model with softcap = {softcap} need attn_implementation='eager'"
        )
    output: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )
    return output


def _boundaries(
    position_ids: Tensor | None, batch_size: int, num_tokens: int, device: torch.device
) -> Tensor:
    """cu_seqlens of rows whose position ids do not count on; without any, a row is one sequence."""
    if position_ids is None or position_ids.ndim != 2:  # 3 with a picture's rows and columns
        ends = torch.arange(batch_size + 1, dtype=torch.int32, device=device)
        return ends * num_tokens
    return once_per_tensor(
        position_ids,
        ("boundaries", batch_size, num_tokens, device),
        lambda positions: _restarts(positions, batch_size, num_tokens, device),
    )


def _restarts(
    position_ids: Tensor, batch_size: int, num_tokens: int, device: torch.device
) -> Tensor:
    starts = torch.ones(batch_size, num_tokens, dtype=torch.bool, device=device)
    starts[:, 1:] = position_ids.to(device).diff(dim=1) != 1
    ends = torch.tensor([batch_size * num_tokens], device=device)
    return torch.cat([starts.flatten().nonzero()[:, 0], ends]).to(torch.int32)
