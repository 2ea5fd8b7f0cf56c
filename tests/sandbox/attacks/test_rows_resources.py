"""Rows 1-14, 23 and 24: programs that take more than they may, or never end."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from attacks.harness import MIB, attack, attack_in_c, nothing_left

from codeact.sandbox import Sandbox


def test_row_01_fork_bomb(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_01_fork_bomb", wall_seconds=0.7, processes=24)
    assert run.outcome == "wall_limit"
    assert 12 <= len(run.stdout) <= 24


def test_row_02_spinning_threads(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_02_spinning_threads", cpu_seconds=0.4, processes=24)
    assert run.outcome == "cpu_limit"
    assert 0.4 <= run.cpu_seconds < 1
    assert 12 <= len(run.stdout) < 24


def test_row_02_spinning_processes(arena: Sandbox) -> None:
    """The CPU limit is one of the whole sandbox: four processes have it together."""
    with nothing_left(arena):
        run = attack(arena, "row_02_spinning_processes", cpu_seconds=0.4)
    assert run.outcome == "cpu_limit"
    assert 0.4 <= run.cpu_seconds < 0.8


def test_row_02_short_children(arena: Sandbox) -> None:
    """So is it of children that have ended: none of them comes near a limit by itself."""
    with nothing_left(arena):
        run = attack(arena, "row_02_short_children", cpu_seconds=0.4, wall_seconds=3)
    assert run.outcome == "cpu_limit"
    assert 0.4 <= run.cpu_seconds < 0.8


def test_row_03_huge_file(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_03_huge_file", file_bytes=4 * MIB)
    limit = [errno.EFBIG, 4 * MIB]
    assert json.loads(run.stdout) == {"/box": limit, "/tmp": limit}


def test_row_04_many_files(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_04_many_files", box_bytes=8 * MIB)
    report = json.loads(run.stdout)
    assert report["/box"][0] == report["/tmp"][0] == errno.ENOSPC
    assert 6 * MIB <= report["/box"][1] <= 8 * MIB
    assert report["/tmp"][1] <= 16 * MIB


def test_row_05_inode_bomb(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_05_inode_bomb", memory_bytes=32 * MIB, wall_seconds=4)
    assert run.outcome in ("memory_limit", "wall_limit") or b"errno 28" in run.stderr
    assert len(run.stdout) * 1000 < 300_000


def test_row_06_sparse_file(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_06_sparse_file")
    assert json.loads(run.stdout) == {"errors": [errno.EFBIG] * 3, "size": 0}


@pytest.mark.parametrize("address_space", [None, 120 * MIB], ids=["resident", "address space"])
def test_row_07_eat_memory(arena: Sandbox, address_space: int | None) -> None:
    with nothing_left(arena):
        run = attack(
            arena,
            "row_07_eat_memory",
            memory_bytes=128 * MIB,
            address_space_bytes=address_space,
        )
    if address_space:
        assert (run.outcome, run.exit_code) == ("exited", 7)
        assert run.stdout.endswith(b"MemoryError\n")
    else:
        assert run.outcome == "memory_limit"
    assert run.peak_memory_bytes < 170 * MIB
    assert 8 <= run.stdout.count(b"x") <= 20


def test_row_07_eat_memory_in_children(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_07_eat_memory_in_children", memory_bytes=160 * MIB, wall_seconds=1)
    assert run.outcome == "memory_limit"
    assert len(run.stdout) < 10


@pytest.mark.parametrize("program", ["row_08_memfd", "row_08_shared_memory"])
def test_row_08_memory_outside_the_heap(arena: Sandbox, program: str) -> None:
    """384 or 512 MiB are asked for, 96 MiB are allowed: refused, or stopped at the limit."""
    before = Path("/proc/sysvipc/shm").read_text()
    with nothing_left(arena):
        run = attack(arena, program, memory_bytes=96 * MIB, file_bytes=16 * MIB)
    assert run.outcome == "memory_limit" or run.outcome == "exited"
    assert len(run.stdout) <= (96 if program == "row_08_memfd" else 6)
    assert Path("/proc/sysvipc/shm").read_text() == before


@pytest.mark.parametrize("descriptor", [1, 2, 4])
def test_row_09_endless_output(arena: Sandbox, descriptor: int) -> None:
    with nothing_left(arena):
        run = attack(
            arena,
            "row_09_endless_output",
            stdin=f"{descriptor}\n",
            output_bytes=MIB,
            answer_bytes=2 * MIB,
        )
    assert run.outcome == "output_limit"
    assert run.wall_seconds < 2
    assert len(run.stdout) == (MIB if descriptor == 1 else 0)
    assert len(run.stderr) == (MIB if descriptor == 2 else 0)
    assert sum(map(len, run.frames)) <= 2 * MIB


def test_row_10_sleep(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_10_sleep", wall_seconds=0.3)
    assert run.outcome == "wall_limit"
    assert 0.3 <= run.wall_seconds < 1
    assert run.cpu_seconds < 0.3


def test_row_11_busy_loop(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_11_busy_loop", cpu_seconds=0.3)
    assert run.outcome == "cpu_limit"
    assert 0.3 <= run.cpu_seconds < 0.6


@pytest.mark.parametrize("kind", ["spin", "sleep"])
def test_row_12_ignore_signals(arena: Sandbox, kind: str) -> None:
    with nothing_left(arena):
        run = attack(
            arena, "row_12_ignore_signals", stdin=f"{kind}\n", cpu_seconds=0.3, wall_seconds=1
        )
    assert run.outcome == ("cpu_limit" if kind == "spin" else "wall_limit")
    assert run.wall_seconds < 2


def test_row_13_catch_everything(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_13_catch_everything", wall_seconds=0.3)
    assert run.outcome == "wall_limit"


def test_row_14_stop_itself(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_14_stop_itself", wall_seconds=0.3)
    assert run.outcome == "wall_limit"
    assert run.wall_seconds < 1


def test_row_23_stdin_that_never_comes(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_23_stdin")
    assert run.stdout == b"b''\nno frame\n"
    assert run.outcome == "exited"


def test_row_23_input_that_nobody_reads(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(
            arena, "row_23_unread_input", stdin="x" * (8 * MIB), frames=(bytes(8 * MIB), b"second")
        )
    assert (run.outcome, run.stdout, run.frames) == ("exited", b"done\n", ())


@pytest.mark.parametrize("kind", ["python", "iterators"])
def test_row_24_deep_recursion(arena: Sandbox, kind: str) -> None:
    with nothing_left(arena):
        run = attack(
            arena,
            "row_24_deep_recursion",
            stdin=f"{kind}\n",
            memory_bytes=128 * MIB,
            stack_bytes=8 * MIB,
        )
    assert run.outcome in ("memory_limit", "signalled")
    assert run.stdout == b""


def test_row_24_deep_recursion_in_c(arena: Sandbox, tmp_path: Path) -> None:
    with nothing_left(arena):
        run = attack_in_c(arena, "row_24_deep_recursion", tmp_path)
    assert (run.outcome, run.signal) == ("signalled", 11)
    assert run.peak_memory_bytes < 80 * MIB  # the stack's limit is 64 MiB
