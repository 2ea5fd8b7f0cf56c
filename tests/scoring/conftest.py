"""Small ports of the published IFD loops: one row at a time, all logits, their truncation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch


class PortedScore(NamedTuple):
    """What the published code computes for one row, mean losses in nats."""

    nll_cond: float
    nll_direct: float

    @property
    def ifd_ppl(self) -> float:
        return float(torch.tensor(self.nll_cond - self.nll_direct, dtype=torch.float64).exp())

    @property
    def ifd_loss(self) -> float:
        return self.nll_cond / self.nll_direct


ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{instruction}\n\n### Response:"
)
ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n### Instruction:\n"
    "{instruction}\n\n### Input:\n{input}\n\n### Response:"
)


def _prompt(preset: str, row: dict[str, str]) -> str:
    question, extra = row["instruction"], row.get("input", "")
    if preset == "cherry":
        template = ALPACA_INPUT if extra else ALPACA
        return template.format(instruction=question, input=extra)
    joined = f"{question}\n{extra}" if extra else question
    return f"Question:\n{joined}\n\nAnswer:\n" if preset == "codeact" else f"{joined}\n"


@torch.no_grad()
def _mean_nll(model: Any, ids: list[int], first: int) -> float:
    tokens = torch.tensor([ids], device=model.device)
    labels = tokens.clone()
    labels[0, :first] = -100
    return float(model(input_ids=tokens, labels=labels).loss.double())


def ported_score(
    model: Any, tokenizer: Any, row: dict[str, str], preset: str, max_length: int
) -> PortedScore:
    prompt, answer = _prompt(preset, row), row["output"]
    prefix, extra = ("### Response:", 4) if preset == "cherry" else ("", 1)
    start = len(tokenizer.encode(prompt, truncation=True, max_length=max_length))
    direct = tokenizer.encode(
        prefix + answer, truncation=True, max_length=max_length - start + extra
    )
    joint = tokenizer.encode(prompt + answer, truncation=True, max_length=max_length)
    return PortedScore(
        _mean_nll(model, joint, start), _mean_nll(model, direct, len(tokenizer.encode(prefix)))
    )


@pytest.fixture(scope="session")
def port() -> Callable[..., PortedScore]:
    return ported_score
