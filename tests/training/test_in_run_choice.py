"""Training on a part of each step: the right part, and the faster for it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_run_cases import (
    VOCAB,
    Row,
    explicit_gradients,
    key_of,
    mean_loss,
    packed_trainer,
    padded_trainer,
    random_rows,
    sequences,
    tiny_model,
    validation_loss,
)
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from codeact.training import (
    InRunInfluence,
    greats_choice,
    sequence_hash,
)
from codeact.training.in_run.batches import keep_sequences, sequences_of


@pytest.fixture
def model() -> LlamaForCausalLM:
    return tiny_model()


class StepRecorderOfTrained:
    """Hashes of what a loss is computed of."""

    def __init__(self, trainer: Any) -> None:
        self.trained: set[str] = set()
        self.num_tokens = 0
        compute = trainer.compute_loss

        def record(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            self.num_tokens += inputs["input_ids"].numel()
            for found in sequences_of(inputs):
                if found.num_scored:
                    self.trained.add(sequence_hash(*found.tokens[:2]))
            return compute(model, inputs, *args, **kwargs)

        trainer.compute_loss = record


@pytest.mark.parametrize("implementation", ["codeact", "sdpa", "eager"])
def test_padded_rows_of_a_plain_trainer(
    model: LlamaForCausalLM, tmp_path: Path, implementation: str
) -> None:
    """Half of the rows are trained on, exactly as if the other half had never been there."""
    rows, validation = random_rows(8), random_rows(4, seed=1)
    model.set_attn_implementation(implementation)
    expected = copy.deepcopy(model)
    gradients, direction = explicit_gradients(model, rows, validation)
    trainer = padded_trainer(
        model, rows, tmp_path, gradient_accumulation_steps=2, lr_scheduler_type="constant"
    )
    influence = InRunInfluence(sequences(validation), keep=0.5, interactions=False).attach(trainer)
    trainer.train()
    assert model.config._attn_implementation == implementation
    products = 0.05 * (gradients @ direction).numpy()
    table = {record["sequence_hash"]: record for record in influence.table.to_pylist()}
    for row, value in zip(rows, products, strict=True):
        assert table[key_of(row)]["influence"] == pytest.approx(value, rel=1e-3, abs=1e-6)
    best = [rows[index] for index in np.argsort(-products)[:4]]
    losses = [mean_loss(expected, row) * sum(y != -100 for y in row["labels"][1:]) for row in best]
    count = sum(y != -100 for row in best for y in row["labels"][1:])
    (torch.stack(losses).sum() / count).backward()
    torch.optim.SGD(expected.parameters(), lr=0.05).step()
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def plain_greedy(scores: NDArray[Any], gram: NDArray[Any], num_keep: int, rate: float) -> set[int]:
    """The greedy rule from its definition: the gain beside all chosen, summed anew each time."""
    chosen: list[int] = []
    for _ in range(num_keep):
        gains = {
            z: scores[z] - rate * sum(gram[i, z] for i in chosen)
            for z in range(len(scores))
            if z not in chosen
        }
        chosen.append(max(gains, key=lambda z: gains[z]))
    return set(chosen)


def test_greats_choice_takes_one_of_two_equal_rows() -> None:
    gradients = np.array([[3.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, -1.0]])
    scores, gram = gradients @ [1.0, 1.0], gradients @ gradients.T
    assert greats_choice(scores, gram, 2, rate=0.0).tolist() == [0, 1]
    assert greats_choice(scores, gram, 2, rate=0.5).tolist() == [0, 2]
    assert greats_choice(scores, gram, 4, rate=0.5).tolist() == [0, 2, 3, 1]


@pytest.mark.parametrize("strength", [True, 0.4])
def test_trains_on_the_greedy_choice(
    model: LlamaForCausalLM, tmp_path: Path, strength: bool | float
) -> None:
    rows = random_rows(9)
    rows += [{**row, "labels": [-100, *row["labels"][1:]]} for row in random_rows(3)]
    rows[-1]["input_ids"][0] = 5  # nearly, but not quite, rows of before
    rows[-2]["input_ids"][0] = 6
    rows[-3]["input_ids"][0] = 7
    validation = random_rows(3)  # the same rows help most, and twice
    gradients, direction = explicit_gradients(model, rows, validation)
    rate = 0.05 if strength is True else strength
    scores, gram = (gradients @ direction).numpy(), (gradients @ gradients.T).numpy()
    expected = {key_of(rows[i]) for i in plain_greedy(scores, gram, 6, rate)}
    trainer = packed_trainer(
        model, rows, tmp_path, capacity=40, gradient_accumulation_steps=10,
        lr_scheduler_type="constant",
    )  # fmt: skip
    influence = InRunInfluence(
        sequences(validation), keep=0.5, interactions=strength, token_budget=1000
    ).attach(trainer)
    recorder = StepRecorderOfTrained(trainer)
    trainer.train()
    table = influence.table.to_pylist()
    assert {record["sequence_hash"] for record in table if record["num_trained"]} == expected
    assert recorder.trained == expected
    if strength is not True:
        assert plain_greedy(scores, gram, 6, 0.0) != plain_greedy(scores, gram, 6, rate)


def test_a_planted_task_is_learnt_faster_than_by_random_halves(tmp_path: Path) -> None:
    """Half of the pool counts upwards, as the validation set does; the other half is noise."""
    rng = np.random.default_rng(0)

    def counting(num_rows: int) -> list[Row]:
        firsts = rng.integers(3, VOCAB - 9, size=num_rows).tolist()
        rows = [list(range(first, first + 8)) for first in firsts]
        return [{"input_ids": ids, "labels": [-100, *ids[1:]]} for ids in rows]

    validation, pool, num_epochs = counting(6), counting(32), 4
    for row in pool[::2]:
        noise = rng.integers(3, VOCAB, size=8).tolist()
        row.update(input_ids=noise, labels=[-100, *noise[1:]])
    losses: dict[str, float] = {}
    for name in ("greats", "random", "other random"):
        model = tiny_model(scale=0.05)
        trainer = packed_trainer(
            model, pool, tmp_path, capacity=64, num_train_epochs=num_epochs, learning_rate=0.01,
            optim="adamw_torch",
        )  # fmt: skip
        if name == "greats":
            influence = InRunInfluence(sequences(validation), keep=0.5).attach(trainer)
        else:
            keep_random_halves(trainer, seed=len(name))
        trainer.train()
        losses[name] = validation_loss(model, validation)
    assert losses["greats"] < min(losses["random"], losses["other random"]) - 0.1
    table = {record["sequence_hash"]: record for record in influence.table.to_pylist()}
    noisy = sum(table.pop(key_of(row))["num_trained"] for row in pool[::2])
    planted = sum(record["num_trained"] for record in table.values())
    assert planted > 4 * noisy
    assert planted + noisy == len(pool) * num_epochs / 2


def test_dropped_rows_cost_no_tokens(model: LlamaForCausalLM, tmp_path: Path) -> None:
    rows = random_rows(8)
    trainer = packed_trainer(model, rows, tmp_path, capacity=200)
    influence = InRunInfluence(sequences(random_rows(2, seed=1)), keep=0.25).attach(trainer)
    recorder = StepRecorderOfTrained(trainer)
    trainer.train()
    expected = sum(len(row["input_ids"]) for row in rows if key_of(row) in recorder.trained)
    assert recorder.num_tokens == trainer.num_tokens_seen == expected
    assert [step.num_kept for step in influence.steps] == [2]


def keep_random_halves(trainer: Any, seed: int) -> None:
    rng, draw = np.random.default_rng(seed), trainer.get_batch_samples

    def draw_half(iterator: Any, num: int, *args: Any) -> Any:
        batches = [next(iterator) for _ in range(num)]
        for index, batch in enumerate(batches):
            size = len(sequences_of(batch))
            batches[index] = keep_sequences(batch, rng.permutation(size) < size // 2)
        return draw(iter(batches), num, *args)

    trainer.get_batch_samples = draw_half
