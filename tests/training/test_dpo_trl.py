"""Tokens, loss, steps and logs of our trainer of pairs are those of TRL's DPOTrainer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dpo_cases import make_pairs, rows, tiny

from codeact.data.pairs import load_pairs, tokenize_pairs
from codeact.models import load_tokenizer
from codeact.packing import plan_bins
from codeact.training.dpo.pairs import PackedPairs
from codeact.training.dpo.reference import reference_log_probs
from codeact.training.dpo.trainer import CodeActDPOTrainer

pytest.importorskip("trl")

BETA, NUM_STEPS = 0.3, 3


def options(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "max_steps": NUM_STEPS, "learning_rate": 0.002, "optim": "sgd",
        "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "use_cpu": True, "bf16": False,
        "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
        **more,
    }  # fmt: skip


def trl_trainer(model: Any, data: list[dict[str, Any]], folder: Path, **more: Any) -> Any:
    """A step is all pairs at once; the reference is TRL's own frozen copy or switched adapter."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    args = DPOConfig(
        **options(folder), beta=BETA, max_length=150, per_device_train_batch_size=len(data), **more
    )
    tokenizer = AutoTokenizer.from_pretrained(model.config._name_or_path)
    return DPOTrainer(
        model, args=args, train_dataset=Dataset.from_list(data), processing_class=tokenizer
    )


def run(trainer: Any) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    trainer.train()
    logs = [line for line in trainer.state.log_history if "loss" in line]
    weights = {
        name.replace(".default", ""): p.detach().clone()
        for name, p in trainer.model.named_parameters()
        if p.requires_grad
    }
    return logs, weights


def with_lora(model: Any) -> Any:
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    return peft.get_peft_model(model, config)


@pytest.mark.parametrize(
    ("method", "normalised"), [("full", False), ("lora", False), ("full", True)]
)
def test_three_steps_are_theirs(
    tiny_model_folder: Path, tmp_path: Path, method: str, normalised: bool
):
    wrap: Callable[[Any], Any] = with_lora if method == "lora" else copy.copy
    data = rows()
    more = {"loss_type": ["sigmoid_norm"]} if normalised else {}
    theirs = wrap(tiny(tiny_model_folder, attn_implementation="eager"))
    expected, expected_weights = run(trl_trainer(theirs, data, tmp_path / "trl", **more))

    model = wrap(tiny(tiny_model_folder))
    pairs = make_pairs(tiny_model_folder)
    reference = reference_log_probs(model, pairs)
    plan = plan_bins(pairs.seqlens, 400)
    from transformers import TrainingArguments

    trainer = CodeActDPOTrainer(
        model,
        TrainingArguments(**options(tmp_path, gradient_accumulation_steps=plan.num_bins)),
        train_dataset=PackedPairs(pairs, plan, reference=reference),
        plan=plan,
        beta=BETA,
        length_normalised=normalised,
    )
    logs, weights = run(trainer)
    assert len(logs) == len(expected) == NUM_STEPS
    for ours, line in zip(logs, expected, strict=True):
        assert ours["loss"] == pytest.approx(line["loss"], rel=1e-5, abs=1e-5)
        for name in ("chosen", "rejected", "margins", "accuracies"):
            # They round what they log to some digits, and average over a batch.
            key = f"rewards/{name}"
            assert ours[key] == pytest.approx(line[key], rel=1e-4, abs=2e-4), key
        for key in ("logps/chosen", "logps/rejected"):
            assert ours[key] == pytest.approx(line[key], rel=1e-5), key
    assert abs(logs[-1]["rewards/margins"]) > 0.01  # the steps were more than rounding
    assert weights.keys() == expected_weights.keys()
    for name, weight in weights.items():
        error = (weight - expected_weights[name]).abs().max()
        assert error <= 1e-5 * expected_weights[name].abs().max(), name


@pytest.mark.parametrize("turns", [True, False])
@pytest.mark.parametrize("max_length", [150, 40])
def test_tokens_are_theirs(tiny_model_folder: Path, tmp_path: Path, turns: bool, max_length: int):
    data = rows(turns=turns)
    if not turns:
        data[0]["chosen"] += "<|im_end|>"  # is not to get a second one
    theirs = trl_trainer(tiny(tiny_model_folder), data, tmp_path)
    pairs = tokenize_pairs(
        load_pairs(data), load_tokenizer(tiny_model_folder), max_length=max_length
    )
    left_out = 0
    for index, row in enumerate(theirs.train_dataset):
        num_prompt = len(row["prompt_ids"])
        if num_prompt >= max_length:  # they drop it, when given the same max_length
            assert pairs.status[index] == "prompt_overflow"
            assert pairs.seqlens[index] == 0
            left_out += 1
            continue
        for ours, answer in zip(
            pairs.sequences(index), (row["chosen_ids"], row["rejected_ids"]), strict=True
        ):
            ids = (row["prompt_ids"] + answer)[:max_length]
            assert ours.input_ids.tolist() == ids
            assert ours.labels.tolist() == ([-100] * num_prompt + answer)[:max_length]
    assert left_out == (3 if turns and max_length == 40 else 0)
