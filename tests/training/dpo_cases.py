"""Pairs for the tests of direct preference optimization, and the plain unpacked computation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codeact.data.pairs import TokenizedPairs, load_pairs, tokenize_pairs
from codeact.models import load_model, load_tokenizer

_WORDS = ["sum", "the", "numbers", "below", "n", "and", "return", "them", "in", "order", "of size"]


def rows(num_pairs: int = 9, *, turns: bool = True) -> list[dict[str, Any]]:
    """Prompts and answers of different lengths, as ``codeact measure`` writes them or as texts."""
    rng = np.random.default_rng(5)
    found = []
    for index in range(num_pairs):
        texts = [" ".join(rng.choice(_WORDS, size=size)) for size in rng.integers(1, 9, size=3)]
        row: dict[str, Any] = dict(zip(("prompt", "chosen", "rejected"), texts, strict=True))
        if turns:
            for name, role in (
                ("prompt", "user"),
                ("chosen", "assistant"),
                ("rejected", "assistant"),
            ):
                row[name] = [{"role": role, "content": row[name]}]
        found.append({**row, "task_id": f"t{index}", "gap": 1.5})
    return found


def make_pairs(folder: Path | str, num_pairs: int = 9, **options: Any) -> TokenizedPairs:
    pairs = load_pairs(rows(num_pairs))
    return tokenize_pairs(pairs, load_tokenizer(folder), max_length=options.get("max_length", 150))


def tiny(folder: Path | str, *, shift: float = 0.0, attn_implementation: str = "codeact") -> Any:
    """The model, its weights moved a little at random: a policy that has left its reference."""
    model = load_model(folder, device="cpu", attn_implementation=attn_implementation).model
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += shift * torch.randn(parameter.shape, generator=generator)
    return model


def plain_log_probs(model: Any, pairs: TokenizedPairs, index: int) -> list[Tensor]:
    """Of the chosen and the rejected answer: one unpacked sequence at a time, from full logits."""
    found = []
    for row in pairs.sequences(index):
        ids, labels = (torch.from_numpy(np.array(part)).long() for part in row)
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        found.append(-F.cross_entropy(logits, labels[1:], reduction="sum", ignore_index=-100))
    return found


def plain_losses(
    model: Any, pairs: TokenizedPairs, reference: np.ndarray, beta: float, which: Any = None
) -> Tensor:
    """(num_pairs,) ``-log sigmoid(beta * ((pi_c - ref_c) - (pi_r - ref_r)))``."""
    losses = []
    for index in range(len(pairs)) if which is None else which:
        chosen, rejected = plain_log_probs(model, pairs, index)
        margin = (chosen - reference[index][0]) - (rejected - reference[index][1])
        losses.append(-torch.log(torch.sigmoid(beta * margin)))
    return torch.stack(losses)
