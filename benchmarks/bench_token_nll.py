"""Losses from logits: a reduction that should run at the speed of memory.

python benchmarks/bench_token_nll.py
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from harness import NO_RECORD, Case, measure, record, report
from torch import Tensor

from codeact.ops import token_nll

# (num_tokens, vocab_size)
GPU_SHAPE, CPU_SHAPE, QUICK_SHAPE = (8192, 151936), (512, 49152), (16, 1000)


def gathered(logits: Tensor, targets: Tensor) -> Tensor:
    """What reinforcement-learning code does with bfloat16 logits: log_softmax, then gather."""
    return -logits.log_softmax(dim=-1).gather(1, targets[:, None])[:, 0]


def in_float32(logits: Tensor, targets: Tensor) -> Tensor:
    """What the Trainer does: all logits cast to float32, then cross-entropy."""
    return F.cross_entropy(logits.float(), targets, reduction="none")


def ours(device: torch.device) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Contender to call."""
    backends = ("triton", "cuda") if device.type == "cuda" else ("cpu",)
    return {
        f"token_nll {name}": lambda logits, targets, b=name: token_nll(logits, targets, backend=b)
        for name in backends
    }


@torch.no_grad()
def compare(options: argparse.Namespace, shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Speed, bytes a second and error of one shape."""
    generator = torch.Generator(options.device).manual_seed(0)
    made = {"generator": generator, "device": options.device}
    logits = (3 * torch.randn(shape, **made)).to(dtype)
    targets = torch.randint(0, shape[1], shape[:1], **made)
    ways = {**ours(options.device), "float32 cross_entropy": in_float32, "log_softmax": gathered}
    truth = torch.cat(
        [
            F.cross_entropy(rows.double(), wanted, reduction="none")
            for rows, wanted in zip(logits.split(64), targets.split(64), strict=True)
        ]
    )
    case = Case(
        name=f"token_nll {shape}, {str(dtype).removeprefix('torch.')}",
        contenders={name: lambda f=call: f(logits, targets) for name, call in ways.items()},
        amounts={"tokens": shape[0]},
        facts={
            name: {"max error": f"{(call(logits, targets) - truth).abs().max():.0e}"}
            for name, call in ways.items()
        },
    )
    measured = measure(case, rounds=options.rounds, at_least=options.at_least)
    print(report(case, measured, "bench_token_nll"))
    num_bytes = logits.numel() * logits.element_size()
    rates = {}
    for name, taken in measured.items():
        on_gpu = options.device.type == "cuda"
        seconds = min(taken.wall_seconds if on_gpu else taken.cpu_seconds)
        rates[name] = f"{num_bytes / seconds / 1e9:.2f} GB/s"
        print(f"  {name}: {rates[name]} of logits read once")
    record({"script": "bench_token_nll", "case": case.name, "bytes": num_bytes, "rates": rates})
    print(flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tiny shape, one round")
    parser.add_argument("--no-record", action="store_true", help="leave benchmarks/results alone")
    options = parser.parse_args(arguments)
    if options.no_record:
        os.environ[NO_RECORD] = "1"
    on_gpu = torch.cuda.is_available()
    options.device = torch.device("cuda" if on_gpu else "cpu")
    options.at_least = 0.0 if options.quick else 0.05
    if options.quick:
        options.rounds = 1
    shape = QUICK_SHAPE if options.quick else GPU_SHAPE if on_gpu else CPU_SHAPE
    for dtype in (torch.bfloat16, torch.float32):
        compare(options, shape, dtype)


if __name__ == "__main__":
    main()
