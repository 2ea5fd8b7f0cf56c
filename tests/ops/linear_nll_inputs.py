"""Inputs and options that the tests of linear_nll share."""

from __future__ import annotations

from typing import Any

import torch

SLACK = {torch.float32: 1e-5, torch.float16: 1e-4, torch.bfloat16: 1e-4}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "capped": {"softcap": 5.0},
    "scaled-capped-warm": {"logit_scale": 0.25, "softcap": 3.0, "temperature": 1.5},
}


def make_inputs(
    num_tokens: int, hidden_size: int, vocab_size: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden_states = torch.randn(num_tokens, hidden_size, generator=generator)
    weight = torch.randn(vocab_size, hidden_size, generator=generator) / hidden_size**0.5
    targets = torch.randint(0, vocab_size, (num_tokens,), generator=generator)
    bias = torch.randn(vocab_size, generator=generator)
    tensors = (hidden_states.to(dtype), weight.to(dtype), targets, bias.to(dtype))
    return tuple(tensor.to(device) for tensor in tensors)  # type: ignore[return-value]


def derivative_inputs(
    device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    x, w, targets, bias = make_inputs(37, 12, 1100, dtype, device)
    targets[::5] = -100
    return x, w, targets, bias
