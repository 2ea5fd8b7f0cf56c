"""Each wall taken down, or each meter bent, on purpose: the self-test has to say so."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codeact.sandbox import Run, Sandbox, SandboxUnavailable, self_test
from codeact.sandbox import slot as slot_module
from codeact.sandbox.tiers import Tier, find_tier

Words = list[str]
Bend = Callable[[Run], Run]


def without(words: Words, *part: str) -> Words:
    """The words less one run of them, its last occurrence."""
    size = len(part)
    starts = [at for at in range(len(words)) if tuple(words[at : at + size]) == part]
    return words[: starts[-1]] + words[starts[-1] + size :]


def inserted(words: Words, *part: str) -> Words:
    at = words.index("--chdir")
    return [*words[:at], *part, *words[at:]]


def shows_temporary_files(words: Words) -> Words:
    folder = tempfile.gettempdir()
    return inserted(words, "--ro-bind", folder, folder)


def sets_no_process_limit(words: Words) -> Words:
    return ["processes=0" if word.startswith("processes=") else word for word in words]


WEAKENED = {
    "environment hidden": lambda words: inserted(words, "--setenv", "API_TOKEN", "x"),
    "files unreadable": shows_temporary_files,
    "files unwritable": lambda words: without(words, "--remount-ro", "/"),
    "fork bomb contained": sets_no_process_limit,
}
BENT: dict[str, tuple[str, Bend]] = {
    "network unreachable": ("network", lambda run: replace(run, stdout=b"reached 127.0.0.1\n")),
    "processes untraceable": ("trace", lambda run: replace(run, stdout=b"traced child\n")),
    "CPU time": ("burn", lambda run: replace(run, cpu_seconds=0.7 * run.cpu_seconds)),
    "memory": ("allocate", lambda run: replace(run, peak_memory_bytes=75 * 2**20)),
    "memory of a small program": ("nothing", lambda run: replace(run, peak_memory_bytes=2**25)),
    "memory limit": ("allocate", lambda run: replace(run, outcome="exited", exit_code=0)),
    "output limit": ("print", lambda run: replace(run, stdout=2 * run.stdout)),
    "wall limit": ("sleep", lambda run: replace(run, outcome="signalled", signal=9)),
}


@pytest.fixture
def tier(sandbox: Sandbox) -> Tier:
    """The machine's own, without cgroups: those would hold where the test takes a wall down."""
    return replace(find_tier(), name="bwrap", cgroups=None)


def failed_checks(tier: Tier, only: str) -> list[str]:
    """Names of the checks that fail, of this one and those that no weakness should disturb."""
    checks = {name: self_test._CHECKS[name] for name in ("start", only)}
    with Sandbox(tier=tier) as sandbox:
        return [name for name, check in checks.items() if check(sandbox)]


@pytest.mark.parametrize("check", WEAKENED)
def test_wall_taken_down(check: str, tier: Tier, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = slot_module.bubblewrap_command
    assert failed_checks(tier, check) == []
    monkeypatch.setattr(
        slot_module,
        "bubblewrap_command",
        lambda *args, **options: WEAKENED[check](whole(*args, **options)),
    )
    assert failed_checks(tier, check) == [check]


@pytest.mark.parametrize("check", BENT)
def test_bent_meter(check: str, tier: Tier, monkeypatch: pytest.MonkeyPatch) -> None:
    probe, bend = BENT[check]
    whole = Sandbox.run

    def run(self: Sandbox, command: Any, **options: Any) -> Run:
        found = whole(self, command, **options)
        return bend(found) if command[2] == probe else found

    monkeypatch.setattr(Sandbox, "run", run)
    assert failed_checks(tier, check) == [check]


def test_a_process_that_stays(tier: Tier, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, left = Sandbox.run, []

    def run(self: Sandbox, command: Any, **options: Any) -> Run:
        if command[2] == "orphan":
            words = ["/bin/sh", "-c", "read forever", command[3]]
            left.append(subprocess.Popen(words, stdin=subprocess.PIPE))
        return whole(self, command, **options)

    monkeypatch.setattr(Sandbox, "run", run)
    try:
        assert failed_checks(tier, "nothing outlives its run") == ["nothing outlives its run"]
    finally:
        for process in left:
            process.kill()
            process.communicate()


class TestMemory:
    """What passed is not tried again until something changes."""

    @pytest.fixture(autouse=True)
    def own_cache(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix="codeact-test-"))
        monkeypatch.setenv("CODEACT_CACHE", str(folder))
        yield folder
        shutil.rmtree(folder)

    @pytest.fixture
    def tried(self, monkeypatch: pytest.MonkeyPatch) -> list[Tier]:
        tried: list[Tier] = []

        def run_checks(tier: Tier) -> Iterator[self_test.Check]:
            tried.append(tier)
            yield self_test.Check("start", "")

        monkeypatch.setattr(self_test, "run_checks", run_checks)
        return tried

    def test_passed_once(self, tier: Tier, tried: list[Tier], own_cache: Path) -> None:
        for _ in range(3):
            self_test.verify(tier)
        assert tried == [tier]
        (own_cache / "sandbox-self-test.json").write_text("{", encoding="ascii")
        self_test.verify(tier)
        assert tried == [tier, tier]

    def test_other_walls_are_tried_again(
        self, tier: Tier, tried: list[Tier], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        other = replace(tier, version="0.9.0")
        for each in (tier, other, other):
            self_test.verify(each)
        assert tried == [tier, other]
        launcher = tmp_path / "codeact-launcher"
        launcher.write_bytes(b"another one")
        monkeypatch.setattr(self_test, "LAUNCHER", launcher)
        self_test.verify(other)
        assert tried == [tier, other, other]

    def test_failures_are_not_kept(
        self, tier: Tier, monkeypatch: pytest.MonkeyPatch, own_cache: Path
    ) -> None:
        found = iter([self_test.Check("start", ""), self_test.Check("memory", "it leaks")])
        monkeypatch.setattr(self_test, "run_checks", lambda tier: found)
        with pytest.raises(SandboxUnavailable, match="memory: it leaks") as raised:
            self_test.verify(tier)
        assert (raised.value.check, raised.value.reason) == ("memory", "it leaks")
        assert not (own_cache / "sandbox-self-test.json").exists()

    def test_report(self, tier: Tier, tried: list[Tier], own_cache: Path) -> None:
        self_test.verify(tier)
        report = json.loads((own_cache / "sandbox-self-test.json").read_text(encoding="utf-8"))
        assert report["sandbox"] == "bwrap"
        assert len(report["passed"]) == 64
