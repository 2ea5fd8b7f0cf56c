"""Ports of the published scoring rules in our own words: one row at a time, all logits.

Each is the arithmetic of one repository, with its text around the pair, its truncation and its
place of the answer; what they turn into a score of 0 is left to raise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{instruction}\n\n### Response:"
)
ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n### Instruction:\n"
    "{instruction}\n\n### Input:\n{input}\n\n### Response:"
)


class PortedScore(NamedTuple):
    """What the published code computes for one row, mean losses in nats."""

    nll_cond: float
    nll_direct: float

    @property
    def ifd_ppl(self) -> float:
        return math.exp(self.nll_cond) / math.exp(self.nll_direct)

    @property
    def ifd_loss(self) -> float:
        return self.nll_cond / self.nll_direct


def ported_score(
    model: Any, tokenizer: Any, row: dict[str, str], preset: str, max_length: int
) -> PortedScore:
    return PORTS[preset](model, tokenizer, row, max_length)


def codeact(model: Any, tokenizer: Any, row: dict[str, str], max_length: int) -> PortedScore:
    """Kyle-Lyu/CodeACT, CDAS/calculate_ifd.py."""
    prompt = f"Question:\n{_joined(row)}\n\nAnswer:\n"
    end = len(_cut(tokenizer, prompt, max_length))
    direct = _cut(tokenizer, row["output"], max_length - end + 1)
    whole = _cut(tokenizer, prompt + row["output"], max_length)
    return PortedScore(_mean_loss(model, whole, end), _mean_loss(model, direct, 0))


def superfiltering(model: Any, tokenizer: Any, row: dict[str, str], max_length: int) -> PortedScore:
    """tianyi-lab/Superfiltering, code_ifd/data_analysis.py."""
    prompt = _joined(row) + "\n"
    text, answer = prompt + row["output"], row["output"]
    prompt_length = len(_cut(tokenizer, prompt, max_length))
    direct = _cut(tokenizer, answer, max_length - prompt_length + 1)
    first = len(tokenizer.encode(text[: text.rfind(answer)]))
    whole = _cut(tokenizer, text, max_length)
    return PortedScore(_mean_loss(model, whole, first), _mean_loss(model, direct, 0))


def cherry(model: Any, tokenizer: Any, row: dict[str, str], max_length: int) -> PortedScore:
    """tianyi-lab/Cherry_LLM, cherry_seletion/data_analysis.py and data_by_IFD.py."""
    template = ALPACA_INPUT if row.get("input") else ALPACA
    prompt = template.format(instruction=row["instruction"], input=row.get("input"))
    prompt_length = len(_cut(tokenizer, prompt, max_length))
    answer = row["output"]

    def mean(text: str, limit: int) -> float:
        ids = _cut(tokenizer, text, limit)
        first = len(tokenizer.encode(text[: text.rfind(answer)]))
        return float(np.mean(_token_losses(model, ids)[first - 1 : len(ids) - 1].numpy()))

    direct = mean("### Response:" + answer, max_length - prompt_length + 4)
    return PortedScore(mean(prompt + answer, max_length), direct)


PORTS = {"codeact": codeact, "superfiltering": superfiltering, "cherry": cherry}


class NoisyRow(NamedTuple):
    """What T-SHIRT keeps of one row: per copy its IFD, and per copy and token the difference."""

    ifds: list[float]
    deltas: list[list[float]]


def tshirt_row(
    model: Any,
    tokenizer: Any,
    row: dict[str, str],
    max_length: int,
    noise: Sequence[Tensor],
    alpha: float,
) -> NoisyRow:
    """Dynamite321/T-SHIRT, token_loss.py, of the copies with these (L, C) numbers in [-1, 1).

    Its flag for a BOS is read off the tokenizer's work here; with one and with noise it stops.
    """
    prompt = _joined(row) + "\n"
    prompt_length = len(tokenizer(prompt)["input_ids"])
    has_bos = bool(tokenizer("")["input_ids"])
    whole = _cut(tokenizer, prompt + row["output"], max_length)
    direct = _cut(tokenizer, row["output"], max_length - prompt_length + has_bos)
    embed = model.get_input_embeddings()
    result = NoisyRow([], [])
    for numbers in noise:
        scaled = numbers * (alpha / math.sqrt(len(whole) * embed.embedding_dim))
        beside = scaled[prompt_length:] if alpha else torch.zeros(1)
        cond = _token_losses(model, whole, scaled)[prompt_length - 1 :]
        alone = _token_losses(model, direct, beside)
        result.ifds.append(float(cond.mean().exp() / alone.mean().exp()))
        result.deltas.append((cond[0 if has_bos else 1 :] - alone).tolist())
    return result


def tshirt_stats(rows: Sequence[NoisyRow], ratio: float) -> list[tuple[float, float, float, float]]:
    """compute_stat.py: mean and deviation of IFD, mean and deviation of S-IFD."""
    everything = [abs(x) for row in rows for copy in row.deltas for x in copy]
    threshold = np.percentile(everything, (1 - ratio) * 100)
    stats = []
    for row in rows:
        selective = []
        for copy in row.deltas:
            kept = [x for x in copy if abs(x) > threshold]
            selective.append(math.exp(sum(kept) / max(len(kept), 1)))
        stats.append((np.mean(row.ifds), np.std(row.ifds), np.mean(selective), np.std(selective)))
    return [tuple(map(float, row)) for row in stats]


def _joined(row: dict[str, str]) -> str:
    return f"{row['instruction']}\n{row['input']}" if row.get("input") else row["instruction"]


def _cut(tokenizer: Any, text: str, max_length: int) -> list[int]:
    ids: list[int] = tokenizer.encode(text, truncation=True, max_length=max_length)
    return ids


@torch.no_grad()
def _mean_loss(model: Any, ids: list[int], first: int) -> float:
    tokens = torch.tensor([ids], device=model.device)
    labels = tokens.clone()
    labels[0, :first] = -100
    return float(model(input_ids=tokens, labels=labels).loss.double())


@torch.no_grad()
def _token_losses(model: Any, ids: list[int], noise: Tensor | None = None) -> Tensor:
    """(len(ids) - 1,) losses of the tokens but the first."""
    tokens = torch.tensor(ids, device=model.device)
    inputs = model.get_input_embeddings()(tokens)
    if noise is not None:
        inputs = inputs + noise
    logits = model(inputs_embeds=inputs[None], use_cache=False).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits.float(), tokens[1:], reduction="none")
