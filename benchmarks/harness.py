"""Time contenders fairly on a shared machine: interleaved rounds, process CPU time, medians.

A result is one JSON line a contender in ``benchmarks/results/<device>.jsonl``, with the versions
and the machine it was taken on. Wall time is recorded too, but on a busy machine only ratios of
CPU time between contenders of the same rounds mean anything.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Case:
    """One piece of work and those who do it.

    Attributes:
        name: what the work is.
        contenders: name to a call that does all of the work; the first is the one ratios refer to.
        amounts: how much work it is, such as ``{"rows": 64, "tokens": 9000}``; reported per second.
    """

    name: str
    contenders: dict[str, Callable[[], object]]
    amounts: dict[str, int]


@dataclass
class Measurement:
    """What one contender took, a value a round."""

    cpu_seconds: list[float] = field(default_factory=list)
    wall_seconds: list[float] = field(default_factory=list)
    peak_mib: float = 0.0


def measure(
    case: Case, *, rounds: int = 3, peak_mib: Callable[[str], float] | None = None
) -> dict[str, Measurement]:
    """Run every contender once per round, in turn, after one round that does not count.

    ``peak_mib`` gives the peak memory of a contender that runs alone: in a shared process an
    allocator keeps what an earlier contender took.
    """
    measured = {name: Measurement() for name in case.contenders}
    for round_index in range(rounds + 1):
        for name, call in case.contenders.items():
            cpu, wall = _measure_once(call)
            if round_index:
                measured[name].cpu_seconds.append(cpu)
                measured[name].wall_seconds.append(wall)
    if peak_mib is not None:
        for name, taken in measured.items():
            taken.peak_mib = peak_mib(name)
    return measured


def _measure_once(call: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.process_time() - cpu, time.perf_counter() - wall


def peak_of_fresh_process(script: str, arguments: list[str]) -> float:
    """Run a script that prints its peak memory in MiB as its last line, and return that."""
    run = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, check=True
    )
    return float(run.stdout.strip().splitlines()[-1])


def report(case: Case, measured: dict[str, Measurement], script: str) -> str:
    """Append the results to the device's file and return a table for a person."""
    first = next(iter(measured.values()))
    lines = [f"{case.name}  ({', '.join(f'{n} {unit}' for unit, n in case.amounts.items())})"]
    lines.append(
        f"  {'':<14}{'cpu s':>9}{'wall s':>9}{'peak MiB':>11}{'x cpu':>8}  rate per wall s"
    )
    for name, taken in measured.items():
        cpu, wall = statistics.median(taken.cpu_seconds), statistics.median(taken.wall_seconds)
        ratios = [b / a for a, b in zip(first.cpu_seconds, taken.cpu_seconds, strict=True)]
        rates = ", ".join(f"{n / wall:.1f} {unit}" for unit, n in case.amounts.items())
        ratio = statistics.median(ratios)
        lines.append(
            f"  {name:<14}{cpu:>9.2f}{wall:>9.2f}{taken.peak_mib:>11.0f}{ratio:>8.2f}  {rates}"
        )
        _append(
            {
                "script": script, "case": case.name, "contender": name, "amounts": case.amounts,
                **asdict(taken), "cpu_ratio_to_first": ratio, **provenance(),
            }
        )  # fmt: skip
    return "\n".join(lines)


def provenance() -> dict[str, Any]:
    """Device, versions and time of a result."""
    packages = ("codeact", "torch", "transformers", "triton")
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


def _append(result: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    name = "".join(c if c.isalnum() else "-" for c in result["device"]).lower()
    with (RESULTS / f"{name}.jsonl").open("a") as lines:
        lines.write(json.dumps(result) + "\n")
