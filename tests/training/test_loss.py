"""The loss of an optimizer step is that of the same rows unpacked, however they are spread."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, MixtralConfig, PreTrainedModel

from codeact.models import load_model
from codeact.packing import FlatTokens, PackedCollator, PackedDataset, plan_bins
from codeact.training import packed_loss, total_weight
from codeact.training.loss import packed_loss_and_outputs

NUM_EXAMPLES = 12


def rows() -> list[dict[str, np.ndarray]]:
    """Random rows; the first has no scored label, the last nothing but scored ones."""
    rng, found = np.random.default_rng(0), []
    for index in range(NUM_EXAMPLES):
        ids = rng.integers(3, 250, size=rng.integers(4, 40))
        num_masked = len(ids) if index == 0 else 0 if index == NUM_EXAMPLES - 1 else 3
        labels = np.where(np.arange(len(ids)) < num_masked, -100, ids)
        found.append({"input_ids": ids, "labels": labels})
    return found


EXAMPLES = FlatTokens.from_rows(rows())
WEIGHTS = np.random.default_rng(1).uniform(0, 3, size=NUM_EXAMPLES).round(2)
WEIGHTS[3] = 0.0


@pytest.fixture
def model(tiny_model_folder: Path) -> PreTrainedModel:
    return load_model(tiny_model_folder, device="cpu").model


def unpacked(model: PreTrainedModel, norm: str, weights: np.ndarray | None) -> torch.Tensor:
    """sum(w * nll) / sum(w), one row at a time from full logits: the definition."""
    total, denominator = torch.zeros((), dtype=model.dtype), 0.0
    for index, (ids, labels) in enumerate(EXAMPLES):
        targets = torch.from_numpy(labels[1:]).long()
        num_scored = int((targets != -100).sum())
        if num_scored == 0:
            continue
        logits = model(torch.from_numpy(ids).long()[None], use_cache=False).logits[0, :-1]
        nll = F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
        weight = 1.0 if weights is None else float(weights[index])
        weight /= num_scored if norm == "sample" else 1
        total = total + weight * nll
        denominator += weight * num_scored
    return total / denominator


def gradients(model: PreTrainedModel, loss: torch.Tensor) -> list[torch.Tensor]:
    return [grad.double() for grad in torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.parametrize("capacity", [40, 100, 1000])
@pytest.mark.parametrize(
    ("norm", "weights"),
    [("token", None), ("sample", None), ("token", WEIGHTS), ("sample", WEIGHTS)],
    ids=["token", "sample", "weights", "weighted samples"],
)
def test_equals_unpacked(
    model: PreTrainedModel,
    tiny_model_folder: Path,
    capacity: int,
    norm: Any,
    weights: np.ndarray | None,
) -> None:
    """Loss to 1e-6, gradients no further from float64 than the unpacked float32 ones, plus 1e-6."""
    reference = load_model(tiny_model_folder, device="cpu", attn_implementation="eager").model
    unpacked_loss = unpacked(reference, norm, weights)
    unpacked_gradients = gradients(reference, unpacked_loss)
    exact = reference.double()
    true_loss = unpacked(exact, norm, weights)
    truth = gradients(exact, true_loss)

    plan = plan_bins(EXAMPLES.seqlens, capacity)
    dataset, collate = (
        PackedDataset(EXAMPLES, plan, weights=weights),
        PackedCollator(loss_norm=norm),
    )
    batches = [collate([dataset[int(i)] for i in indices]) for indices in plan.epoch(0)]
    weight = total_weight(batches)
    shares = [packed_loss(model, batch, weight) for batch in batches]
    assert sum(shares).item() == pytest.approx(true_loss.item(), rel=1e-6)
    for ours, theirs, true in zip(
        gradients(model, sum(shares)), unpacked_gradients, truth, strict=True
    ):
        allowed = (theirs - true).abs().max() + 1e-6 * true.abs().max()
        assert (ours - true).abs().max() <= allowed


def test_total_weight_counts_what_is_scored() -> None:
    dataset = PackedDataset(EXAMPLES)
    batch = PackedCollator()([dataset[index] for index in range(NUM_EXAMPLES)])
    count = sum(int((labels[1:] != -100).sum()) for _, labels in EXAMPLES)
    assert total_weight([batch]).item() == count
    assert total_weight([batch, batch]).item() == 2 * count
    per_sample = PackedCollator(loss_norm="sample")([dataset[i] for i in range(NUM_EXAMPLES)])
    assert total_weight([per_sample]).item() == pytest.approx(NUM_EXAMPLES - 1, rel=1e-6)


def test_only_scored_rows_meet_the_output_projection(model: PreTrainedModel) -> None:
    dataset = PackedDataset(EXAMPLES)
    batch = PackedCollator()([dataset[index] for index in range(NUM_EXAMPLES)])
    rows = (batch["labels"][0, 1:] != -100).nonzero()[:, 0]
    seen: list[torch.Tensor] = []
    model.lm_head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with LargestTensor() as largest:
        loss, outputs = packed_loss_and_outputs(model, batch, total_weight([batch]))
        loss.backward()
    assert outputs.logits is None
    (hidden_states,) = seen
    full = model.get_decoder()(
        input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
    ).last_hidden_state[0]
    assert torch.equal(hidden_states, full[rows])
    # The rows fit one chunk of logits here; those of all positions would be larger.
    assert largest.num_elements < batch["input_ids"].numel() * model.config.vocab_size


class LargestTensor(TorchDispatchMode):
    num_elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, torch.Tensor):
            self.num_elements = max(self.num_elements, output.numel())
        return output


def test_nothing_scored_gives_zero_and_zero_gradients(model: PreTrainedModel) -> None:
    batch = PackedCollator()([PackedDataset(EXAMPLES)[0]])
    loss = packed_loss(model, batch, total_weight([batch]))
    assert loss.item() == 0.0
    assert all((grad == 0).all() for grad in gradients(model, loss))


def test_model_without_logits_to_keep(model: PreTrainedModel) -> None:
    class Plain(torch.nn.Module):
        def forward(self, *, logits_to_keep: object = None, **inputs: Any) -> Any:
            return model(**inputs)

    dataset = PackedDataset(EXAMPLES)
    batch = PackedCollator()([dataset[1], dataset[2]])
    expected = packed_loss(model, batch, 7.0).item()
    assert packed_loss(Plain(), batch, 7.0).item() == pytest.approx(expected, rel=1e-6)


def test_adapted_projection_is_trained_with_logits(
    model: PreTrainedModel, caplog: pytest.LogCaptureFixture
) -> None:
    """What has no fused loss has the same loss, and the log says so once."""
    peft = pytest.importorskip("peft")
    dataset = PackedDataset(EXAMPLES)
    batch = PackedCollator(loss_norm="sample")([dataset[index] for index in range(NUM_EXAMPLES)])
    expected = packed_loss(model, batch, 7.0).item()
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["lm_head"]))
    with caplog.at_level(logging.WARNING, logger="codeact"):
        losses = [packed_loss(adapted, batch, 7.0) for _ in range(2)]
    assert [loss.item() for loss in losses] == pytest.approx([expected] * 2, rel=1e-6)
    assert caplog.text.count("forms the logits of scored positions") == 1
    assert "merge its adapter" in caplog.text
    _, outputs = packed_loss_and_outputs(adapted, batch, 7.0)
    assert outputs.logits is None
    losses[0].backward()
    assert adapted.get_output_embeddings().lora_B["default"].weight.grad.abs().max() > 0


def test_router_loss_is_left_out() -> None:
    """As the Trainer's warning says: it is a mean over a micro-batch, not over a step."""
    config = MixtralConfig(
        vocab_size=256, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, num_local_experts=2,
        output_router_logits=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    batch = PackedCollator()([PackedDataset(EXAMPLES)[1]])
    weight = total_weight([batch])
    logits = model(batch["input_ids"], use_cache=False).logits[0, :-1]
    expected = F.cross_entropy(logits, batch["labels"][0, 1:])
    assert packed_loss(model, batch, weight).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("attn_implementation", ["codeact", "eager", "sdpa"])
def test_positions_alone_isolate(tiny_model_folder: Path, attn_implementation: str) -> None:
    """A batch of another collator that says nothing of a cache, which would mix the sequences."""
    options: dict[str, Any] = {"device": "cpu", "attn_implementation": attn_implementation}
    model = load_model(tiny_model_folder, **options).model
    dataset = PackedDataset(EXAMPLES)
    batch = PackedCollator()([dataset[index] for index in range(NUM_EXAMPLES)])
    batch = {key: batch[key] for key in ("input_ids", "labels", "position_ids")}
    loss = packed_loss(model, batch, total_weight([batch])).item()
    assert loss == pytest.approx(unpacked(model, "token", None).item(), rel=1e-5)


def test_bad_batches_are_named(model: PreTrainedModel) -> None:
    dataset = PackedDataset(EXAMPLES)
    batch = PackedCollator()([dataset[1]])
    with pytest.raises(ValueError, match="at least one batch"):
        total_weight([])
    with pytest.raises(ValueError, match="in all batches or in none"):
        total_weight([batch, PackedCollator(loss_norm="sample")([dataset[2]])])
    padded = {key: torch.cat([batch[key]] * 2) for key in ("input_ids", "labels")}
    with pytest.raises(ValueError, match=r"labels \(1, num_tokens\), got \(2, "):
        packed_loss(model, padded, 1.0)
    with pytest.raises(ValueError, match=r"no attention_mask of padding, got one of shape \(1, "):
        packed_loss(model, batch | {"attention_mask": torch.ones_like(batch["labels"])}, 1.0)
