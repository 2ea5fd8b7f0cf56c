"""What ``varlen_attention_jvp`` computes, in plain PyTorch."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

# Scores of this many (head, query, key) triples exist at once: 128 MiB of float32, a few times.
_MAX_SCORES = 2**25


def varlen_attention_jvp_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_tangent: Tensor | None,
    key_tangent: Tensor | None,
    value_tangent: Tensor | None,
    cu_seqlens: Tensor,
    scaling: float,
    sliding_window: int | None,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """Output and tangent, some queries of one sequence at a time, in float32 (float64 if given)."""
    bounds = cu_seqlens.tolist()
    if bounds[0] != 0 or bounds[-1] != len(query) or any(b < a for a, b in pairwise(bounds)):
        raise ValueError(f"cu_seqlens must rise from 0 to {len(query)} tokens, got {bounds}")
    groups = query.shape[1] // key.shape[1]
    q, dq = _heads_first(query, query_tangent, 1)
    k, dk = _heads_first(key, key_tangent, groups)
    v, dv = _heads_first(value, value_tangent, groups)
    parts = [(q[:, :0], q[:, :0])]
    for first, end in pairwise(bounds):
        step = max(1, _MAX_SCORES // max(1, q.shape[0] * (end - first)))
        for a in range(first, end, step):
            b = min(a + step, end)
            lowest = first if sliding_window is None else max(first, a - sliding_window + 1)
            distance = _distance(range(a, b), range(lowest, b), q.device)
            seen = distance >= 0
            if sliding_window is not None:
                seen &= distance < sliding_window
            rows, keys = slice(a, b), slice(lowest, b)
            parts.append(
                _attend(
                    q[:, rows], k[:, keys], v[:, keys], dq[:, rows], dk[:, keys], dv[:, keys],
                    seen, scaling, softcap,
                )
            )  # fmt: skip
    output, tangent = (torch.cat(x, dim=1).transpose(0, 1) for x in zip(*parts, strict=True))
    return output.to(query.dtype), tangent.to(query.dtype)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    seen: Tensor,
    scaling: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    scores, moved = scaling * (q @ k.mT), scaling * (dq @ k.mT + q @ dk.mT)
    if softcap is not None:
        squashed = torch.tanh(scores / softcap)
        scores, moved = softcap * squashed, moved * (1 - squashed.square())
    weights = scores.masked_fill(~seen, float("-inf")).softmax(dim=-1)
    moved = weights * moved.masked_fill(~seen, 0.0)
    output = weights @ v
    return output, moved @ v + weights @ dv - moved.sum(dim=-1, keepdim=True) * output


def _heads_first(x: Tensor, tangent: Tensor | None, groups: int) -> tuple[Tensor, Tensor]:
    """Both as (heads * groups, num_tokens, head_dim) of at least float32; no tangent is zeros."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    tangent = torch.zeros_like(x) if tangent is None else tangent
    x, tangent = (t.to(dtype).transpose(0, 1) for t in (x, tangent))
    return x.repeat_interleave(groups, dim=0), tangent.repeat_interleave(groups, dim=0)


def _distance(queries: range, keys: range, device: torch.device) -> Tensor:
    """How far each query lies behind each key."""
    rows = torch.arange(queries.start, queries.stop, device=device)
    return rows[:, None] - torch.arange(keys.start, keys.stop, device=device)
