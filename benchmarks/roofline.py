"""What the machine can do at most, and what a scoring pass must compute at least."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from codeact.packing import ModelCost

_SIZE = {"cpu": 2048, "cuda": 8192}


def product_rate(device: torch.device, dtype: torch.dtype, *, rounds: int = 5) -> float:
    """FLOP/s of a large square matrix product: the rate that everything else is measured by.

    On a CPU a second is one of CPU time, so the rate is that of one core however many threads
    compute; on a GPU it is one of wall time.
    """
    size = _SIZE[device.type]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = a @ b
    best = float("inf")
    for _ in range(rounds):
        if device.type == "cuda":
            torch.cuda.synchronize()
        wall, cpu = time.perf_counter(), time.process_time()
        torch.mm(a, b, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize()
            best = min(best, time.perf_counter() - wall)
        else:
            best = min(best, time.process_time() - cpu)
    return 2.0 * size**3 / best


def scoring_flops(config: Any, seqlens: Sequence[int], num_scored: int) -> float:
    """FLOPs of a forward pass that projects ``num_scored`` positions onto the vocabulary.

    Two a weight and token, attention over causal pairs; norms, activations and softmax are not
    counted, so the share of :func:`product_rate` that a pass reaches is understated.
    """
    text = config.get_text_config()
    unscored = sum(seqlens) - num_scored
    head = 2.0 * text.hidden_size * text.vocab_size
    return float(ModelCost.from_config(config)(seqlens).sum()) - head * unscored
