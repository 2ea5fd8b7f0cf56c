"""Influence while training: against explicit gradients, and what it must leave alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from in_run_cases import (
    VOCAB,
    Row,
    StepRecorder,
    arguments,
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

from codeact.data import load_examples, tokenize_examples
from codeact.errors import InputError
from codeact.models import ScoredSequence, load_tokenizer, register_attention
from codeact.packing import PackedDataset, plan_bins
from codeact.training import (
    IN_RUN_TABLE,
    CodeActTrainer,
    InRunInfluence,
    sequence_ids,
)


@pytest.fixture
def model() -> LlamaForCausalLM:
    return tiny_model()


@pytest.mark.parametrize(("accumulation", "loss_norm"), [(1, "token"), (2, "sample")])
def test_equals_reverse_mode_dot_products(
    model: LlamaForCausalLM, tmp_path: Path, accumulation: int, loss_norm: str
) -> None:
    rows, validation = random_rows(8), random_rows(4, seed=1)
    trainer = packed_trainer(
        model, rows, tmp_path, gradient_accumulation_steps=accumulation, num_train_epochs=2,
        loss_norm=loss_norm,
    )  # fmt: skip
    recorder = StepRecorder(trainer)  # inside of the wrap: what is trained on
    influence = InRunInfluence(sequences(validation)).attach(trainer)
    trainer.train()
    expected = {key_of(row): np.zeros(2) for row in rows}
    for at, drawn, rate in recorder.steps:
        gradients, direction = explicit_gradients(at, drawn, validation)
        counts = np.array([sum(y != -100 for y in row["labels"][1:]) for row in drawn])
        weights = counts if loss_norm == "token" else np.ones(len(drawn))
        share = weights / weights.sum()
        products = rate * (gradients @ direction).numpy()
        for row, value, part in zip(drawn, products, share, strict=True):
            expected[key_of(row)] += [value, value * part]
    found = influence.table.to_pylist()
    assert len(found) == len(rows)
    scale = np.abs(list(expected.values())).max(axis=0)
    for record in found:
        values = [record["influence"], record["contribution"]]
        assert np.abs(values - expected[record["sequence_hash"]]).max() <= 1e-5 * scale.min()
        assert record["num_measured"] == record["num_trained"] == 2
    assert len(recorder.steps) == len(influence.steps)


def test_contributions_add_up_to_the_fall_of_the_loss(tmp_path: Path) -> None:
    model = tiny_model(torch.float64)
    rows, validation = random_rows(12), random_rows(4, seed=1)
    trainer = packed_trainer(model, rows, tmp_path, learning_rate=2e-4, num_train_epochs=2)
    influence = InRunInfluence(sequences(validation)).attach(trainer)
    before = validation_loss(model, validation)
    trainer.train()
    fall = before - validation_loss(model, validation)
    total = sum(influence.table.column("contribution").to_pylist())
    assert total == pytest.approx(fall, rel=0.01)
    assert influence.steps[0].validation_loss == pytest.approx(before, rel=1e-5)


@pytest.mark.parametrize("padded", [False, True])
def test_keeping_all_changes_no_bit(tmp_path: Path, padded: bool) -> None:
    rows = random_rows(12)
    models = []
    for is_measured in (False, True):
        model = tiny_model()
        model.config.attention_dropout = 0.0
        make = padded_trainer if padded else packed_trainer
        trainer = make(model, rows, tmp_path, optim="adamw_torch", gradient_accumulation_steps=2)
        if is_measured:
            InRunInfluence(sequences(random_rows(3, seed=1)), keep=1.0).attach(trainer)
        trainer.train()
        models.append(model)
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(next(models[0].parameters()), next(tiny_model().parameters()))


def test_resumed_run_ends_with_the_same_table(tmp_path: Path) -> None:
    rows, validation = random_rows(8), sequences(random_rows(4, seed=1))

    def run(folder: Path, resume: Any = None, **options: Any) -> Any:
        trainer = packed_trainer(
            tiny_model(), rows, folder, num_train_epochs=2, optim="adamw_torch",
            save_strategy="steps", save_steps=2, **options,
        )  # fmt: skip
        influence = InRunInfluence(validation, keep=0.5, validation_batch=2).attach(trainer)
        trainer.train(resume_from_checkpoint=resume)
        return influence.table, trainer.model

    whole, model = run(tmp_path / "whole")
    saved = pq.read_table(tmp_path / "whole" / "checkpoint-2" / IN_RUN_TABLE)
    assert 0 < sum(saved["num_measured"].to_pylist()) < sum(whole["num_measured"].to_pylist())
    assert pq.read_table(tmp_path / "whole" / IN_RUN_TABLE).equals(whole)
    resumed, again = run(tmp_path / "resumed", str(tmp_path / "whole" / "checkpoint-2"))
    assert resumed.equals(whole)
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_every_refresh_and_names_of_rows(tiny_model_folder: Path, tmp_path: Path) -> None:
    texts = [{"instruction": f"say {word}", "output": word} for word in ("a", "be", "cat", "door")]
    examples = load_examples(texts)
    tokenised = tokenize_examples(examples, load_tokenizer(tiny_model_folder), max_length=100)
    register_attention()
    model = LlamaForCausalLM.from_pretrained(tiny_model_folder, attn_implementation="codeact")
    trainer = CodeActTrainer(
        model=model, args=arguments(tmp_path, num_train_epochs=6, learning_rate=1e-3),
        train_dataset=PackedDataset(tokenised, plan := plan_bins(tokenised.seqlens, 400)),
        plan=plan,
    )  # fmt: skip
    validation = [ScoredSequence(*tokenised[1])]
    influence = InRunInfluence(validation, every=2, refresh=4, ids=sequence_ids(tokenised)).attach(
        trainer
    )
    trainer.train()
    assert sorted(influence.table["id"].to_pylist()) == sorted(tokenised.ids)
    assert set(influence.table["num_measured"].to_pylist()) == {3}
    assert [step.step for step in influence.steps] == [0, 2, 4]
    losses = [step.validation_loss for step in influence.steps]
    assert losses[0] == losses[1] > losses[2]  # the second step used the first one's gradient


def influence_of_a_step(
    model: Any,
    folder: Path,
    *,
    parameters: str = "all",
    keep: float | None = None,
    make: Any = packed_trainer,
    **options: Any,
) -> NDArray[np.float64]:
    if make is packed_trainer:
        options["capacity"] = 100  # one step
    trainer = make(model, random_rows(6), folder, lr_scheduler_type="constant", **options)
    influence = InRunInfluence(
        sequences(random_rows(3, seed=1)), parameters=parameters, keep=keep
    ).attach(trainer)
    trainer.train()
    return influence.table.sort_by("sequence_hash")["influence"].to_numpy()


@pytest.mark.parametrize("keep", [None, 0.5])
def test_autocast_and_gradient_checkpointing(tmp_path: Path, keep: float | None) -> None:
    exact = influence_of_a_step(tiny_model(), tmp_path, keep=keep)
    checkpointed = influence_of_a_step(
        tiny_model(), tmp_path, gradient_checkpointing=True, keep=keep
    )
    assert checkpointed == pytest.approx(exact, rel=1e-6)
    in_bfloat16 = influence_of_a_step(tiny_model(), tmp_path, bf16=True, keep=keep)
    assert not np.array_equal(exact, in_bfloat16)
    assert np.abs(in_bfloat16 - exact).max() <= 0.05 * np.abs(exact).max()
    # A plain Trainer's model has not been checked for isolation before autocast surrounds it.
    padded = influence_of_a_step(
        tiny_model(), tmp_path, make=padded_trainer, per_device_train_batch_size=6, bf16=True
    )
    assert padded == pytest.approx(in_bfloat16, abs=1e-3 * np.abs(exact).max())


def test_only_trainable_parameters_count(tmp_path: Path) -> None:
    rows, validation = random_rows(6), random_rows(3, seed=1)
    model = tiny_model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.1" in name)
    gradients, direction = explicit_gradients_by_name(model, rows, validation)
    moved = torch.cat([
        torch.full((p.numel(),), float("layers.1" in n)) for n, p in model.named_parameters()
    ])  # fmt: skip
    expected = 0.05 * (gradients * moved) @ direction
    found = influence_of_a_step(model, tmp_path)
    order = np.argsort([key_of(row) for row in rows])
    assert found == pytest.approx(expected.numpy()[order], rel=1e-3)


def explicit_gradients_by_name(
    model: LlamaForCausalLM, rows: list[Row], validation: list[Row]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every parameter, whether it trains or not."""
    whole = copy.deepcopy(model)
    whole.requires_grad_(True)
    return explicit_gradients(whole, rows, validation)


def test_lora(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = peft.get_peft_model(tiny_model(), config)
    rows, validation = random_rows(6), random_rows(3, seed=1)
    base = copy.deepcopy(model).double().get_base_model()
    base.set_attn_implementation("eager")
    trained = [p for p in base.parameters() if p.requires_grad]
    loss = torch.stack([mean_loss(base, row) for row in validation]).mean()
    direction = torch.autograd.grad(loss, trained)
    expected = {}
    for row in rows:
        parts = torch.autograd.grad(mean_loss(base, row), trained)
        dots = [float((a * b).sum()) for a, b in zip(parts, direction, strict=True)]
        expected[key_of(row)] = 0.05 * sum(dots)
    found = influence_of_a_step(model, tmp_path, parameters="lora")
    assert found == pytest.approx([expected[key] for key in sorted(expected)], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": 0.0}, "keep must be in"),
        ({"keep": 1.5}, "keep must be in"),
        ({"every": 0}, "every must be at least 1"),
        ({"validation_batch": 0}, "validation_batch must be at least 1"),
        ({"optimizer": "lion"}, "optimizer must be sgd or adamw"),
        ({"optimizer": "adamw", "keep": 0.5}, "interactions = False"),
    ],
)
def test_options_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        InRunInfluence(sequences(random_rows(2)), **options)


def test_refusals(model: LlamaForCausalLM, tmp_path: Path) -> None:
    unscored = [{**row, "labels": [-100] * len(row["labels"])} for row in random_rows(2)]
    with pytest.raises(InputError, match="got 2 without"):
        InRunInfluence(sequences(unscored))
    validation = sequences(random_rows(2))
    trainer = packed_trainer(model, random_rows(4), tmp_path)
    InRunInfluence(validation).attach(trainer)
    with pytest.raises(InputError, match="takes one InRunInfluence"):
        InRunInfluence(validation).attach(trainer)
    frozen = padded_trainer(tiny_model(), random_rows(4), tmp_path)
    frozen.model.requires_grad_(False)
    with pytest.raises(InputError, match="none that trains"):
        InRunInfluence(validation).attach(frozen)
    means = padded_trainer(tiny_model(), random_rows(4), tmp_path, gradient_accumulation_steps=2)
    means.model_accepts_loss_kwargs = False
    with pytest.raises(InputError, match="num_items_in_batch"):
        InRunInfluence(validation).attach(means)


def test_an_influence_that_is_no_number_names_its_row(tmp_path: Path) -> None:
    model = tiny_model()
    rows = random_rows(4)
    rows[2]["input_ids"][1] = VOCAB - 1
    with torch.no_grad():
        model.model.embed_tokens.weight[VOCAB - 1] = float("inf")
    validation = [row for row in random_rows(9, seed=1) if VOCAB - 1 not in row["input_ids"]]
    rows = [row for row in rows[:2] + rows[3:] if VOCAB - 1 not in row["input_ids"]] + [rows[2]]
    trainer = padded_trainer(model, rows, tmp_path)
    name = key_of(rows[-1])
    InRunInfluence(sequences(validation), ids={name: "row seven"}).attach(trainer)
    with pytest.raises(RuntimeError, match="influence of row seven is not finite at step 0"):
        trainer.train()


@pytest.mark.gpu
@pytest.mark.parametrize("keep", [None, 0.5])
def test_on_gpu_as_on_cpu(tmp_path: Path, keep: float | None) -> None:
    tables = []
    for on_cpu in (True, False):
        trainer = packed_trainer(
            tiny_model(), random_rows(12), tmp_path, capacity=60, use_cpu=on_cpu, num_train_epochs=2
        )
        influence = InRunInfluence(sequences(random_rows(3, seed=1)), keep=keep).attach(trainer)
        trainer.train()
        tables.append(influence.table.sort_by("sequence_hash"))
    ours, theirs = (table["influence"].to_numpy() for table in tables)
    assert np.abs(ours - theirs).max() <= 2e-2 * np.abs(theirs).max()
    assert tables[0]["num_trained"].equals(tables[1]["num_trained"])
