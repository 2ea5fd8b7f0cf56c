"""A small padded batch, and what a model makes of it: for the tests of fused losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def batch(seed: int = 0) -> dict[str, Tensor]:
    """Three rows with masked prompts, a hole in the labels, and padding on the right."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(3, 97, (3, 20), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 16:] = 0  # fewer than a window: a row that sees nothing is NaN
    labels = input_ids.masked_fill(attention_mask == 0, -100)
    labels[:, :5] = -100
    labels[2, 9:11] = -100
    labels[0, 0] = 7  # predicted by no position, and counted by none
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def loss_and_gradients(model: nn.Module, **inputs: Any) -> tuple[Tensor, list[Tensor]]:
    loss = model(**inputs).loss
    loss.backward()
    gradients = [p.grad.double().clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return loss.detach().double(), gradients
