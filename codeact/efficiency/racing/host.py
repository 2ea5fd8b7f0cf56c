"""The machine that numbers come from, and the CPUs that measured runs may have for themselves."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import codeact

_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Host:
    """What a number depends on besides the program: times of two hosts are never compared.

    Args:
        cpu_model: As the kernel names it.
        num_cpus: CPUs this process may use.
        kernel: Release of the kernel.
        governor: Frequency governor of the first CPU, ``"unknown"`` where there is none.
        python: Version of the interpreter.
        codeact: Version of this package.
        sandbox: Tier, as in every run: ``"bwrap+cgroup"``, ``"bwrap"`` or ``"external"``.
        bubblewrap: Its version, empty in the external tier.
        tools: Version of the compiler or interpreter of each language measured.
    """

    cpu_model: str
    num_cpus: int
    kernel: str
    governor: str
    python: str
    codeact: str
    sandbox: str = ""
    bubblewrap: str = ""
    tools: Mapping[str, str] = field(default_factory=dict)


def fingerprint(
    *, sandbox: str = "", bubblewrap: str = "", tools: Mapping[str, str] | None = None
) -> Host:
    """This machine."""
    return Host(
        cpu_model=_cpu_model(),
        num_cpus=len(usable_cpus()),
        kernel=platform.release(),
        governor=_read(_CPUS / "cpu0/cpufreq/scaling_governor") or "unknown",
        python=platform.python_version(),
        codeact=codeact.__version__,
        sandbox=sandbox,
        bubblewrap=bubblewrap,
        tools=dict(tools or {}),
    )


def load_average() -> float:
    """Processes ready to run, averaged by the kernel over the last minute."""
    return round(os.getloadavg()[0], 2)


def usable_cpus() -> list[int]:
    """CPUs that this process may run on, by number."""
    return sorted(os.sched_getaffinity(0))


def race_cores(cpus: list[int] | None = None) -> list[int]:
    """CPUs for measured runs: one of each physical core, the first core left to everyone else.

    The sampler, the launcher and this process need a CPU of their own, and two threads of one core
    slow each other down. Where all CPUs belong to one core, or there are only two, the last CPU
    is taken; where there is only one, that.
    """
    cpus = usable_cpus() if cpus is None else cpus
    cores: dict[str, int] = {}
    for cpu in cpus:
        siblings = _read(_CPUS / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu)
        cores.setdefault(siblings, cpu)
    return list(cores.values())[1:] or cpus[-1:]


def _cpu_model() -> str:
    fields: dict[str, str] = {}
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    named = fields.get("model name") or fields.get("CPU part") or fields.get("uarch")  # x86, ARM
    return named or platform.processor() or platform.machine()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
