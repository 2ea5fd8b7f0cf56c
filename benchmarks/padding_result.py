"""The result of ``bench_padding.py``: figures of each way, in words, as a table and as JSON."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from harness import device_name
from padding import Layout, Step, totals
from padding_models import Source
from padding_run import Taken

Steps = dict[str, list[Step]]


def describe(
    options: argparse.Namespace,
    layout: Layout,
    words: str,
    source: Source,
    note: str,
    model: Any,
    epoch: Steps,
    num_examples: int,
) -> list[str]:
    """Two lines that say what was measured."""
    dtype = str(model.dtype).removeprefix("torch.")
    work = "forward, backward, AdamW" if model.device.type == "cuda" else "forward and backward"
    first = [source.name, *([note] if note else []), dtype, device_name(), work]
    counts = sorted({len(steps) for steps in epoch.values()})
    steps = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    size = f"{layout.batch_size} of them or {layout.budget:,} tokens a step"
    second = f"{num_examples:,} {words}; {size}, {steps} steps an epoch"
    return [", ".join(first), second + ("; same loss for all" if options.same_loss else "")]


def summary(
    name: str, epoch: list[Step], sample: list[Step], seqlens: Any, taken: Taken | None, peak: Any
) -> dict[str, Any]:
    """One way's figures, and its sample as lengths for the drawing."""
    whole, part = totals(epoch), totals(sample)
    drawn = [
        {"rows": [seqlens[row].tolist() for row in step.rows], "width": step.width}
        for step in sample
    ]
    return {
        "name": name,
        "padding": whole.padding,
        "num_steps": whole.num_steps,
        "num_slots": whole.num_slots,
        "heaviest_slots": whole.largest.num_slots,
        "sample_padding": part.padding,
        "tokens_per_second": taken.tokens_per_second if taken else None,
        "wall_seconds": taken.wall_seconds if taken else [],
        "cpu_seconds": taken.cpu_seconds if taken else [],
        "num_tokens": taken.num_tokens if taken else 0,
        "peak_gib": peak / 1024 if peak else None,
        "sample": drawn,
    }


def table(result: dict[str, Any]) -> str:
    """The result for a person; x is speed over the first way's, by CPU time where that is ours."""
    lines = [*result["about"], ""]
    on_gpu = torch.cuda.is_available()
    seconds = "wall_seconds" if on_gpu else "cpu_seconds"
    titles = f"{'padding':>9}{'steps':>8}{'real tokens/s':>15}{'x' if on_gpu else 'x cpu':>7}"
    lines.append(f"  {'':<18}{titles}{'peak GiB':>10}")
    rates = {
        way["name"]: way["num_tokens"] / sum(way[seconds])
        for way in result["ways"]
        if way["num_tokens"]
    }
    first = next(iter(rates.values()), 1.0)
    for way in result["ways"]:
        name, peak = way["name"], way["peak_gib"]
        speed = f"{'out of memory':>15}{'':>7}"
        if name in rates:
            speed = f"{way['tokens_per_second']:>15,.1f}{rates[name] / first:>7.2f}"
        memory = f"{peak:>10.2f}" if peak else f"{'-':>10}"
        lines.append(f"  {name:<18}{way['padding']:>9.1%}{way['num_steps']:>8,}{speed}{memory}")
    return "\n".join(lines)
