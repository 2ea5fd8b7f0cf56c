"""Training on pairs from end to end: ranks, resuming, adapters, what is refused."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dpo_cases import make_pairs, plain_losses, rows, tiny

from codeact.data.pairs import load_pairs, tokenize_pairs
from codeact.errors import InputError
from codeact.models import load_model, load_tokenizer
from codeact.packing import plan_bins
from codeact.training.arguments import training_arguments
from codeact.training.config import TrainConfig
from codeact.training.dpo.pairs import PackedPairs
from codeact.training.dpo.reference import reference_log_probs
from codeact.training.dpo.trainer import CodeActDPOTrainer
from codeact.training.dpo.tuning import DPOResult, fine_tune_dpo

BETA = 0.3
SGD = TrainConfig(
    epochs=2.0, learning_rate=5e-4, lr_scheduler="constant", warmup_ratio=0.0, optimizer="sgd",
    max_grad_norm=0.0, capacity=400, accumulation=2,
)  # fmt: skip


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert (weight - theirs[name]).abs().max() <= 1e-5 * theirs[name].abs().max(), name


def train_plain(folder: Path, accumulation: int, epochs: int = 2) -> tuple[list[float], Any]:
    """SGD a pair at a time from full logits: no bin, no rank."""
    pairs, model = make_pairs(folder), tiny(folder, attn_implementation="eager")
    reference = reference_log_probs(tiny(folder), pairs)
    plan = plan_bins(pairs.seqlens, SGD.capacity, seed=SGD.seed)
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=SGD.learning_rate), []
    for epoch in range(epochs):
        bins = [np.asarray(bin_).tolist() for bin_ in plan.epoch(epoch)]
        for at in range(0, len(bins), accumulation):
            step = [index for bin_ in bins[at : at + accumulation] for index in bin_]
            loss = plain_losses(model, pairs, reference, BETA, step).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses, weights_of(model)


def test_steps_are_those_of_a_plain_loop(tiny_model_folder: Path, tmp_path: Path):
    pairs, model = make_pairs(tiny_model_folder), tiny(tiny_model_folder)
    seen: list[int] = []
    result = fine_tune_dpo(
        model, pairs, SGD, folder=tmp_path, beta=BETA,
        on_step=lambda step, num_steps: seen.append(num_steps),
    )  # fmt: skip
    losses, weights = train_plain(tiny_model_folder, accumulation=2)
    assert len(losses) > 3
    assert [step.loss for step in result.steps] == pytest.approx(losses, rel=1e-5)
    assert_close(weights_of(model), weights)
    assert seen == [len(losses)] * len(losses)
    assert sum(step.num_tokens for step in result.steps) == 2 * len(pairs.input_ids)
    # Before its first update the policy is its reference.
    assert result.rewards[0].margin == pytest.approx(0.0, abs=1e-4)
    assert result.steps[0].loss == pytest.approx(np.log(2.0), abs=1e-4)
    assert [reward.step for reward in result.rewards] == [step.step for step in result.steps]
    assert result.rewards[-1].margin == pytest.approx(
        result.rewards[-1].chosen - result.rewards[-1].rejected, rel=1e-9
    )
    assert not model.training


class KilledError(Exception):
    pass


@pytest.mark.parametrize("method", ["full", "lora"])
def test_resumed_run_is_the_uninterrupted_one(tiny_model_folder: Path, tmp_path: Path, method: str):
    if method == "lora":
        pytest.importorskip("peft")
    config = replace(
        SGD, optimizer="adamw", accumulation=1, method=method, save_steps=2, max_steps=5
    )
    pairs = make_pairs(tiny_model_folder)

    def train(folder: Path, **options: Any) -> tuple[DPOResult, Any]:
        model = tiny(tiny_model_folder)
        result = fine_tune_dpo(model, pairs, config, folder=folder, beta=BETA, **options)
        return result, model

    tokenizer = load_tokenizer(tiny_model_folder)
    whole, model = train(tmp_path / "whole", save_to=tmp_path / "saved", tokenizer=tokenizer)

    def stop(step: Any, _: int) -> None:
        if step.step == 3:
            raise KilledError

    with pytest.raises(KilledError):
        train(tmp_path / "cut", on_step=stop)
    before = (tmp_path / "cut" / "reference.npz").stat().st_mtime_ns
    with pytest.raises(InputError, match=r"beta = 0\.5 differs from the 0\.3 that the run in"):
        fine_tune_dpo(
            tiny(tiny_model_folder), pairs, config, folder=tmp_path / "cut", beta=0.5, resume=True
        )
    resumed, resumed_model = train(tmp_path / "cut", resume=True)
    assert resumed.resumed_at == 2
    assert [step.loss for step in resumed.steps] == [step.loss for step in whole.steps]
    assert resumed.rewards == whole.rewards
    assert len(whole.rewards) == len(whole.steps) == 5
    weights = weights_of(model)
    for name, weight in weights_of(resumed_model).items():
        assert torch.equal(weight, weights[name]), name
    assert (tmp_path / "cut" / "reference.npz").stat().st_mtime_ns == before
    # What was saved is what was trained, and it has left its reference.
    where = {"adapter": tmp_path / "saved"} if method == "lora" else {}
    folder = tiny_model_folder if method == "lora" else tmp_path / "saved"
    loaded = load_model(folder, device="cpu", attn_implementation="codeact", **where).model
    trained = reference_log_probs(loaded, pairs)
    np.testing.assert_allclose(trained, reference_log_probs(model, pairs), rtol=1e-6)
    start = reference_log_probs(tiny(tiny_model_folder), pairs)
    assert np.abs(trained - start).max() > 0.01


def test_evaluation_is_the_plain_mean(tiny_model_folder: Path, tmp_path: Path):
    pairs, model = make_pairs(tiny_model_folder), tiny(tiny_model_folder, shift=0.03)
    reference = reference_log_probs(tiny(tiny_model_folder), pairs)
    plan = plan_bins(pairs.seqlens, SGD.capacity)
    args = training_arguments(SGD, plan, tmp_path, model)
    trainer = CodeActDPOTrainer(
        model,
        args,
        train_dataset=PackedPairs(pairs, plan, reference=reference),
        eval_dataset=PackedPairs(pairs, reference=reference),
        plan=plan,
        beta=BETA,
    )
    args.per_device_eval_batch_size = len(pairs)  # one batch, whose mean is that of all pairs
    found = trainer.evaluate()
    plain = tiny(tiny_model_folder, shift=0.03, attn_implementation="eager")
    with torch.no_grad():
        losses = plain_losses(plain, pairs, reference, BETA)
    assert found["eval_loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    # A pair is won where its loss is below that of a margin of 0.
    won = (losses < np.log(2.0)).double().mean().item()
    assert 0.0 < won < 1.0
    assert found["eval_rewards/accuracies"] == pytest.approx(won)


def test_pairs_that_teach_nothing_are_left_out(
    tiny_model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    data = rows(4)
    data[1]["prompt"][0]["content"] *= 20
    data[2]["rejected"] = data[2]["chosen"]
    tokenizer = load_tokenizer(tiny_model_folder)
    pairs = tokenize_pairs(load_pairs(data), tokenizer, max_length=150)
    assert pairs.status == ("ok", "prompt_overflow", "same", "ok")
    with caplog.at_level(logging.WARNING, logger="codeact"):
        result = fine_tune_dpo(
            tiny(tiny_model_folder), pairs, replace(SGD, epochs=1.0), folder=tmp_path
        )
    assert sum(step.num_tokens for step in result.steps) == len(pairs.input_ids)
    assert "of 4 pairs 1 are left out (1 prompts too long), 0 are cut, and 1 have" in caplog.text
    stored = np.load(tmp_path / "reference.npz", allow_pickle=False)["log_probs"]
    assert np.isnan(stored[1]).all()
    assert json.loads((tmp_path / "dpo.json").read_text())["beta"] == 0.1


def test_what_cannot_be_trained_is_said(tiny_model_folder: Path, tmp_path: Path):
    model, pairs = tiny(tiny_model_folder), make_pairs(tiny_model_folder)
    with pytest.raises(InputError, match=r"capacity = 64 must hold both sequences of a pair"):
        fine_tune_dpo(model, pairs, replace(SGD, capacity=64), folder=tmp_path)
    with pytest.raises(InputError, match=r"beta must be a number above 0, got 0"):
        fine_tune_dpo(model, pairs, SGD, folder=tmp_path, beta=0)
    none = make_pairs(tiny_model_folder, max_length=2)
    with pytest.raises(InputError, match=r"at least one pair to learn from, got 9 prompt_overflow"):
        fine_tune_dpo(model, none, SGD, folder=tmp_path)
