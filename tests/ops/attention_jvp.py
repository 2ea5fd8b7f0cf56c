"""Inputs of an attention JVP, and the truth about them by torch's own forward mode."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from codeact.ops import dense_mask
from codeact.ops._backend import has_triton

# Relative to the largest entry: operands of half precision round weights and results to 8 or 11
# bits, in one rounding each; the tangent adds three such products.
SLACK = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
# Sequences of one token, of none, shorter and longer than a tile of 16 keys or 8 queries.
SEQLENS = (1, 21, 0, 3, 9, 0)

needs_triton = pytest.mark.skipif(not has_triton(), reason="Triton is not installed")
# The kernel takes float32 in the interpreter alone; what it takes on a GPU is tested at the end.
interpreted = pytest.mark.skipif(torch.cuda.is_available(), reason="float32 needs the interpreter")
BACKENDS = ["reference", pytest.param("triton", marks=[needs_triton, interpreted])]


class Inputs(NamedTuple):
    query: Tensor
    key: Tensor
    value: Tensor
    query_tangent: Tensor | None
    key_tangent: Tensor | None
    value_tangent: Tensor | None
    cu_seqlens: Tensor

    def map(self, change) -> Inputs:
        changed = (None if x is None else change(x) for x in self[:6])
        return Inputs(*changed, self.cu_seqlens)


def make_inputs(
    *,
    seqlens=SEQLENS,
    heads=(4, 2),
    head_dim=16,
    dtype=torch.float32,
    moved=(True, True, True),
    device="cpu",
) -> Inputs:
    generator = torch.Generator().manual_seed(sum(seqlens) + head_dim)
    shapes = [(sum(seqlens), n, head_dim) for n in (heads[0], heads[1], heads[1])]
    values = [torch.randn(shape, generator=generator) for shape in shapes]
    tangents = [torch.randn(shape, generator=generator) for shape in shapes]
    tangents = [t if m else None for t, m in zip(tangents, moved, strict=True)]
    cu_seqlens = torch.tensor([0, *itertools.accumulate(seqlens)], dtype=torch.int32)
    inputs = Inputs(*values, *tangents, cu_seqlens.to(device))
    return inputs.map(lambda x: x.to(device, dtype))


def textbook(query, key, value, seen, scaling, softcap):
    """All scores of the whole stream, and a block-diagonal mask."""
    groups = query.shape[1] // key.shape[1]
    q, k, v = (x.transpose(0, 1) for x in (query, key, value))
    k, v = k.repeat_interleave(groups, dim=0), v.repeat_interleave(groups, dim=0)
    scores = q @ k.mT * (query.shape[2] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    return (scores.masked_fill(~seen, -torch.inf).softmax(dim=-1) @ v).transpose(0, 1)


def truth(inputs: Inputs, *, scaling=None, sliding_window=None, softcap=None):
    """Output and tangent by torch's own forward mode, in float64."""
    seen = dense_mask(inputs.cu_seqlens, sliding_window=sliding_window)[0, 0]
    exact = inputs.map(lambda x: x.double())
    tangents = [
        torch.zeros_like(x) if t is None else t for x, t in zip(exact[:3], exact[3:6], strict=True)
    ]

    def attention(q, k, v):
        return textbook(q, k, v, seen, scaling, softcap)

    return torch.func.jvp(attention, exact[:3], tuple(tangents))


def assert_close(found, expected, slack):
    for ours, theirs in zip(found, expected, strict=True):
        excess = (ours.double() - theirs).abs().max() - slack * theirs.abs().max()
        assert excess <= 0, f"worst excess {excess:.2e} of {theirs.abs().max():.2e}"
