"""PyTorch's ``scaled_dot_product_attention``, a sequence at a time: on any device, in any dtype."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from codeact.models.attention.capability import HALF, AttentionBackend, AttentionCall, Capability
from codeact.models.attention.pack_bounds import bounds_of


def _attend(call: AttentionCall) -> Tensor:
    query, key, value = call[:3]
    outputs = [
        _one_sequence(
            query[a:b], key[a:b], value[a:b], call.scaling, call.sliding_window, call.softcap
        )
        for a, b in pairwise(bounds_of(call.cu_seqlens))
        if b > a  # fixed shapes end in empty sequences
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


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
    if scores.dtype in HALF:
        scores = scores.float()
    seen = _band(q.shape[2], sliding_window, q.device)
    weights = scores.masked_fill(~seen, float("-inf")).softmax(dim=-1).to(v.dtype)
    return (weights @ v)[0].transpose(0, 1)


def _nothing_missing() -> None:
    return None


def _capability(device: str, sm: tuple[int, int] | None) -> Capability:
    return Capability(
        dtypes=(*HALF, torch.float32, torch.float64), other_value_head_dim=True, transform=True
    )


PER_SEQUENCE = AttentionBackend(
    # Not "sdpa": transformers refuses any name with that in it for models such as Gemma 2, whose
    # softcap its own sdpa lacks.
    name="per_sequence",
    kernel="PyTorch's scaled_dot_product_attention, a sequence at a time",
    missing=_nothing_missing,
    capability=_capability,
    runs_on="any device",
    attend=_attend,
)
