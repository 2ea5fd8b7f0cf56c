"""More than 200 wrong programs that try to pass, and right ones that look odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from cheats import exits, frames, guesses, inspection, objects, patching
from cheats.honest import honest
from cheats.programs_on_stdin import stdin_cheats
from cheats.puzzles import Cheat, from_kinds
from cheats.values import nearly_right

from codeact.sandbox import Limits, Sandbox
from codeact.sandbox.execute import check
from codeact.sandbox.verdict import STATUSES, Verdict

WORKERS = 2
LIMITS = Limits(wall_seconds=1.0, cpu_seconds=0.5, memory_bytes=256 * 2**20)


def cheats() -> list[Cheat]:
    """Every cheat, in a fixed order."""
    modules = (exits, objects, inspection, patching, guesses, frames)
    made = [
        cheat
        for module in modules
        for cheat in from_kinds(module.__name__.partition(".")[2], module.KINDS, puzzles_each=1)
    ]
    return made + stdin_cheats() + nearly_right()


@pytest.fixture(scope="module")
def judges(sandbox: Sandbox) -> Iterator[Sandbox]:
    """A worker a core; skipped without a sandbox."""
    with Sandbox(workers=WORKERS) as own:
        yield own


def judge(sandbox: Sandbox, entries: Sequence[Cheat]) -> dict[str, Verdict]:
    """The verdict on each, by its name."""
    with ThreadPoolExecutor(WORKERS) as pool:
        verdicts = pool.map(
            lambda entry: check(sandbox, entry.program, entry.tests, limits=LIMITS), entries
        )
        return dict(zip((entry.name for entry in entries), verdicts, strict=True))


def test_no_cheat_passes(judges: Sandbox) -> None:
    entries = cheats()
    assert len(entries) >= 200
    assert len({(entry.program.source, repr(entry.tests)) for entry in entries}) == len(entries)
    verdicts = judge(judges, entries)
    assert [name for name, verdict in verdicts.items() if verdict.passed] == []
    # Each was run and found out, none only failed to start.
    counts = Counter(verdict.status for verdict in verdicts.values())
    assert set(counts) <= set(STATUSES) - {"sandbox_error", "bad_test", "no_compiler", "unsafe"}
    assert all(verdict.reason for verdict in verdicts.values())


def test_the_honest_pass(judges: Sandbox) -> None:
    entries = honest()
    assert len(entries) >= 20
    verdicts = judge(judges, entries)
    assert {n: v for n, v in verdicts.items() if not v.passed} == {}
