"""What an epoch takes at the papers' shapes: five ways to make batches, all rows and 40 % of them.

    python benchmarks/bench_training.py                          # all cases of this device
    python benchmarks/bench_training.py --model 6.7b --lengths evol

Random weights in the shape of the model; lengths as OSS-Instruct's and Evol-Instruct's pad in
CodeACT (arXiv:2504.12687), 16 examples a batch, at most 2,048 tokens, gradient checkpointing and
AdamW on a GPU. A sample of steps is timed, the ways in turn, and the time of an epoch follows from
it by floating-point operations. Peak memory is that of the epoch's heaviest step. On a CPU the
models are small and lengths a quarter: times say how the ways compare, and nothing of a GPU.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from bench_padding import in_store, make_steps, peaks_apart, peaks_here, warm_up
from harness import NO_RECORD, record
from lengths import lognormal_of_mean
from padding import Layout, Step, representative, totals
from padding_models import SHAPE_NAMES, SHAPES, Source, build_model, random_rows
from padding_result import Steps
from padding_run import Taken, median_of_rounds, runners, time_in_turn

from codeact.cli.allocator import keep_freed_memory
from codeact.packing import ModelCost

BUDGET = 0.4
BASELINE, OURS = "pad to longest", "Dynamic Pack"


@dataclass(frozen=True)
class LengthSet:
    """Examples of a data set, and the lognormal that pads as its lengths do."""

    title: str
    num_examples: int
    mean: float
    sigma: float


SETS = {
    "oss": LengthSet("OSS-Instruct", 75_000, 450, 0.27),
    "evol": LengthSet("Evol-Instruct", 78_000, 500, 0.49),
}
# (shape, lengths): the papers' two models on both sets, and two whose loss weighs more.
GPU_CASES = [
    ("6.7b", "evol"), ("6.7b", "oss"), ("codellama-7b", "evol"), ("1.5b", "evol"), ("0.5b", "evol")
]  # fmt: skip
CPU_CASES = [("6.7b-small", "evol"), ("6.7b-small", "oss"), ("0.5b-small", "evol")]


@dataclass(frozen=True)
class Epoch:
    """What one way takes.

    Attributes:
        seconds: of an epoch over the whole set, by the clock on a GPU, of CPU time elsewhere.
        seconds_part: of an epoch over 40 % of it, drawn at random.
        tokens_per_second: real tokens.
        peak_mib: of the heaviest step of the whole set. A way that does not fit has no Epoch.
    """

    seconds: float
    seconds_part: float
    tokens_per_second: float
    padding: float
    num_steps: int
    peak_mib: float | None


def flops_of(cost: ModelCost, steps: Sequence[Step], seqlens: np.ndarray[Any, Any]) -> float:
    """Forward FLOPs of what steps compute, padding included."""
    total = 0.0
    for step in steps:
        if step.width:
            total += len(step.rows) * float(cost(step.width))
        else:
            total += float(cost(seqlens[np.concatenate(step.rows)]).sum())
    return total


def run_case(shape: str, lengths: LengthSet, options: argparse.Namespace) -> dict[str, Epoch]:
    """Measure every way on one model and one set."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    capacity, mean = options.capacity, lengths.mean
    if device.type == "cpu":
        capacity, mean = capacity // 4, mean / 4
    num_examples = min(lengths.num_examples, options.rows or lengths.num_examples)
    seqlens = lognormal_of_mean(num_examples, mean, lengths.sigma, capacity)
    store = random_rows(seqlens, SHAPES[shape]["vocab_size"])
    layout = Layout.of(seqlens, options.batch_size, capacity)
    names = list(runners(device, same_loss=False))
    chosen = representative(layout, min(options.batches * options.batch_size, num_examples))
    sample = in_store(make_steps(layout.select(chosen), names), chosen)
    whole = make_steps(layout, names)
    part = np.random.default_rng(1).choice(num_examples, int(BUDGET * num_examples), replace=False)
    kept = layout.select(part)
    taken, peaks, cost = measure_ways(shape, store, whole, sample, device, options)
    parts = make_steps(kept, names)
    done = {name: flops_of(cost, sample[name], seqlens) for name in names}
    return {
        name: _epoch(
            times,
            whole[name],
            flops_of(cost, whole[name], seqlens) / done[name],
            flops_of(cost, parts[name], kept.seqlens) / done[name],
            peaks[name],
        )
        for name, times in taken.items()
    }


def measure_ways(
    shape: str,
    store: Any,
    whole: Steps,
    sample: Steps,
    device: torch.device,
    options: argparse.Namespace,
) -> tuple[dict[str, Taken], dict[str, float | None], ModelCost]:
    """Times of the sample, peaks of the heaviest steps in MiB, and the model's cost."""
    source = Source(None, shape, SHAPE_NAMES[shape])
    ways = runners(device, same_loss=False)
    heaviest = max((totals(steps).largest for steps in whole.values()), key=lambda s: s.num_slots)
    in_own_process = device.type == "cpu" and not options.quick
    peaks = peaks_apart(options, source, ways, store, whole) if in_own_process else {}
    model, note = build_model(source, heaviest, device)
    if note:
        print(f"{source.name}: {note}")
    optimizer = None
    if device.type == "cuda":
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    if in_own_process:
        warm_up(model, ways, store, sample)
    else:
        peaks = peaks_here(model, ways, store, whole, optimizer)
    fitting = {name: way for name, way in ways.items() if peaks[name] is not None}
    for name in ways:
        if name not in fitting:
            print(f"{source.name}, {name}: out of memory")
    rounds = [time_in_turn(model, fitting, sample, store, optimizer) for _ in range(options.rounds)]
    return median_of_rounds(rounds), peaks, ModelCost.from_config(model.config)


def _epoch(
    taken: Taken, steps: list[Step], times_whole: float, times_part: float, peak: float | None
) -> Epoch:
    on_gpu = torch.cuda.is_available()
    seconds = sum(taken.wall_seconds if on_gpu else taken.cpu_seconds)
    numbers = totals(steps)
    return Epoch(
        seconds=seconds * times_whole,
        seconds_part=seconds * times_part,
        tokens_per_second=taken.num_tokens / seconds,
        padding=numbers.padding,
        num_steps=numbers.num_steps,
        peak_mib=peak,
    )


def table(title: str, epochs: dict[str, Epoch]) -> str:
    """For a person; savings are against the whole set in batches padded to their longest row."""
    unit = "s" if torch.cuda.is_available() else "cpu s"
    heads = ("padding", "steps", f"all, {unit}", f"40 %, {unit}", "tokens/s", "x", "peak GiB")
    widths = (9, 8, 12, 12, 10, 7, 10)
    line = "".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True))
    lines = [title, f"  {'':<18}{line}"]
    base = epochs.get(BASELINE)
    for name, epoch in epochs.items():
        ratio = epoch.tokens_per_second / base.tokens_per_second if base else float("nan")
        peak = f"{epoch.peak_mib / 1024:.2f}" if epoch.peak_mib else "-"
        lines.append(
            f"  {name:<18}{epoch.padding:>9.1%}{epoch.num_steps:>8,}{epoch.seconds:>12,.0f}"
            f"{epoch.seconds_part:>12,.0f}{epoch.tokens_per_second:>10,.0f}{ratio:>7.2f}{peak:>10}"
        )
    ours = epochs.get(OURS)
    if base and ours and base.peak_mib and ours.peak_mib:
        lines.append(
            f"  40 % in {OURS} against all of it in {BASELINE}: "
            f"{1 - ours.seconds_part / base.seconds:.1%} less time, "
            f"{1 - ours.peak_mib / base.peak_mib:.1%} less peak memory"
        )
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=SHAPES, help="one shape instead of all of this device")
    parser.add_argument("--lengths", choices=SETS, default="evol", help="with --model")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--capacity", type=int, default=2048, help="a quarter of it on a CPU")
    parser.add_argument("--batches", type=int, default=2, help="padded batches of the sample")
    parser.add_argument("--rounds", type=int, default=1, help="times the sample is run")
    parser.add_argument("--rows", type=int, help="examples of an epoch, at most")
    parser.add_argument("--quick", action="store_true", help="a tiny model, few rows")
    parser.add_argument("--no-record", action="store_true", help="leave results/ alone")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    keep_freed_memory()
    options = parse(arguments)
    options.same_loss, options.trl_attention = False, None  # each way as its users run it
    if options.no_record:
        os.environ[NO_RECORD] = "1"
    if options.quick:
        options.rows, options.batch_size, options.capacity = 64, 4, 1024
    cases = GPU_CASES if torch.cuda.is_available() else CPU_CASES
    if options.model or options.quick:
        cases = [(options.model or "tiny", options.lengths)]
    for shape, lengths in cases:
        title = f"{SHAPE_NAMES[shape]}, lengths as {SETS[lengths].title}'s"
        print(f"measuring {title}", file=sys.stderr)
        epochs = run_case(shape, SETS[lengths], options)
        print(table(title, epochs), flush=True)
        for name, epoch in epochs.items():
            record({"script": "bench_training", "case": title, "way": name, **vars(epoch)})


if __name__ == "__main__":
    main()
