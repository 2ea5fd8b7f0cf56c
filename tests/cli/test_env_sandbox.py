"""``codeact env`` on sandboxes: which tier, each wall that fails, each compiler that is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from codeact.cli import env_sandbox
from codeact.sandbox import self_test, tiers
from codeact.sandbox.cgroups import CgroupBases
from codeact.sandbox.programs import toolchains
from codeact.sandbox.self_test import Check
from codeact.sandbox.tiers import Tier

BWRAP = Path("/usr/bin/bwrap")
GROUPS = CgroupBases(memory=Path("/m"), pids=Path("/p"))


@dataclass
class Machine:
    """What the functions that ``walls`` calls find."""

    tier: Tier
    checks: list[Check]

    def lines(self) -> dict[str, tuple[str, str]]:
        return {name: (state, missing) for name, state, missing in env_sandbox.walls()}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(Tier("bwrap+cgroup", BWRAP, "0.8.0", GROUPS), [Check("start", "")])
    whole = tiers.find_tier
    monkeypatch.setattr(
        tiers, "find_tier", lambda external=False: whole(True) if external else made.tier
    )
    monkeypatch.setattr(self_test, "run_checks", lambda tier: iter(made.checks))
    monkeypatch.delenv("CODEACT_EXTERNAL_SANDBOX", raising=False)
    return made


def test_strong(machine: Machine) -> None:
    assert machine.lines() == {
        "bwrap": ("0.8.0, /usr/bin/bwrap", ""),
        "cgroups": ("version 1: memory, pids", ""),
        "sandbox": ("bwrap+cgroup, 1 checks passed", ""),
    }


def test_without_groups(machine: Machine) -> None:
    machine.tier = Tier("bwrap", BWRAP, "0.8.0", no_cgroups="mkdir /x: Permission denied")
    state, missing = machine.lines()["cgroups"]
    assert state == "none (mkdir /x: Permission denied)"
    assert missing.startswith("the kernel then holds the memory limit; ")
    assert machine.lines()["sandbox"] == ("bwrap, 1 checks passed", "")


def test_every_wall_that_fails_has_a_line(machine: Machine) -> None:
    machine.checks += [Check("network unreachable", "a TCP port"), Check("memory", "9 bytes")]
    lines = machine.lines()
    state, missing = lines["sandbox"]
    assert state == "bwrap+cgroup refused"
    assert missing.endswith("; it failed the check: network unreachable, memory")
    assert lines["network unreachable"][0] == "a TCP port"
    assert lines["memory"][0] == "9 bytes"
    assert "start" not in lines


def test_fix_of_bwrap_own_words(machine: Machine) -> None:
    machine.checks = [Check("start", "bwrap: setting up uid map: Permission denied")]
    state, missing = machine.lines()["start"]
    assert state == "bwrap: setting up uid map: Permission denied"
    assert "kernel.apparmor_restrict_unprivileged_userns=0" in missing


def test_external_where_the_environment_says_so(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEACT_EXTERNAL_SANDBOX", "1")
    states = [state for name, state, _ in env_sandbox.walls() if name == "sandbox"]
    assert states[0] == "bwrap+cgroup, 1 checks passed"
    assert states[1].startswith("external, 1 checks passed; numbers are marked")


def test_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(language: str) -> toolchains.Toolchain | toolchains.MissingCompiler:
        if language == "go":
            return toolchains.MissingCompiler("go", "no go on PATH")
        return toolchains.Toolchain(language, {}, version_command=("echo", language, "1.2"))

    monkeypatch.setattr(toolchains, "find_toolchain", find)
    lines = {piece.name: piece for piece in env_sandbox.languages()}
    assert len(lines) == 7
    assert lines["runs rust"] == ("runs rust", "rust 1.2", "")
    assert lines["runs go"].state == "none (no go on PATH)"
    assert lines["runs go"].missing.endswith("; apt-get install golang-go")
