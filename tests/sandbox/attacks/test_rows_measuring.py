"""Rows 39 and 40: programs that hide what they use, or leave something for the next run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attacks.harness import MIB, attack, attack_in_c, nothing_left

from codeact.sandbox import Sandbox

pytestmark = pytest.mark.alone


def test_row_39_work_in_children(arena: Sandbox) -> None:
    """0.6 s in two children; a parent's own clock would show a hundredth of it."""
    with nothing_left(arena):
        run = attack(arena, "row_39_work_in_children")
    assert run.outcome == "exited"
    assert 0.6 <= run.cpu_seconds < 1.2


def test_row_39_single_process(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_39_single_process", single_process=True)
        free = attack(arena, "row_39_single_process")
    assert json.loads(run.stdout) == {"made": [], "thread": [1]}
    # Where processes are allowed the same program makes them: the test can fail.
    assert set(json.loads(free.stdout)["made"]) >= {"fork", "spawn"}


def test_row_39_memory_in_files(arena: Sandbox) -> None:
    """Files in memory are memory: two folders of 96 MiB do not fit into 64 MiB."""
    with nothing_left(arena):
        run = attack(arena, "row_39_memory_in_files", memory_bytes=64 * MIB, box_bytes=512 * MIB)
    assert run.outcome == "memory_limit"
    assert len(run.stdout) < 64


def test_row_39_small_folders(arena: Sandbox) -> None:
    """What a measured run can keep in files is bounded, whatever its limit on memory."""
    with nothing_left(arena):
        run = attack(arena, "row_39_memory_in_files", box_bytes=4 * MIB)
    assert run.outcome == "exited"
    assert len(run.stdout) <= 4 + 16


def test_row_40_nothing_outlives_a_run(arena: Sandbox) -> None:
    """Three runs in a row in the same slot; each leaves what it can, none finds anything."""
    with nothing_left(arena):
        runs = [attack(arena, "row_40_leave_traces") for _ in range(3)]
    assert [json.loads(run.stdout) for run in runs] == [[], [], []]


def test_row_39_orphans_without_end(arena: Sandbox) -> None:
    """Ended children keep coming to the first process: it must still look at the clock."""
    with nothing_left(arena):
        run = attack(arena, "row_39_orphans_without_end", wall_seconds=0.7)
    assert run.outcome == "wall_limit"
    assert run.wall_seconds < 2


def test_row_39_small_and_greedy(arena: Sandbox, tmp_path: Path) -> None:
    """The kernel kills the largest process, here one of ours: still the candidate's limit."""
    with nothing_left(arena):
        run = attack_in_c(
            arena, "row_39_small_and_greedy", tmp_path, memory_bytes=48 * MIB, box_bytes=256 * MIB
        )
    assert run.outcome == "memory_limit"
