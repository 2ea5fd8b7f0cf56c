"""Per-token loss from hidden states, at real shapes: speed against the bare product, error, memory.

    python benchmarks/bench_linear_nll.py
    python benchmarks/bench_linear_nll.py --only accuracy --rounds 5

The first contender of each table is the bare matrix product, the floor of the others.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial

import torch
from harness import NO_RECORD, Case, Measurement, measure, record, report
from linear_nll_rivals import all_logits, rivals
from linear_nll_work import (
    Loss,
    Shape,
    backward,
    bare_product,
    extra_mib,
    in_float64,
    make_inputs,
    three_products,
)

from codeact.ops import linear_nll, linear_nll_loss
from codeact.ops._backend import Backend

LLAMA, QWEN, SMOLLM = "Llama-3-8B head", "Qwen2.5-0.5B head", "SmolLM2-135M head"
GPU_SHAPES: dict[str, Shape] = {LLAMA: (16384, 4096, 128256), QWEN: (16384, 896, 151936)}
GPU_TRAINING: dict[str, Shape] = {LLAMA: (8192, 4096, 128256)}
CPU_SHAPES: dict[str, Shape] = {SMOLLM: (512, 576, 49152), QWEN: (128, 896, 151936)}
CPU_TRAINING: dict[str, Shape] = {SMOLLM: (512, 576, 49152)}
QUICK: dict[str, Shape] = {"tiny head": (48, 32, 1000)}

NO_TANGENT = "linear_nll, no tangent"  # half of the work of the other contenders beside it
Calls = dict[str, Callable[[], object]]


@torch.no_grad()
def forward(options: argparse.Namespace, name: str, shape: Shape) -> None:
    """Losses without a gradient."""
    inputs = make_inputs(shape, options.dtype, options.device)
    calls: Calls = {"product": partial(bare_product, *inputs)}
    for contender, backend in our_backends(options).items():
        calls[contender] = partial(linear_nll, *inputs, backend=backend)
    for rival in rivals(options.device):
        calls[rival.name] = partial(rival.nll or rival.loss, *inputs)
    timed(options, f"forward, {name}", shape, calls, num_products=1)


def training(options: argparse.Namespace, name: str, shape: Shape) -> None:
    """Loss and both gradients; the floor is the three products."""
    inputs = make_inputs(shape, options.dtype, options.device)
    logits = torch.empty(shape[0], shape[2], dtype=options.dtype, device=options.device)
    calls: Calls = {
        "three products": partial(three_products, *inputs, logits),
        "linear_nll_loss": partial(backward, linear_nll_loss, *inputs),
        "linear_nll deferred": partial(backward, lambda *given: linear_nll(*given).sum(), *inputs),
    }
    for rival in rivals(options.device):
        calls[rival.name] = partial(backward, rival.loss, *inputs)
    timed(options, f"training, {name}", shape, calls, num_products=3)


@torch.no_grad()
def tangent(options: argparse.Namespace, name: str, shape: Shape) -> None:
    """Loss and its derivative along a direction of the states; the floor is two products."""
    x, w, t = make_inputs(shape, options.dtype, options.device)
    direction = torch.randn_like(x)

    def along(loss: Loss) -> object:
        return torch.func.jvp(lambda states: loss(states, w, t), (x,), (direction,))

    calls: Calls = {
        "two products": lambda: (bare_product(x, w, t), bare_product(direction, w, t)),
        NO_TANGENT: lambda: linear_nll(x, w, t),
        "linear_nll forward mode": lambda: along(linear_nll),
        "all logits": lambda: along(all_logits),
    }
    timed(options, f"forward mode, {name}", shape, calls, num_products=2)


@torch.no_grad()
def accuracy(options: argparse.Namespace, name: str, shape: Shape) -> None:
    """Error of a token's loss against float64 of the same inputs."""
    small = (min(shape[0], 256), *shape[1:])
    for dtype in (torch.bfloat16, torch.float32):
        inputs = make_inputs(small, dtype, options.device)
        truth = in_float64(*inputs)
        case = f"error in nats, {name}, {small}, {dtype}"
        print(f"{case}; mean loss {truth.mean():.2f}")
        ways: dict[str, Loss] = {
            contender: partial(linear_nll, backend=backend)
            for contender, backend in our_backends(options).items()
        }
        ways |= {rival.name: rival.nll for rival in rivals(options.device) if rival.nll}
        for contender, compute in ways.items():
            error = (compute(*inputs).double() - truth).abs()
            facts = {"max": float(error.max()), "mean": float(error.mean())}
            print(f"  {contender:<32} max {facts['max']:.1e}  mean {facts['mean']:.1e}")
            record({"script": "bench_linear_nll", "case": case, "contender": contender, **facts})
        print(flush=True)


def our_backends(options: argparse.Namespace) -> dict[str, Backend]:
    """Contender to backend."""
    if options.device.type == "cuda":
        return {"linear_nll triton": "triton"}
    return {"linear_nll cpu": "cpu"}


def timed(
    options: argparse.Namespace, name: str, shape: Shape, calls: Calls, num_products: int
) -> None:
    """Time the contenders and print a table, then what it says of the hardware."""
    facts = {}
    for contender in list(calls):
        try:
            calls[contender]()
            facts[contender] = {"extra MiB": round(extra_mib(calls[contender]), 1)}
        except torch.OutOfMemoryError:
            print(f"{contender} does not fit: left out")
            del calls[contender]
    title = f"{name}, {shape}, {str(options.dtype).removeprefix('torch.')}"
    case = Case(name=title, contenders=calls, amounts={"tokens": shape[0]}, facts=facts)
    measured = measure(case, rounds=options.rounds, at_least=options.at_least)
    print(report(case, measured, "bench_linear_nll"))
    flops = 2 * num_products * shape[0] * shape[1] * shape[2]
    whole = {contender: taken for contender, taken in measured.items() if contender != NO_TANGENT}
    rates = rates_of(whole, flops, options.device.type == "cuda")
    for contender, rate in rates.items():
        print(f"  {contender}: {rate}")
    record({"script": "bench_linear_nll", "case": title, "flops": flops, "rates": rates})
    print(flush=True)


def rates_of(measured: dict[str, Measurement], flops: int, on_gpu: bool) -> dict[str, str]:
    """Counted FLOPs over time, and as a share of the floor's, for each contender."""
    seconds = {
        name: min(taken.wall_seconds if on_gpu else taken.cpu_seconds)
        for name, taken in measured.items()
    }
    floor = next(iter(seconds.values()))
    unit, size = ("TFLOP/s", 1e12) if on_gpu else ("GFLOP/s a core", 1e9)
    return {
        name: f"{flops / taken / size:.1f} {unit}, {100 * floor / taken:.0f} % of the floor's"
        for name, taken in seconds.items()
    }


SECTIONS: dict[str, Callable[[argparse.Namespace, str, Shape], None]] = {
    "forward": forward,
    "training": training,
    "tangent": tangent,
    "accuracy": accuracy,
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="sections; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tiny shape, one round")
    parser.add_argument("--no-record", action="store_true", help="leave benchmarks/results alone")
    options = parser.parse_args(arguments)
    on_gpu = torch.cuda.is_available()
    options.device = torch.device("cuda" if on_gpu else "cpu")
    # Processors without matrix units emulate bfloat16 products: there float32 is what people run.
    options.dtype = torch.bfloat16 if on_gpu else torch.float32
    options.shapes = GPU_SHAPES if on_gpu else CPU_SHAPES
    options.training_shapes = GPU_TRAINING if on_gpu else CPU_TRAINING
    options.at_least = 0.05
    if options.quick:
        options.shapes = options.training_shapes = QUICK
        options.rounds, options.at_least = 1, 0.0
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.no_record:
        os.environ[NO_RECORD] = "1"
    for section in options.only or SECTIONS:
        shapes = options.training_shapes if section == "training" else options.shapes
        for name, shape in shapes.items():
            SECTIONS[section](options, name, shape)


if __name__ == "__main__":
    main()
