"""Dynamic Pack against other packers: speed, fill, memory, balance, batches and masks.

    python benchmarks/bench_packing.py                 # everything, a few minutes
    python benchmarks/bench_packing.py --only packers balance
    python benchmarks/bench_packing.py --quick --no-record

Rivals that are not installed are skipped with a line: ``pip install '.[bench,train]'``.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from batch_cases import collation, gather, masks
from harness import NO_RECORD, Case, measure, report
from lengths import CAPACITY, Lengths, code4k, mix32k, real_lengths, resample
from memory_cases import memory
from plan_tables import balance, windows
from rivals import (
    GROUP_SIZE,
    SEQS_PER_BIN,
    compiled_first_fit,
    lightbinpack_obfd,
    missing,
    trl_loop,
    trl_windows,
)

from codeact.errors import InputError
from codeact.ops import pack_best_fit, pack_windows
from codeact.packing import plan_bins

WINDOW = 4096
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
SLOWEST = 4.0  # seconds a call may take before a contender is left out of larger sizes

Packer = Callable[[], Any]


def ours(seqlens: Lengths, capacity: int) -> dict[str, Packer]:
    """Our packers on these lengths; the plan packs another epoch at every call."""
    epochs = itertools.count()
    plan = plan_bins(seqlens, capacity, window=WINDOW)
    return {
        "pack_best_fit": lambda: pack_best_fit(seqlens, capacity),
        "pack_windows": lambda: pack_windows(seqlens, capacity, window=WINDOW),
        "plan.epoch": lambda: plan.epoch(next(epochs)),
    }


def others() -> dict[str, Callable[[Lengths, int], Packer]]:
    """The packers of other projects that are installed, each waiting for lengths."""
    packers: dict[str, Callable[[Lengths, int], Packer]] = {}
    if not missing("lightbinpack"):
        packers["lightbinpack obfd"] = lightbinpack_obfd
    if not missing("numba"):
        fit = compiled_first_fit()
        packers["first fit (numba)"] = lambda lengths, capacity: (
            lambda: fit(lengths, capacity, GROUP_SIZE, SEQS_PER_BIN)
        )
    if not missing("trl"):
        packers["TRL bfd, loop"] = trl_loop
        packers["TRL bfd, shipped"] = trl_windows
    for package in missing("lightbinpack", "numba", "trl"):
        print(f"{package} is not installed: its packer is skipped")
    return packers


def count_bins(result: Any) -> int:
    """Bins of any packer's answer."""
    if isinstance(result, tuple):  # order, offsets
        return len(result[1]) - 1
    if isinstance(result, np.ndarray):  # the bin of each sequence
        return int(result.max()) + 1
    if result and hasattr(result[0], "num_rows"):  # tables of rows
        return sum(table.num_rows for table in result)
    return len(result)


def facts_of(seqlens: Lengths, capacity: int, call: Packer) -> dict[str, object]:
    """Bins, and the share of their slots that hold a token."""
    num_bins = count_bins(call())
    return {
        "bins": num_bins,
        "fill": f"{100 * seqlens.sum(dtype=np.int64) / num_bins / capacity:.3f} %",
    }


def length_sets(options: argparse.Namespace) -> dict[str, Callable[[int], Lengths]]:
    """Name to a function of the size; real rows where there are any and a tokenizer."""
    sets: dict[str, Callable[[int], Lengths]] = {"code4k": code4k, "mix32k": mix32k}
    try:
        rows = real_lengths(options.model, max_rows=1000 if options.quick else None)
    except InputError as error:
        print(f"real lengths skipped: {error}")
    else:
        print(f"real lengths: {len(rows)} rows, mean {rows.mean():.0f} tokens, cut to 4096")
        sets["real"] = lambda num_seqs: resample(rows, num_seqs)
    return sets


def packers(options: argparse.Namespace) -> None:
    """Speed and fill of every packer on every set and size."""
    rivals = others()
    for name, make in length_sets(options).items():
        slow: dict[str, float] = {}
        for num_seqs in options.sizes:
            seqlens, capacity = make(num_seqs), CAPACITY[name]
            calls = ours(seqlens, capacity)
            for rival, prepare in rivals.items():
                if (expected := slow.get(rival, 0.0) * num_seqs) > options.slowest:
                    print(f"{rival} would take {expected:.0f} s on {num_seqs:,} lengths: left out")
                    continue
                calls[rival] = prepare(seqlens, capacity)
            case = Case(
                name=f"pack {name} into {capacity}",
                contenders=calls,
                amounts={"lengths": num_seqs},
                facts={key: facts_of(seqlens, capacity, call) for key, call in calls.items()},
            )
            measured = measure(case, rounds=options.rounds, at_least=options.at_least)
            slow |= {key: min(taken.wall_seconds) / num_seqs for key, taken in measured.items()}
            print(report(case, measured, "bench_packing"), flush=True)


SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "packers": packers,
    "windows": windows,
    "memory": memory,
    "balance": balance,
    "collation": collation,
    "masks": masks,
    "gather": gather,
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="sections; all by default")
    parser.add_argument("--sizes", nargs="+", type=int, help="numbers of lengths to pack")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slowest", type=float, default=SLOWEST, help="seconds a call may take")
    parser.add_argument("--model", help="whose tokenizer reads real rows; SmolLM2 by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--no-record", action="store_true", help="leave benchmarks/results alone")
    options = parser.parse_args(arguments)
    options.at_least = 0.002 if options.quick else 0.05
    if options.quick:
        options.rounds = 1
    if options.sizes is None:
        # On a GPU's machine all benchmarks together have 200 seconds.
        large = not options.quick and not torch.cuda.is_available()
        options.sizes = [2000] if options.quick else SIZES if large else SIZES[:3]
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.no_record:
        os.environ[NO_RECORD] = "1"
    for name in options.only or SECTIONS:
        SECTIONS[name](options)
        print(flush=True)


if __name__ == "__main__":
    main()
