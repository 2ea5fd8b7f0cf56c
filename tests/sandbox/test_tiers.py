"""A sandbox is chosen because its walls were tried; anything else is a refusal that says why."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from codeact.sandbox import Sandbox, SandboxUnavailable, self_test, tiers
from codeact.sandbox.cgroups import NoCgroups

FakeBwrap = Callable[..., Path]


@pytest.fixture
def fake_bwrap(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBwrap]:
    """Puts a script called bwrap alone on PATH; the launcher's user can execute it."""
    folder = Path(tempfile.mkdtemp(prefix="codeact-test-"))
    folder.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))

    def write(version: str, *, then: str = "exit 0") -> Path:
        script = folder / "bwrap"
        lines = ["#!/bin/sh", f'[ "$1" = --version ] && {{ echo "{version}"; exit; }}', then]
        script.write_text("\n".join(lines) + "\n", encoding="ascii")
        script.chmod(0o755)
        return script

    yield write
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A self-test that passed before must not be believed here."""
    folder = Path(tempfile.mkdtemp(prefix="codeact-test-"))
    monkeypatch.setenv("CODEACT_CACHE", str(folder))
    yield folder
    shutil.rmtree(folder)


def refusal(external: bool = False) -> SandboxUnavailable:
    with pytest.raises(SandboxUnavailable) as raised:
        Sandbox(external=external)
    assert "\n" not in str(raised.value)
    return raised.value


def test_real_tier(sandbox: Sandbox) -> None:
    tier = tiers.choose_tier()
    found = shutil.which("bwrap")
    assert found is not None
    assert tier.bwrap == Path(found)
    assert tier.version.startswith("0.")
    assert (tier.name == "bwrap+cgroup") == (tier.cgroups is not None)
    assert (tier.name == "bwrap") == (tier.no_cgroups != "")
    assert sandbox.tier == tier.name


def test_without_cgroups(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "find_cgroups", lambda launcher: NoCgroups("none today"))
    with Sandbox() as plain:
        assert plain.tier == "bwrap"
        run = plain.run(["/bin/sh", "-c", "echo $HOME"])
    assert (run.outcome, run.stdout, run.sandbox) == ("exited", b"/box\n", "bwrap")


def test_no_bwrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    error = refusal()
    assert (error.check, error.reason) == (
        "bwrap",
        "bubblewrap is not installed: no bwrap on PATH",
    )
    assert "apt-get install bubblewrap" in error.fixes[0]
    assert "CODEACT_EXTERNAL_SANDBOX=1" in error.fixes[-1]


@pytest.mark.parametrize("version", ["0.7.0", "0.4", "0.7.99"])
def test_old_bwrap(fake_bwrap: FakeBwrap, version: str) -> None:
    script = fake_bwrap(f"bubblewrap {version}")
    error = refusal()
    assert error.check == "bwrap"
    assert error.reason == f"{script} is version {version}, older than 0.8"


@pytest.mark.parametrize("version", ["0.8.0", "0.11.1", "1.0"])
def test_new_enough_bwrap(fake_bwrap: FakeBwrap, version: str) -> None:
    script = fake_bwrap(f"bubblewrap {version}")
    assert tiers.find_bwrap() == (script, version)


def test_something_else_called_bwrap(fake_bwrap: FakeBwrap) -> None:
    fake_bwrap("hello")
    assert "says 'hello\\n'" in refusal().reason


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("bwrap: setting up uid map: Permission denied", "AppArmor"),
        ("bwrap: No permissions to create new namespace, likely because", "seccomp=unconfined"),
        ("bwrap: Creating new namespace failed: Operation not permitted", "seccomp=unconfined"),
        ("bwrap: Can't find source path /home/x: Permission denied", "TMPDIR"),
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "systempaths"),
    ],
)
def test_bwrap_that_does_not_start(fake_bwrap: FakeBwrap, words: str, fix: str) -> None:
    fake_bwrap("bubblewrap 0.8.0", then=f'echo "{words}" >&2; exit 1')
    error = refusal()
    assert error.check == "start"
    assert words in error.reason
    assert fix in error.fixes[0]


def test_no_walls_at_all(fake_bwrap: FakeBwrap, own_cache: Path) -> None:
    """Runs the program, as asked, and separates it from nothing."""
    run = 'while [ "$1" != -- ]; do shift; done; shift; shift; exec "$0-not-there" "$@"'
    fake_bwrap("bubblewrap 0.8.0", then=run)
    assert refusal().check == "start"
    assert not (own_cache / "sandbox-self-test.json").exists()


def test_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers.sys, "platform", "darwin")
    assert refusal().reason == "needs Linux, this is darwin"


def test_not_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tiers, "LAUNCHER", tmp_path / "codeact-launcher")
    assert refusal().check == "launcher"


def test_fixes_of_other_checks() -> None:
    """Installing bwrap again would not help these."""
    assert "less busy" in self_test.Check("CPU time", "10 ms").fixes[0]
    assert "newer kernel" in self_test.Check("network unreachable", "a route").fixes[0]


class TestExternal:
    @pytest.mark.parametrize("stated", [None, "0", "yes", ""])
    def test_needs_both(self, monkeypatch: pytest.MonkeyPatch, stated: str | None) -> None:
        monkeypatch.delenv("CODEACT_EXTERNAL_SANDBOX", raising=False)
        if stated is not None:
            monkeypatch.setenv("CODEACT_EXTERNAL_SANDBOX", stated)
        error = refusal(external=True)
        assert error.check == "external tier"
        assert error.reason.endswith(f"found {stated!r}")

    def test_variable_alone_changes_nothing(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CODEACT_EXTERNAL_SANDBOX", "1")
        assert tiers.find_tier().name == sandbox.tier

    def test_runs_with_a_warning(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("CODEACT_EXTERNAL_SANDBOX", "1")
        with caplog.at_level(logging.WARNING):
            made = Sandbox(external=True)
        assert "without bubblewrap" in caplog.text
        with made:
            run = made.run(["/bin/sh", "-c", "cat; pwd > where; cat where"], stdin=b"in\n")
        assert (run.outcome, run.exit_code, run.sandbox) == ("exited", 0, "external")
        first, folder = run.stdout.decode().splitlines()
        assert first == "in"
        assert not Path(folder).exists()


def test_every_check_of_the_self_test_holds(sandbox: Sandbox) -> None:
    found = list(self_test.run_checks(tiers.find_tier()))
    assert [check.name for check in found] == list(self_test._CHECKS)
    assert [check for check in found if check.reason] == []
