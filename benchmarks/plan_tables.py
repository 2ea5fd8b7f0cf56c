"""Tables about plans rather than time: how full windows pack, how evenly ranks are loaded."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
from harness import record
from lengths import CAPACITY, Lengths, code4k, mix32k
from numpy.typing import NDArray

from codeact.packing import ModelCost, plan_bins

WORLD_SIZE = 8
# Released shapes of Qwen2.5-Coder (config.json of each); every other field as Qwen2Config has it.
QWEN = {
    "0.5B": {
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True,
        "vocab_size": 151936,
    },
    "1.5B": {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True,
        "vocab_size": 151936,
    },
    "7B": {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False,
        "vocab_size": 152064,
    },
}  # fmt: skip


def members(bins: Any) -> Iterator[NDArray[np.integer[Any]]]:
    """The example indices of each bin."""
    return (np.asarray(bins[index]) for index in range(len(bins)))


def length_variance_by_bin(seqlens: Lengths, bins: Any) -> float:
    """Eta squared: the share of the lengths' variance that lies between bins.

    Near 0 the bins are alike; near 1 each holds sequences of one length.
    """
    groups = [seqlens[indices].astype(np.float64) for indices in members(bins)]
    everything = np.concatenate(groups)
    mean = everything.mean()
    between = sum(len(group) * (group.mean() - mean) ** 2 for group in groups)
    total = float(((everything - mean) ** 2).sum())
    return between / total if total else 0.0


def windows(options: argparse.Namespace) -> None:
    """Fill of windowed packing, and how much of a length its bin gives away."""
    num_seqs = 5000 if options.quick else 100_000
    cases = {
        "code4k into 4096": (code4k(num_seqs), 4096),
        "code4k into 32768": (code4k(num_seqs), 32768),
        "mix32k into 32768": (mix32k(num_seqs), 32768),
    }
    print(f"fill of plan_bins by window, {num_seqs:,} lengths; eta² of length by bin")
    for name, (seqlens, capacity) in cases.items():
        bound = -(-int(seqlens.sum(dtype=np.int64)) // capacity)
        ways: dict[str, dict[str, Any]] = {
            f"window {window or 'whole set':>9}": {"window": window}
            for window in (256, 1000, 4096, None)
        }
        ways["order=preserve"] = {"order": "preserve"}  # next fit: sorts nothing, fills less
        for way, arguments in ways.items():
            plan = plan_bins(seqlens, capacity, **arguments)
            variance = length_variance_by_bin(seqlens, plan.epoch(0))
            print(
                f"  {name:<18} {way:<16}  {100 * plan.fill:7.3f} %"
                f"  {plan.num_bins:>7} bins, bound {bound}  eta² {variance:.2f}",
                flush=True,
            )
            record({"script": "bench_packing", "case": f"windows: {name}", "contender": way,
                    "lengths": num_seqs, "fill": plan.fill, "bins": plan.num_bins, "bound": bound,
                    "eta_squared": variance})  # fmt: skip


def cost_models() -> dict[str, ModelCost]:
    """FLOPs models of three sizes of Qwen2.5."""
    from transformers import Qwen2Config

    return {size: ModelCost.from_config(Qwen2Config(**shape)) for size, shape in QWEN.items()}


def bin_sums(values: NDArray[np.float64], bins: Any) -> NDArray[np.float64]:
    """(num_bins,) sum of a value of each example over the examples of a bin."""
    return np.array([values[indices].sum() for indices in members(bins)])


def efficiency(costs: NDArray[np.float64]) -> float:
    """Mean over most loaded rank, over all steps; ranks of a step wait for the slowest."""
    steps = costs[: len(costs) // WORLD_SIZE * WORLD_SIZE].reshape(-1, WORLD_SIZE)
    return float(steps.mean(axis=1).sum() / steps.max(axis=1).sum())


def balance(options: argparse.Namespace) -> None:
    """Synchronisation efficiency of 8 ranks: bins in random order, and balanced by FLOPs."""
    num_seqs = 8000 if options.quick else 100_000
    models = cost_models()
    print(f"{WORLD_SIZE} ranks, {num_seqs:,} lengths: mean over largest rank's FLOPs, every step")
    for name, make in (("code4k", code4k), ("mix32k", mix32k)):
        seqlens, capacity = make(num_seqs), CAPACITY[name]
        shuffled = plan_bins(seqlens, capacity).epoch(0)
        for size, cost in models.items():
            values = np.asarray(cost(seqlens), dtype=np.float64)
            plan = plan_bins(seqlens, capacity, world_size=WORLD_SIZE, cost=cost)
            bins = plan.epoch(0)
            before = efficiency(bin_sums(values, shuffled))
            after = efficiency(bin_sums(values, bins))
            most = int(bin_sums(seqlens.astype(np.float64), bins).max())
            print(
                f"  {name}@{capacity:<6} Qwen2.5 {size:>4}  random {before:.3f}  "
                f"balanced {after:.3f}   largest bin {most} tokens",
                flush=True,
            )
            record({"script": "bench_packing", "case": f"balance: {name}@{capacity}",
                    "model": f"Qwen2.5 {size}", "ranks": WORLD_SIZE, "lengths": num_seqs,
                    "random": before, "balanced": after, "largest_bin": most})  # fmt: skip
