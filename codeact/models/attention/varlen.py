"""Causal attention of sequences laid end to end, by the best kernel at hand."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from codeact.models.attention.capability import AttentionCall, need_of
from codeact.models.attention.choice import choose_backend


def varlen_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int | None,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
    backend: str = "auto",
) -> Tensor:
    """Attention of each sequence to itself, causal.

    Inputs that carry a forward-mode tangent go to
    :func:`codeact.ops.varlen_attention_jvp.forward_mode_attention`, whatever ``backend`` says:
    no other kernel has that derivative, and a custom operator would drop the tangent silently.

    Args:
        query: (num_tokens, num_heads, head_dim).
        key: (num_tokens, num_kv_heads, head_dim).
        value: like ``key``; per_sequence and flex let it have another head_dim.
        cu_seqlens: (num_seqs + 1,) int32.
        max_seqlen: longest sequence; None reads it from the device, once for each ``cu_seqlens``.
        scaling: factor on the dot products; None is ``head_dim ** -0.5``.
        sliding_window: how many tokens back a token sees, itself included; None is all.
        softcap: cap on the scores; None is none.
        backend: one of :func:`attention_backends`, which raises where it cannot; ``"auto"`` is
            the first that can: in half precision on CUDA fa3 (on Hopper), varlen_attn, fa4, fa2;
            otherwise per_sequence.

    Returns:
        (num_tokens, num_heads, head_dim of ``value``).

    Raises:
        ValueError: the named backend cannot do this; or there is none of that name.
        ImportError: the named backend is not installed.
    """
    if any(_carries_tangent(x) for x in (query, key, value)):
        from codeact.ops.varlen_attention_jvp import forward_mode_attention

        return forward_mode_attention(
            query, key, value, cu_seqlens, max_seqlen, scaling, sliding_window, softcap
        )
    call = AttentionCall(
        query, key, value, cu_seqlens, max_seqlen, scaling, sliding_window, softcap
    )
    transform = torch._C._are_functorch_transforms_active()
    return choose_backend(backend, need_of(call, transform=transform)).attend(call)


def _carries_tangent(tensor: Tensor) -> bool:
    """Whether forward mode follows ``tensor``: in a dual level or at any level of torch.func."""
    if forward_ad._current_level < 0:  # no forward mode at all; torch.compile guards on it
        return False
    from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters

    functorch = torch._C._functorch
    jvp = functorch.TransformType.Jvp
    interpreters = retrieve_all_functorch_interpreters()
    levels = {layer.level() for layer in interpreters if layer.key() == jvp}
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.maybe_get_level(tensor) in levels:
            return True
        tensor = functorch.get_unwrapped(tensor)
    with torch._C._DisableFuncTorch():  # else the innermost transform answers: no tangent
        return forward_ad.unpack_dual(tensor).tangent is not None
