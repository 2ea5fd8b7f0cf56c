"""Compile for GPUs that are not there what the launchers of codeact.kernels launch.

Run as a script, without TRITON_INTERPRET: `python ahead_of_time.py 80 90 100`. Each launcher runs
on small CPU tensors under a driver that stands for the GPU; a launch compiles and stops. So the
arguments are specialised exactly as they are on the GPU, descriptors included. Prints one JSON
object a compiled kernel.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from codeact.kernels import schedule

H100_SMS, H100_L2 = 132, 50 * 2**20
NUM_COLUMNS, DIM = 320, 128  # multiples of 16, as the sizes of models are
VOCAB_SIZE = 32768  # from where on a block of softmax_gradient is at its largest


@dataclass(frozen=True)
class AbsentGpu:
    """What JITFunction.run asks a driver before it launches."""

    capability: int

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability  # a cache of kernels for each

    def get_current_stream(self, device: int) -> int:
        return 0


def summary(kernel: Any, log: str) -> dict[str, Any]:
    ptx = kernel.asm["ptx"]
    spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", log)
    registers = re.search(r"Used (\d+) registers", log)
    return {
        "kernel": kernel.metadata.name,
        "spilled_bytes": sum(map(int, spills)) if spills else None,
        "registers": int(registers[1]) if registers else None,
        "shared_bytes": kernel.metadata.shared,
        "serialized": "serializ" in log,  # ptxas: wgmma's that wait for each other
        "wgmma": ptx.count("wgmma.mma_async"),
        "tcgen05": ptx.count("tcgen05.mma"),
        "mma": ptx.count("mma.sync"),
        "tma": ptx.count("cp.async.bulk.tensor"),
        "cp_async": ptx.count("cp.async.cg"),
        "vector_loads": len(re.findall(r"ld\.global[.\w:]*\.v[48]\.b(?:32|16)", ptx)),
    }


@contextlib.contextmanager
def compile_only(capability: int) -> Iterator[list[dict[str, Any]]]:
    """Launches inside compile for ``capability`` and are listed instead of run."""
    found: list[dict[str, Any]] = []
    run = JITFunction.run

    def compile_and_stop(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        log = io.StringIO()
        with contextlib.redirect_stdout(log):
            kernel = run(self, *args, grid=grid, warmup=True, **options)
        if log.getvalue():  # empty where this process has compiled the same before
            found.append(summary(kernel, log.getvalue()))
        return kernel

    gpu = schedule.Device((capability // 10, capability % 10), H100_SMS, H100_L2)
    device_of = schedule.device_of
    JITFunction.run, schedule.device_of = compile_and_stop, lambda index: gpu
    try:
        driver.set_active(AbsentGpu(capability))
        yield found
    finally:
        JITFunction.run, schedule.device_of = run, device_of


def streamed(dtype: torch.dtype, *, odd: bool = False) -> tuple[torch.Tensor, ...]:
    """rows, columns, labels, bias; ``odd`` sizes rule out descriptors and whole blocks of dim."""
    dim, num_columns = (DIM + 3, NUM_COLUMNS + 1) if odd else (DIM, NUM_COLUMNS)
    rows, columns = torch.zeros(256, dim, dtype=dtype), torch.zeros(num_columns, dim, dtype=dtype)
    return rows, columns, torch.zeros(256, dtype=torch.int64), torch.zeros(num_columns)


def launch_row_lse(dtype: torch.dtype, options: bool, *, odd: bool = False) -> None:
    from codeact.kernels.row_lse import row_lse

    rows, columns, labels, bias = streamed(dtype, odd=odd)
    if options:
        row_lse(rows, columns, labels, bias, 0.5, 30.0, 0.7, -100, True)
    else:
        row_lse(rows, columns, labels, None, 1.0, None, 1.0, -100, False)


def launch_row_lse_tangent(dtype: torch.dtype, options: bool) -> None:
    from codeact.kernels.row_lse_tangent import row_lse_tangent

    x, w, labels, bias = streamed(dtype)
    if options:
        row_lse_tangent(x, w, labels, x, w, bias, bias, 0.5, 30.0, 0.7, -100)
    else:
        row_lse_tangent(x, w, labels, x, None, None, None, 1.0, None, 1.0, -100)


def launch_row_max(dtype: torch.dtype) -> None:
    from codeact.kernels.row_max import row_max

    rows, columns, excluded, bias = streamed(dtype)
    row_max(rows, columns, bias, excluded)


def launch_row_reach(dtype: torch.dtype) -> None:
    from codeact.kernels.row_reach import row_reach

    rows, columns, labels, bias = streamed(dtype)
    components = torch.zeros(len(columns), dtype=torch.int32)
    row_reach(rows, columns, torch.zeros(256), bias, bias, labels.int(), components)


def launch_softmax_gradient(dtype: torch.dtype, out_dtype: torch.dtype, options: bool) -> None:
    from codeact.kernels.softmax_gradient import softmax_gradient

    logits, labels = torch.zeros(2, VOCAB_SIZE, dtype=dtype), torch.zeros(2, dtype=torch.int64)
    out = logits.view(out_dtype)[:, :VOCAB_SIZE]
    if options:
        bias, weights = torch.zeros(VOCAB_SIZE), torch.zeros(2)
        softmax_gradient(logits, labels, weights, out, bias, 0.5, 30.0, 0.7, -100)
    else:
        softmax_gradient(logits, labels, None, out, None, 1.0, None, 1.0, -100)


def launch_segment_sums() -> None:
    from codeact.kernels.segment_sums import segment_sums

    segment_sums(torch.zeros(64), torch.tensor([0, 64]))


@dataclass(frozen=True)
class Case:
    """A launch, and the capabilities to compile it for: a second of one core each."""

    launch: Callable[[], None]
    capabilities: tuple[int, ...] = (80, 90, 100)


BF16, F32 = torch.bfloat16, torch.float32
# Options add registers to the same loop. Without them the tile differs on sm_90 alone, where wgmma
# leaves the plain kernel one register to spare. float32 needs no matrix instruction, so its code
# is the same everywhere; sm_80 takes the most registers for it, and is also the only one without
# descriptors.
CASES = {
    "row_lse": Case(lambda: launch_row_lse(BF16, False), (90,)),
    "row_lse all options": Case(lambda: launch_row_lse(BF16, True)),
    "row_lse odd sizes": Case(lambda: launch_row_lse(BF16, True, odd=True), (80,)),
    "row_lse float32": Case(lambda: launch_row_lse(F32, True), (80, 90)),
    "row_lse_tangent": Case(lambda: launch_row_lse_tangent(BF16, False), (90,)),
    "row_lse_tangent all options": Case(lambda: launch_row_lse_tangent(BF16, True)),
    "row_lse_tangent float32": Case(lambda: launch_row_lse_tangent(F32, True), (80,)),
    "row_max": Case(lambda: launch_row_max(BF16)),
    "row_max float32": Case(lambda: launch_row_max(F32), (80,)),
    "row_reach float32": Case(lambda: launch_row_reach(F32), (80, 90)),
    "softmax_gradient all options": Case(lambda: launch_softmax_gradient(F32, BF16, True)),
    "softmax_gradient bfloat16": Case(lambda: launch_softmax_gradient(BF16, BF16, False)),
    "segment_sums": Case(launch_segment_sums),
}


def compile_for(capability: int) -> None:
    for name, case in CASES.items():
        if capability in case.capabilities:
            with compile_only(capability) as found:
                case.launch()
            for kernel in found:
                print(json.dumps({"capability": capability, "case": name, **kernel}), flush=True)


if __name__ == "__main__":
    knobs.nvidia.dump_ptxas_log = True
    knobs.compilation.always_compile = True  # a cached kernel has no log
    # Forked, since torch and Triton take as long to import as two kernels to compile.
    with multiprocessing.get_context("fork").Pool(len(sys.argv) - 1) as pool:
        pool.map(compile_for, map(int, sys.argv[1:]))
