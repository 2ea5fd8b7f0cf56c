"""Attention over packed sequences in forward mode, against the same by PyTorch's own derivatives.

python benchmarks/bench_attention_jvp.py
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from harness import NO_RECORD, Case, measure, record, report
from lengths import lognormal_of_mean
from linear_nll_work import extra_mib
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from codeact.ops import varlen_attention_jvp

# num_tokens, num_heads, num_kv_heads, head_dim
GPU_SHAPES = {"Qwen2.5-0.5B": (8192, 14, 2, 64), "Qwen2.5-7B": (8192, 28, 4, 128)}
CPU_SHAPES = {"SmolLM2-135M": (1024, 9, 3, 64)}
QUICK_SHAPES = {"tiny": (64, 2, 1, 16)}
MEAN_TOKENS, SIGMA = 500, 0.49  # of a sequence, as Evol-Instruct's rows


def bounds_of(num_tokens: int) -> list[int]:
    """Where sequences of usual lengths begin and end in a pack of ``num_tokens``."""
    lengths = lognormal_of_mean(num_tokens, MEAN_TOKENS, SIGMA, num_tokens)
    ends = [int(end) for end in lengths.cumsum() if end < num_tokens]
    return [0, *ends, num_tokens]


def math_jvp(q: Tensor, k: Tensor, v: Tensor, bounds: list[int], tangents: list[Tensor]) -> Tensor:
    """What PyTorch offers: its ``math`` attention under torch.func, one sequence at a time."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = [
            scaled_dot_product_attention(
                *(x[a:b].transpose(0, 1)[None] for x in (q, k, v)), is_causal=True, enable_gqa=True
            )[0].transpose(0, 1)
            for a, b in pairwise(bounds)
        ]
        return torch.cat(parts)

    with sdpa_kernel(SDPBackend.MATH):
        tangent: Tensor = torch.func.jvp(attend, (q, k, v), tuple(tangents))[1]
    return tangent


@torch.no_grad()
def compare(options: argparse.Namespace, name: str, shape: tuple[int, int, int, int]) -> None:
    """Speed and memory of one shape."""
    num_tokens, num_heads, num_kv_heads, head_dim = shape
    generator = torch.Generator(options.device).manual_seed(0)
    q, k, v, *tangents = (
        torch.randn(num_tokens, heads, head_dim, generator=generator, device=options.device).to(
            options.dtype
        )
        for heads in (num_heads, num_kv_heads, num_kv_heads) * 2
    )
    bounds = bounds_of(num_tokens)
    cu_seqlens = torch.tensor(bounds, dtype=torch.int32, device=options.device)
    longest = max(b - a for a, b in pairwise(bounds))
    calls: dict[str, Callable[[], object]] = {
        "varlen_attention_jvp": lambda: varlen_attention_jvp(
            q, k, v, *tangents, cu_seqlens, max_seqlen=longest
        ),
        "math attention, torch.func.jvp": lambda: math_jvp(q, k, v, bounds, tangents),
    }
    ours = varlen_attention_jvp(q, k, v, *tangents, cu_seqlens, max_seqlen=longest).tangent
    wide = [x.double() for x in (q, k, v)]
    truth = math_jvp(*wide, bounds, [x.double() for x in tangents])
    error = float((ours - truth).abs().max() / truth.abs().max())
    case = Case(
        name=f"attention in forward mode, {name}, {shape}, {str(options.dtype)[6:]}",
        contenders=calls,
        amounts={"tokens": num_tokens},
        facts={key: {"extra MiB": round(extra_mib(call), 1)} for key, call in calls.items()},
    )
    measured = measure(case, rounds=options.rounds, at_least=options.at_least)
    print(report(case, measured, "bench_attention_jvp"))
    pairs = sum((b - a) * (b - a + 1) // 2 for a, b in pairwise(bounds))
    flops = 6 * 2 * pairs * num_heads * head_dim  # six products where attention has two
    on_gpu = options.device.type == "cuda"
    for key, taken in measured.items():
        rate = flops / min(taken.wall_seconds if on_gpu else taken.cpu_seconds)
        print(f"  {key}: {rate / 1e9:.0f} GFLOP/s of {flops / 1e9:.2f} GFLOP")
        record(
            {"script": "bench_attention_jvp", "case": case.name, "contender": key, "FLOP/s": rate}
        )
    print(
        f"  largest error of a tangent, relative to the largest tangent: {error:.1e}\n", flush=True
    )


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
    options.dtype = torch.bfloat16 if on_gpu else torch.float32
    options.at_least = 0.0 if options.quick else 0.05
    shapes = GPU_SHAPES if on_gpu else CPU_SHAPES
    if options.quick:
        options.rounds, shapes = 1, QUICK_SHAPES
    for name, shape in shapes.items():
        compare(options, name, shape)


if __name__ == "__main__":
    main()
