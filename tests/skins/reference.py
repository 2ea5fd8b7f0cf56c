"""A small set, and plain training on it one unpacked row at a time: what every skin must equal."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from codeact.models import load_model
from codeact.packing import BinPlan, FlatTokens, plan_bins

# 9 bins for one rank and 5 steps for two: each epoch ends in a step of fewer bins than the others.
CAPACITY, ACCUMULATION, EPOCHS = 52, 2, 2
LEARNING_RATE = 0.1
NUM_EXAMPLES = 24


def make_store(seqlens: list[int] | None = None) -> FlatTokens:
    """24 examples of 6 to 30 tokens; the first token of example i is ``3 + i``."""
    rng = np.random.default_rng(0)
    seqlens = seqlens or rng.integers(6, 31, size=NUM_EXAMPLES).tolist()
    offsets = np.concatenate([[0], np.cumsum(seqlens)]).astype(np.int64)
    input_ids = rng.integers(3 + NUM_EXAMPLES, 250, size=offsets[-1]).astype(np.int32)
    input_ids[offsets[:-1]] = 3 + np.arange(len(seqlens))
    labels = input_ids.copy()
    for index, start in enumerate(offsets[:-1]):  # prompts of different lengths carry no loss
        labels[start : start + 1 + index % 5] = -100
    return FlatTokens(input_ids, labels, offsets)


def make_plan(world_size: int = 1, **options: Any) -> BinPlan:
    return plan_bins(make_store().seqlens, CAPACITY, world_size=world_size, **options)


def tiny(folder: Path | str, attn_implementation: str = "codeact") -> PreTrainedModel:
    return load_model(folder, device="cpu", attn_implementation=attn_implementation).model


@dataclass
class Run:
    """What a training run did: a loss for each optimizer step, and the weights it ended with."""

    losses: list[float]
    parameters: list[torch.Tensor]
    seen: list[list[int]] = field(default_factory=list)

    def assert_close(self, other: Run) -> None:
        """Losses to 1e-5, weights to 1e-4 of the largest: float32 after several steps."""
        np.testing.assert_allclose(self.losses, other.losses, rtol=1e-5)
        for ours, theirs in zip(self.parameters, other.parameters, strict=True):
            assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def parameters_of(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def watch(model: PreTrainedModel) -> list[list[int]]:
    """The examples of every forward pass in training from here on, known by their first token."""
    seen: list[list[int]] = []

    def note(module: torch.nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        if module.training:
            starts = (inputs["position_ids"][0] == 0).nonzero()[:, 0]
            seen.append((inputs["input_ids"][0][starts] - 3).tolist())

    model.register_forward_pre_hook(note, with_kwargs=True)
    return seen


def leaking(folder: Path | str) -> PreTrainedModel:
    """A model that is told of no boundary: every example sees those before it in its bin."""

    def leak(module: torch.nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
        inputs.pop("cu_seq_lens_q", None)
        inputs["position_ids"] = torch.arange(inputs["input_ids"].shape[1])[None]
        return args, inputs

    model = tiny(folder)
    model.register_forward_pre_hook(leak, with_kwargs=True)
    return model


def assert_each_once(seen_by_rank: list[list[list[int]]], epochs: int = EPOCHS) -> None:
    """Every example in one bin of one rank in each epoch, and the epochs packed differently."""
    bins_of_epochs = []
    for epoch in range(epochs):
        bins: list[list[int]] = []
        for seen in seen_by_rank:
            steps = len(seen) // epochs
            assert len(seen) == steps * epochs
            bins += seen[epoch * steps : (epoch + 1) * steps]
        assert sorted(chain.from_iterable(bins)) == list(range(NUM_EXAMPLES))
        bins_of_epochs.append({frozenset(bin_) for bin_ in bins})
    assert epochs == 1 or bins_of_epochs[0] != bins_of_epochs[1]


def updates(plan: BinPlan, epochs: int = EPOCHS, accumulation: int = ACCUMULATION) -> list[Any]:
    """The examples of every optimizer step of a run, over all ranks."""
    found = []
    for epoch in range(epochs):
        bins = [np.asarray(indices).tolist() for indices in plan.epoch(epoch)]
        size = accumulation * plan.world_size
        found += [list(chain(*bins[at : at + size])) for at in range(0, len(bins), size)]
    return found


def unpacked_loss(
    model: PreTrainedModel,
    examples: list[int],
    *,
    loss_norm: str = "token",
    weights: np.ndarray | None = None,
) -> torch.Tensor:
    """``sum(w * nll) / sum(w)`` of a step, a row at a time from full logits: the definition."""
    store, total, denominator = make_store(), torch.zeros((), dtype=model.dtype), 0.0
    for example in examples:
        ids, labels = (torch.from_numpy(np.array(row)).long() for row in row_of(store, example))
        logits = model(ids[None], use_cache=False).logits[0, :-1]
        reduction = "mean" if loss_norm == "sample" else "sum"
        weight = 1.0 if weights is None else float(weights[example])
        total = total + weight * F.cross_entropy(logits, labels[1:], reduction=reduction)
        num_scored = int((labels[1:] != -100).sum())
        denominator += weight * (1 if loss_norm == "sample" else num_scored)
    return total / denominator


def train_unpacked(folder: Path | str, steps: list[list[int]], **loss: Any) -> Run:
    """SGD on :func:`unpacked_loss`: no pack, no accumulation, no rank."""
    model, losses = tiny(folder, "eager").train(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    for examples in steps:
        value = unpacked_loss(model, examples, **loss)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return Run(losses, parameters_of(model))


def row_of(store: FlatTokens, index: int) -> tuple[np.ndarray, np.ndarray]:
    return store[index].input_ids, store[index].labels
