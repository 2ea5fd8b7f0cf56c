"""A real model: a packed step has the loss and the gradients of its rows one by one."""

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


@pytest.mark.skipif(not os.environ.get("CODEACT_FULL"), reason="minutes: with CODEACT_FULL=1")
@pytest.mark.parametrize("method", ["full", "lora"])
def test_packed_is_unpacked(smollm2: Path, method: str) -> None:
    """Against float64: transformers' own loss in float32 is 8e-6 off there, its gradients 2e-4."""
    tokens = tokenize_examples(harvest_functions(limit=6), load_tokenizer(smollm2), max_length=256)
    tokens = tokens.select(tokens.num_response_tokens.nonzero()[0])
    truth = trainable(smollm2, method, "sdpa").double()
    exact = unpacked_loss(truth, tokens)
    exact.backward()
    expected = gradients(truth)
    plain = trainable(smollm2, method, "sdpa")
    unpacked = unpacked_loss(plain, tokens)
    unpacked.backward()
    ours = trainable(smollm2, method, "codeact")
    packed = packed_step(ours, tokens)
    errors = {
        "packed": (abs(packed / exact.item() - 1), distance(gradients(ours), expected)),
        "unpacked": (abs(unpacked.item() / exact.item() - 1), distance(gradients(plain), expected)),
    }
    print(method, errors)
    assert max(errors["packed"]) < 1e-5
    assert errors["packed"] <= errors["unpacked"]


def distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Norm of the difference over that of what is expected, all tensors as one vector."""
    assert found.keys() == expected.keys()
    error = sum(float(((found[name] - expected[name]) ** 2).sum()) for name in found)
    return float((error / sum(float((value**2).sum()) for value in expected.values())) ** 0.5)


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
