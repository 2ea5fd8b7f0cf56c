"""A small set of rows, and plain training on it one unpacked row at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from codeact.data import TokenizedExamples, load_examples, tokenize_examples
from codeact.models import load_model, load_tokenizer
from codeact.packing import BinPlan, plan_bins

CAPACITY = 220


def make_rows(num_rows: int = 14) -> list[dict[str, str]]:
    rng = np.random.default_rng(0)
    words = ["add", "list", "return", "x", "def", "sum", "for"]
    return [
        {
            "instruction": " ".join(rng.choice(words, size=rng.integers(1, 6))),
            "output": " ".join(rng.choice(words, size=rng.integers(1, 9))),
        }
        for _ in range(num_rows)
    ]


def make_examples(folder: Path | str, rows: Any = None) -> TokenizedExamples:
    return tokenize_examples(
        load_examples(rows or make_rows()), load_tokenizer(folder), max_length=200
    )


def make_plan(folder: Path | str, world_size: int = 1, capacity: int = CAPACITY) -> BinPlan:
    return plan_bins(make_examples(folder).seqlens, capacity, world_size=world_size)


def tiny(folder: Path | str, attn_implementation: str = "codeact", **options: Any) -> Any:
    options = {"device": "cpu", "attn_implementation": attn_implementation, **options}
    return load_model(folder, **options).model


def unpacked_loss(model: torch.nn.Module, examples: TokenizedExamples) -> torch.Tensor:
    """Mean over all response tokens of the set, one row at a time, full logits."""
    total, count = torch.zeros(()), 0
    for row in range(len(examples)):
        ids, labels = (torch.from_numpy(np.array(x)).long() for x in examples[row])
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        total = total + F.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum")
        count += int((labels[1:] != -100).sum())
    return total / count


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_equal_weights(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
