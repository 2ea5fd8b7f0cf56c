"""Time contenders fairly on a shared machine: interleaved rounds, process CPU time, medians.

A result is one JSON line a contender in ``benchmarks/results/<device>.jsonl``, with the versions
and the machine it was taken on. Wall time is recorded too, but on a busy machine only ratios of
CPU time between contenders of the same rounds mean anything.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch

RESULTS = Path(__file__).resolve().parent / "results"
# Scripts set it for --no-record; a file of results holds no trial runs.
NO_RECORD = "CODEACT_BENCH_NO_RECORD"


@dataclass(frozen=True)
class Case:
    """One piece of work and those who do it.

    Attributes:
        name: what the work is.
        contenders: name to a call that does all of the work; the first is the one ratios refer to.
        amounts: how much work it is, such as ``{"rows": 64, "tokens": 9000}``; reported per second.
        facts: what else is known of a contender's result, such as ``{"ours": {"bins": 15016}}``.
    """

    name: str
    contenders: dict[str, Callable[[], object]]
    amounts: dict[str, int]
    facts: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


class WorkerTime(NamedTuple):
    """What a call returns whose work another process did, and timed."""

    cpu_seconds: float
    wall_seconds: float


@dataclass
class Measurement:
    """What one contender took, a value a round."""

    cpu_seconds: list[float] = field(default_factory=list)
    wall_seconds: list[float] = field(default_factory=list)
    peak_mib: float = 0.0


def measure(
    case: Case,
    *,
    rounds: int = 3,
    at_least: float = 0.0,
    peak_mib: Callable[[str], float] | None = None,
) -> dict[str, Measurement]:
    """Run every contender once per round, in turn, after one round that does not count.

    Args:
        case: who does what.
        rounds: rounds that count.
        at_least: seconds one timing lasts: a shorter call is repeated within it, and the figures
            are per call.
        peak_mib: gives the peak memory of a contender that runs alone: in a shared process an
            allocator keeps what an earlier contender took.
    """
    measured = {name: Measurement() for name in case.contenders}
    repeats = {}
    for name, call in case.contenders.items():
        _, wall = time_call(call)
        if wall < at_least:  # the first call pays for what is loaded and compiled
            _, wall = time_call(call)
        repeats[name] = max(1, round(at_least / max(wall, 1e-9)))
    for _ in range(rounds):
        for name, call in case.contenders.items():
            cpu, wall = time_call(call, repeats[name])
            measured[name].cpu_seconds.append(cpu)
            measured[name].wall_seconds.append(wall)
    if peak_mib is not None:
        for name, taken in measured.items():
            taken.peak_mib = peak_mib(name)
    return measured


def time_call(call: Callable[[], object], repeats: int = 1) -> tuple[float, float]:
    """CPU and wall seconds a call (of a worker, the last one), without Python's garbage collector.

    It would look through the objects of all contenders, such as a million small lists of one, in
    whichever call it happens to run.
    """
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            result = call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if isinstance(result, WorkerTime):
            return result
        return (time.process_time() - cpu) / repeats, (time.perf_counter() - wall) / repeats
    finally:
        if collects:
            gc.enable()


def output_of_fresh_process(script: str, arguments: list[str]) -> str:
    """Run a script in a process of its own and return the last line it prints.

    Raises:
        RuntimeError: it failed; the text is the end of what it wrote to stderr.
    """
    run = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)
    if run.returncode:
        command = " ".join([Path(script).name, *arguments])
        raise RuntimeError(f"{command}: {run.stderr.strip()[-600:]}")
    return run.stdout.strip().splitlines()[-1]


def peak_of_fresh_process(script: str, arguments: list[str]) -> float:
    """Run a script that prints its peak memory in MiB as its last line, and return that."""
    return float(output_of_fresh_process(script, arguments))


def report(case: Case, measured: dict[str, Measurement], script: str) -> str:
    """Append the results to the device's file and return a table for a person."""
    first = next(iter(measured.values()))
    width = max(14, *(len(name) + 1 for name in measured))
    with_peak = any(taken.peak_mib for taken in measured.values())
    work = ", ".join(f"{n} {unit}" for unit, n in case.amounts.items())
    lines = [f"{case.name}  ({work})" if work else case.name]
    peak_title = f"{'peak MiB':>11}" if with_peak else ""
    lines.append(f"  {'':<{width}}{'cpu':>9}{'wall':>9}{peak_title}{'x cpu':>8}  rate per wall s")
    for name, taken in measured.items():
        cpu, wall = statistics.median(taken.cpu_seconds), statistics.median(taken.wall_seconds)
        ratio = statistics.median(
            b / a if a else 1.0 for a, b in zip(first.cpu_seconds, taken.cpu_seconds, strict=True)
        )
        facts = case.facts.get(name, {})
        rates = [f"{short_count(n / wall)} {unit}" for unit, n in case.amounts.items()]
        rates += [f"{key} {value}" for key, value in facts.items()]
        peak = f"{taken.peak_mib:>11.0f}" if with_peak else ""
        lines.append(
            f"  {name:<{width}}{short_time(cpu):>9}{short_time(wall):>9}{peak}{ratio:>8.2f}  "
            + ", ".join(rates)
        )
        record(
            {
                "script": script, "case": case.name, "contender": name, "amounts": case.amounts,
                **asdict(taken), "cpu_ratio_to_first": ratio, **({"facts": facts} if facts else {}),
            }
        )  # fmt: skip
    return "\n".join(lines)


def short_time(seconds: float) -> str:
    """Three digits and a unit: ``0.0041`` is ``4.10 ms``."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size or unit == "us":
            value = seconds / size
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
    raise AssertionError


def short_count(value: float) -> str:
    """Three digits and a power: ``157_000_000`` is ``157 M``."""
    for letter, size in ((" G", 1e9), (" M", 1e6), (" k", 1e4)):
        if value >= size:
            scaled = value / (1e3 if letter == " k" else size)
            return f"{scaled:.{0 if scaled >= 100 else 1 if scaled >= 10 else 2}f}{letter}"
    return f"{value:.1f}"


def record(result: Mapping[str, Any], folder: Path | None = None) -> None:
    """Append one result to the device's file, with where and when it was taken."""
    if os.environ.get(NO_RECORD):
        return
    whole = {**result, **provenance()}
    target = RESULTS if folder is None else folder
    target.mkdir(parents=True, exist_ok=True)
    with (target / f"{device_slug()}.jsonl").open("a") as lines:
        lines.write(json.dumps(whole) + "\n")


def provenance() -> dict[str, Any]:
    """Device, versions and time of a result."""
    packages = ("codeact", "torch", "transformers", "triton", "trl", "lightbinpack", "numba")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": versions,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def device_name() -> str:
    """The GPU's name, or the processor's with its number of usable cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()} x{torch.get_num_threads()}"
    return platform.machine()


def device_slug() -> str:
    """The device's name as part of a file name."""
    return "".join(c if c.isalnum() else "-" for c in device_name()).lower()
