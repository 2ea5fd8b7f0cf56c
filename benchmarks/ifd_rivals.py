"""IFD as others compute it: the published loop, padded batches, and wana."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from harness import WorkerTime

from codeact.data import Example
from codeact.models import LoadedModel
from codeact.scoring import ifd_preset

BATCH_SIZE = 8


def encode(loaded: LoadedModel, example: Example) -> tuple[int, list[int], list[int]]:
    """(prompt tokens, conditional ids, direct ids), as the authors' code tokenises."""
    prompt = ifd_preset("codeact").render(example)
    tokenizer = loaded.tokenizer
    return (
        len(tokenizer.encode(prompt)),
        tokenizer.encode(prompt + example.response),
        tokenizer.encode(example.response),
    )


@torch.no_grad()
def loop(loaded: LoadedModel, examples: Sequence[Example]) -> list[float]:
    """One row at a time with ``labels=``: all logits, as in the published code."""
    scores = []
    for example in examples:
        start, joint, direct = encode(loaded, example)
        losses = []
        for ids, first in ((joint, start), (direct, 0)):
            tokens = torch.tensor([ids], device=loaded.model.device)
            labels = tokens.clone()
            labels[0, :first] = -100
            losses.append(loaded.model(input_ids=tokens, labels=labels).loss)
        scores.append(float(torch.exp(losses[0]) / torch.exp(losses[1])))
    return scores


@torch.no_grad()
def padded_means(loaded: LoadedModel, rows: list[tuple[int, list[int]]]) -> list[float]:
    """Mean loss from ``first`` on for each (first, ids), in padded batches of similar length."""
    means = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda row: len(rows[row][1]))
    for begin in range(0, len(order), BATCH_SIZE):
        chosen = order[begin : begin + BATCH_SIZE]
        width = max(len(rows[row][1]) for row in chosen)
        ids = torch.zeros(len(chosen), width, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for line, row in enumerate(chosen):
            first, tokens = rows[row]
            ids[line, : len(tokens)] = torch.tensor(tokens)
            mask[line, : len(tokens)] = 1
            labels[line, first : len(tokens)] = torch.tensor(tokens[first:])
        device = loaded.model.device
        output = loaded.model(ids.to(device), attention_mask=mask.to(device), use_cache=False)
        logits = output.logits[:, :-1]
        targets = labels[:, 1:].to(device)
        nll = F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")
        mean = nll.sum(dim=1) / (targets != -100).sum(dim=1)
        for line, row in enumerate(chosen):
            means[row] = float(mean[line])
    return means


def padded(loaded: LoadedModel, examples: Sequence[Example]) -> list[float]:
    """Both passes in padded batches."""
    encoded = [encode(loaded, example) for example in examples]
    cond = padded_means(loaded, [(start, joint) for start, joint, _ in encoded])
    direct = padded_means(loaded, [(1, ids) for _, _, ids in encoded])
    return np.exp(np.array(cond) - np.array(direct)).tolist()


class Wana:
    """wana's scorer (quantised SmolLM2 on llama.cpp) in a process of the Python that has it.

    It scores with the chat template and a ratio of losses, so its numbers are not compared, only
    its time; its tokens are those of the template more.
    """

    def __init__(self, python: str) -> None:
        script = Path(__file__).with_name("wana_worker.py")
        command = [python, str(script), str(torch.get_num_threads())]
        self._worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, examples: Sequence[Example]) -> WorkerTime:
        """Score all; what it took is the worker's own CPU and wall time."""
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        rows = [[example.instruction, example.response] for example in examples]
        self._worker.stdin.write(json.dumps(rows) + "\n")
        self._worker.stdin.flush()
        answer = self._worker.stdout.readline()
        if not answer:
            raise RuntimeError(f"wana's worker ended with status {self._worker.wait()}")
        return WorkerTime(*json.loads(answer))

    def close(self) -> None:
        """End the worker."""
        assert self._worker.stdin is not None
        self._worker.stdin.close()
        self._worker.wait()


def python_with_wana(given: str | None) -> str | None:
    """The interpreter to run wana with: the one given, this one if it has wana, else none."""
    return given or (sys.executable if find_spec("wana") else None)
