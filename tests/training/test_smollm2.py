"""A real model: packed steps have the loss and the gradients of its rows one by one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import unpacked_loss

from codeact.data import TokenizedExamples, harvest_functions, tokenize_examples
from codeact.models import load_model, load_tokenizer
from codeact.packing import PackedCollator, PackedDataset, plan_bins
from codeact.training import TrainConfig, packed_loss, total_weight
from codeact.training.adapters import with_adapter

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not os.environ.get("CODEACT_FULL"), reason="a minute: with CODEACT_FULL=1")
@pytest.mark.parametrize("method", ["full", "lora"])
def test_packed_is_unpacked(smollm2: Path, method: str) -> None:
    tokens = tokenize_examples(harvest_functions(limit=6), load_tokenizer(smollm2), max_length=256)
    tokens = tokens.select(tokens.num_response_tokens.nonzero()[0])
    plain = trainable(smollm2, method, "sdpa")
    loss = unpacked_loss(plain, tokens)
    loss.backward()
    ours = trainable(smollm2, method, "codeact")
    packed = packed_step(ours, tokens)
    assert packed == pytest.approx(loss.item(), rel=1e-5)
    expected = gradients(plain)
    found = gradients(ours)
    assert found.keys() == expected.keys()
    error = sum(((found[name] - expected[name]) ** 2).sum() for name in found)
    size = sum((gradient**2).sum() for gradient in expected.values())
    relative = float((error / size).sqrt())
    print(f"{method}: loss {abs(packed / loss.item() - 1):.1e}, gradients {relative:.1e} relative")
    assert relative < 1e-5


def trainable(folder: Path, method: str, attention: str) -> Any:
    """The model as ``method`` trains it; adapters that do something, B is 0 at first."""
    loaded = load_model(folder, device="cpu", dtype="float32", attn_implementation=attention)
    model = with_adapter(loaded.model, TrainConfig(method=method)).train()
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.02, generator=generator)
    return model


def packed_step(model: Any, tokens: TokenizedExamples) -> float:
    """The loss of all rows in bins, gradients left in the model."""
    plan = plan_bins(tokens.seqlens, 512)
    dataset, collate = PackedDataset(tokens, plan), PackedCollator()
    batches = [collate([dataset[int(row)] for row in bin_]) for bin_ in plan.epoch(0)]
    weight = total_weight(batches)
    total = 0.0
    for batch in batches:
        loss = packed_loss(model, batch, weight)
        loss.backward()
        total += loss.item()
    return total


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """In float64, by name."""
    return {
        name: weight.grad.double()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
