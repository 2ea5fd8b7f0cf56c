"""What packing keeps in memory, and needs at most, each packer in a process of its own.

python benchmarks/memory_cases.py plan.epoch 1000000  # one of them, as JSON
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import output_of_fresh_process, record
from lengths import Lengths, code4k
from rivals import lightbinpack_obfd, missing

from codeact.models import PeakMemory
from codeact.ops import pack_best_fit, pack_windows
from codeact.packing import plan_bins

CAPACITY, WINDOW = 4096, 4096


def plan_and_epoch(seqlens: Lengths) -> tuple[Any, Any]:
    """A plan and its first epoch, both kept."""
    plan = plan_bins(seqlens, CAPACITY, window=WINDOW)
    return plan, plan.epoch(0)


PREPARED: dict[str, Callable[[Lengths], Callable[[], Any]]] = {
    "pack_best_fit": lambda seqlens: lambda: pack_best_fit(seqlens, CAPACITY),
    "pack_windows": lambda seqlens: lambda: pack_windows(seqlens, CAPACITY, window=WINDOW),
    "plan.epoch": lambda seqlens: lambda: plan_and_epoch(seqlens),
    "lightbinpack obfd": lambda seqlens: lightbinpack_obfd(seqlens, CAPACITY),
}


def memory(options: argparse.Namespace) -> None:
    """Bytes a length that packing takes beside the lengths themselves."""
    num_seqs = max(options.sizes) if options.quick else 10_000_000  # small sets measure malloc
    print(f"bytes a length that packing takes, {num_seqs:,} lengths of code4k, fresh processes")
    for name in PREPARED:
        if name.startswith("lightbinpack") and missing("lightbinpack"):
            continue
        taken = json.loads(output_of_fresh_process(__file__, [name, str(num_seqs)]))
        print(f"  {name:<20} kept {taken['kept']:6.1f}   at most {taken['peak']:6.1f}", flush=True)
        record({"script": "bench_packing", "case": "memory", "contender": name,
                "lengths": num_seqs, **taken})  # fmt: skip


def run_alone(name: str, num_seqs: int) -> dict[str, float]:
    """Pack in this process; bytes a length by which the resident set grows."""
    PREPARED[name](code4k(1000))()  # loads what is loaded at first use
    call = PREPARED[name](code4k(num_seqs))
    gc.collect()
    before = resident()
    with PeakMemory() as measured:
        kept = call()
    after = resident()
    del kept
    peak = max(measured.mib * 2**20, after)
    return {"kept": (after - before) / num_seqs, "peak": (peak - before) / num_seqs}


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(json.dumps(run_alone(sys.argv[1], int(sys.argv[2]))))
