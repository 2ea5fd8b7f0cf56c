"""Rows 1, 2, 7, 8, 16 and 39 where no control group can be made: limits and looking do it alone."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from attacks.harness import MIB, attack, nothing_left

from codeact.sandbox import Sandbox
from codeact.sandbox.tiers import Tier, find_bwrap


@pytest.fixture(scope="module")
def bare_arena(arena: Sandbox) -> Iterator[Sandbox]:
    """The tier that most users without root have."""
    path, version = find_bwrap()
    with Sandbox(tier=Tier("bwrap", path, version)) as own:
        assert own.tier == "bwrap"
        yield own


def test_row_01_fork_bomb(bare_arena: Sandbox) -> None:
    with nothing_left(bare_arena):
        run = attack(bare_arena, "row_01_fork_bomb", wall_seconds=0.7, processes=24)
    assert run.outcome == "wall_limit"
    assert 12 <= len(run.stdout) <= 24


def test_row_02_spinning_threads(bare_arena: Sandbox) -> None:
    with nothing_left(bare_arena):
        run = attack(bare_arena, "row_02_spinning_threads", cpu_seconds=0.4, processes=24)
    assert run.outcome == "cpu_limit"
    assert 0.4 <= run.cpu_seconds < 1


@pytest.mark.parametrize("program", ["row_07_eat_memory", "row_07_eat_memory_in_children"])
def test_row_07_eat_memory(bare_arena: Sandbox, program: str) -> None:
    """At most what is touched in the five milliseconds between two looks comes on top."""
    with nothing_left(bare_arena):
        run = attack(bare_arena, program, memory_bytes=128 * MIB)
    assert run.outcome == "memory_limit"
    assert run.peak_memory_bytes < 300 * MIB


@pytest.mark.parametrize("program", ["row_08_memfd", "row_08_shared_memory"])
def test_row_08_memory_outside_the_heap(bare_arena: Sandbox, program: str) -> None:
    with nothing_left(bare_arena):
        run = attack(bare_arena, program, memory_bytes=96 * MIB)
    assert len(run.stdout) <= (96 if program == "row_08_memfd" else 16)


def test_row_16_daemon(bare_arena: Sandbox) -> None:
    with nothing_left(bare_arena):
        run = attack(bare_arena, "row_16_daemon")
    assert (run.outcome, run.exit_code, run.stdout) == ("exited", 0, b"done\n")


def test_row_39_work_in_children(bare_arena: Sandbox) -> None:
    with nothing_left(bare_arena):
        run = attack(bare_arena, "row_39_work_in_children")
    assert 0.6 <= run.cpu_seconds < 1.2


def test_row_40_nothing_outlives_a_run(bare_arena: Sandbox) -> None:
    with nothing_left(bare_arena):
        runs = [attack(bare_arena, "row_40_leave_traces") for _ in range(2)]
    assert [json.loads(run.stdout) for run in runs] == [[], []]
