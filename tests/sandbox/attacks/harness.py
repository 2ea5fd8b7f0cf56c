"""Running an attack, and finding what it left: processes, cgroups, files, a sick sandbox."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from codeact.sandbox import Limits, Run, Sandbox
from codeact.sandbox.cgroups import CgroupBases, NoCgroups, find_cgroups
from codeact.sandbox.launcher import LAUNCHER
from codeact.sandbox.programs.languages import Toolchain, find_toolchain, python_command

PROGRAMS = Path(__file__).parent / "programs"
MIB = 2**20
# Small enough that an attack that gets through harms nobody; the tests that probe one limit set it.
LIMITS: dict[str, Any] = {
    "wall_seconds": 5.0,
    "cpu_seconds": 5.0,
    "memory_bytes": 256 * MIB,
    "box_bytes": 16 * MIB,
}


def python_toolchain() -> Toolchain:
    """Where Python is inside."""
    found = find_toolchain("python")
    assert isinstance(found, Toolchain), found
    return found


def attack(
    sandbox: Sandbox,
    name: str,
    *,
    stdin: str = "",
    frames: tuple[bytes, ...] = (),
    sample_seconds: float = 0.0,
    core: int | None = None,
    single_process: bool = False,
    **limits: Any,
) -> Run:
    """Run a program of this folder in Python, with the limits above or others."""
    toolchain = python_toolchain()
    return sandbox.run(
        [*python_command(toolchain), "/box/main.py"],
        files={"main.py": (PROGRAMS / f"{name}.py").read_bytes()},
        mounts=toolchain.mounts,
        stdin=stdin.encode(),
        frames=frames,
        limits=Limits(**{**LIMITS, **limits}),
        sample_seconds=sample_seconds,
        core=core,
        single_process=single_process,
    )


def attack_in_c(sandbox: Sandbox, name: str, folder: Path, **limits: Any) -> Run:
    """Compile a program of this folder, which is ours, outside; run it inside."""
    binary = folder / name
    subprocess.run(
        ["gcc", "-O1", "-static", "-o", str(binary), str(PROGRAMS / f"{name}.c")], check=True
    )
    return sandbox.run(
        ["/bin/sh", "-c", "cp prog run && chmod 700 run && exec ./run"],
        files={"prog": binary.read_bytes()},
        limits=Limits(**{**LIMITS, **limits}),
    )


def _processes() -> Iterator[tuple[int, int, str, str]]:
    """(pid, parent, state, name) of every process of the machine."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            name, _, rest = text.partition("(")[2].rpartition(")")
            state, parent = rest.split()[:2]
            yield int(entry), int(parent), state, name


def descendants(roots: set[int]) -> set[tuple[int, str, str]]:
    """(pid, state, name) of everything below these processes, zombies too."""
    found: set[tuple[int, str, str]] = set()
    known = set(roots)
    everyone = list(_processes())
    grew = True
    while grew:
        grew = False
        for pid, parent, state, name in everyone:
            if parent in known and pid not in known:
                known.add(pid)
                found.add((pid, state, name))
                grew = True
    return found


@cache
def _cgroups() -> CgroupBases | NoCgroups:
    return find_cgroups(LAUNCHER)


def cgroups_of_runs(launchers: list[int]) -> set[str]:
    """Groups of these launchers' runs, named after the launcher (csrc/sandbox/cgroup.h)."""
    cgroups = _cgroups()
    if isinstance(cgroups, NoCgroups):
        return set()
    ours = tuple(f"codeact-{pid}-" for pid in launchers)
    bases = cgroups.folders().values()
    return {name for base in bases for name in os.listdir(base) if name.startswith(ours)}


def temporary_files() -> set[str]:
    """Everything of the library's in the temporary folder."""
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("codeact")}


def clean_run(sandbox: Sandbox) -> Run:
    """A harmless program, run at once after an attack."""
    toolchain = python_toolchain()
    return sandbox.run(
        [*python_command(toolchain), "-c", "open('x', 'w').write('1'); print(sum(range(10)))"],
        mounts=toolchain.mounts,
        limits=Limits(wall_seconds=5, cpu_seconds=5),
    )


@contextmanager
def nothing_left(sandbox: Sandbox) -> Iterator[None]:
    """Around an attack: afterwards nothing of it is there, and a harmless program runs as ever."""
    if not sandbox.launcher_pids():
        clean_run(sandbox)  # so that the launcher and its folder are there
    before = temporary_files()
    yield
    begin = time.monotonic()
    launchers = sandbox.launcher_pids()
    assert launchers
    left = descendants(set(launchers))
    assert not left, f"processes left: {sorted(left)}"
    assert cgroups_of_runs(launchers) == set()
    assert temporary_files() <= before
    run = clean_run(sandbox)
    assert (run.outcome, run.exit_code, run.stdout) == ("exited", 0, b"45\n"), run
    assert time.monotonic() - begin < 3
