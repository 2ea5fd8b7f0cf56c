"""A small model, rows and trainers, and the gradients that influence is made of."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from codeact.models import ScoredSequence, register_attention
from codeact.packing import FlatTokens, PackedDataset, plan_bins
from codeact.training import (
    CodeActTrainer,
    sequence_hash,
)
from codeact.training.in_run.batches import sequences_of

VOCAB = 40
Row = dict[str, list[int]]


def tiny_model(dtype: torch.dtype = torch.float32, scale: float = 0.2) -> LlamaForCausalLM:
    register_attention()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
        initializer_range=scale, attn_implementation="codeact", bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype)


def random_rows(num_rows: int, seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num_rows):
        ids = rng.integers(3, VOCAB, size=rng.integers(4, 12)).tolist()
        prompt = int(rng.integers(1, 3))
        rows.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return rows


def sequences(rows: list[Row]) -> list[ScoredSequence]:
    return [ScoredSequence(*(np.array(row[k], np.int32) for k in row)) for row in rows]


def key_of(row: Row) -> str:
    return sequence_hash(*(np.array(row[name], dtype=np.int32) for name in row))


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    defaults = {
        "learning_rate": 0.05, "lr_scheduler_type": "linear", "optim": "sgd", "max_grad_norm": 0.0,
        "save_strategy": "no", "report_to": "none", "use_cpu": True, "disable_tqdm": True,
        "num_train_epochs": 1, "logging_steps": 1000, "remove_unused_columns": False,
    }  # fmt: skip
    return TrainingArguments(output_dir=str(folder), **(defaults | options))


def packed_trainer(
    model: LlamaForCausalLM, rows: list[Row], folder: Path, *, capacity: int = 24, **options: Any
) -> CodeActTrainer:
    store = FlatTokens.from_rows(rows)
    plan = plan_bins(np.array([len(row["input_ids"]) for row in rows]), capacity)
    loss_norm = options.pop("loss_norm", "token")
    return CodeActTrainer(
        model=model, args=arguments(folder, **options), train_dataset=PackedDataset(store, plan),
        plan=plan, loss_norm=loss_norm,
    )  # fmt: skip


def mean_loss(model: LlamaForCausalLM, row: Row) -> torch.Tensor:
    """The mean loss of the scored tokens, by transformers' own attention and all logits."""
    ids, labels = (torch.tensor(row[name]) for name in ("input_ids", "labels"))
    logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
    return F.cross_entropy(logits.double(), labels[1:], ignore_index=-100)


def explicit_gradient(model: LlamaForCausalLM, loss: torch.Tensor) -> torch.Tensor:
    parts = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    pairs = zip(parts, model.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def explicit_gradients(
    model: LlamaForCausalLM, rows: list[Row], validation: list[Row]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(num_rows, num_parameters) of the rows' mean losses, (num_parameters,) of L(V)."""
    plain = copy.deepcopy(model).double()
    plain.set_attn_implementation("eager")
    of_rows = [explicit_gradient(plain, mean_loss(plain, row)) for row in rows]
    loss = torch.stack([mean_loss(plain, row) for row in validation]).mean()
    return torch.stack(of_rows), explicit_gradient(plain, loss)


def validation_loss(model: LlamaForCausalLM, validation: list[Row]) -> float:
    with torch.no_grad():
        return float(torch.stack([mean_loss(model, row) for row in validation]).mean())


class StepRecorder:
    """The model and the rows of each step, before it; ``attach`` comes after this."""

    def __init__(self, trainer: Trainer) -> None:
        self.steps: list[tuple[LlamaForCausalLM, list[Row], float]] = []
        draw = trainer.get_batch_samples

        def record(iterator: Any, *args: Any) -> Any:
            batches, count = draw(iterator, *args)
            rows = [
                {"input_ids": s.tokens.input_ids.tolist(), "labels": s.tokens.labels.tolist()}
                for batch in batches
                for s in sequences_of(batch)
            ]
            rate = trainer.optimizer.param_groups[0]["lr"]
            self.steps.append((copy.deepcopy(trainer.model), rows, rate))
            return batches, count

        trainer.get_batch_samples = record


def padded_collator(features: list[Row]) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in features)
    batch: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for row in features:
        pad = longest - len(row["input_ids"])
        batch["input_ids"].append(row["input_ids"] + [0] * pad)
        batch["attention_mask"].append([1] * len(row["input_ids"]) + [0] * pad)
        batch["labels"].append(row["labels"] + [-100] * pad)
    return {name: torch.tensor(values) for name, values in batch.items()}


def padded_trainer(
    model: LlamaForCausalLM, rows: list[Row], folder: Path, **options: Any
) -> Trainer:
    return Trainer(
        model=model, args=arguments(folder, **{"per_device_train_batch_size": 4, **options}),
        train_dataset=rows, data_collator=padded_collator,
    )  # fmt: skip
