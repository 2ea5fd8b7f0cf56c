"""What one run in the sandbox gave and used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal[
    "exited", "signalled", "wall_limit", "cpu_limit", "memory_limit", "output_limit", "failed"
]


@dataclass(frozen=True)
class Run:
    """One finished run. Its times and sizes were read outside the program that was run.

    Attributes:
        outcome: how it ended; ``"failed"`` when the sandbox did not start, with the reason in
            ``stderr``.
        exit_code: with ``"exited"`` only. 0 proves nothing about the program's answers.
        signal: with ``"signalled"`` only.
        stdout: up to the limit.
        stderr: up to the limit.
        frames: whole answer frames, in order.
        broken_frames: bytes after the last whole frame.
        cpu_seconds: user and system time of every process of the run, the sandbox's own set-up not
            counted.
        user_seconds: its user part. Sampled by the kernel's tick: do not rank by it.
        system_seconds: its system part.
        wall_seconds: from the program's start to its end.
        peak_memory_bytes: largest resident memory of one process.
        memory_byte_seconds: resident memory of the main process, integrated over its CPU time
            (trapezoids); 0 when not sampled.
        memory_byte_wall_seconds: the same over wall time, as EffiCoder (arXiv:2410.10209) has it.
        num_samples: readings of memory behind the two integrals.
        sandbox: tier: ``"bwrap+cgroup"``, ``"bwrap"`` or ``"external"``.
    """

    outcome: Outcome
    exit_code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    frames: tuple[bytes, ...]
    broken_frames: bool
    cpu_seconds: float
    user_seconds: float
    system_seconds: float
    wall_seconds: float
    peak_memory_bytes: int
    memory_byte_seconds: float
    memory_byte_wall_seconds: float
    num_samples: int
    sandbox: str
