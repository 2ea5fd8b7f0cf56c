"""Sandboxes that are interrupted, closed, forked or killed, and those of a user without rights."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from codeact.sandbox import Sandbox
from codeact.sandbox.launcher import LAUNCHER
from codeact.sandbox.tiers import Tier, find_bwrap

NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def own(sandbox: Sandbox) -> Iterator[Sandbox]:
    """One to spoil, of the session's tier."""
    with Sandbox(tier=sandbox._tier) as made:
        yield made


def wait_until(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


def command_lines() -> str:
    texts = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            texts.append(path.read_bytes().decode("utf-8", "replace"))
        except OSError:
            continue
    return "\n".join(texts)


def test_an_interrupted_run_leaves_no_answer_to_the_next(own):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    own.run(["/bin/true"])
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            own.run(["/bin/sh", "-c", "sleep 1; echo old"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert own.run(["/bin/echo", "new"]).stdout == b"new\n"


def test_a_run_that_close_cuts_short_is_no_result(own):
    own.run(["/bin/true"])
    pids = own.launcher_pids()
    ends: list[object] = []

    def sleep() -> None:
        try:
            ends.append(own.run(["/bin/sleep", "60"]))
        except RuntimeError as error:
            ends.append(str(error))

    thread = threading.Thread(target=sleep)
    thread.start()
    time.sleep(0.3)
    own.close()
    thread.join(10)
    assert ends == ["the sandbox is closed"]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_closed_sandbox_starts_nothing(own):
    own.close()
    with pytest.raises(RuntimeError, match="closed"):
        own.run(["/bin/true"])
    assert own.launcher_pids() == []


def test_a_forked_process_does_not_share_the_launchers(own):
    own.run(["/bin/true"])
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            own.run(["/bin/true"])
        except RuntimeError:
            own.close()
            status = 0
        os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    launchers = own.launcher_pids()
    assert own.run(["/bin/echo", "here"]).stdout == b"here\n"
    assert own.launcher_pids() == launchers


def test_no_descriptor_stays_open(own):
    own.run(["/bin/true"])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        own.run(["/bin/cat"], stdin=b"x", files={"a": b"y"}, frames=[b"z"])
    (pid,) = own.launcher_pids()
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.geteuid() != 0 or len(os.listdir(f"/proc/{pid}/fd")) == 3
    own.close()
    assert len(os.listdir("/proc/self/fd")) == before - 2


def test_words_of_a_command_arrive_as_they_are(sandbox):
    run = sandbox.run(["/bin/sh", "-c", 'echo "$# $1"', "sh", " \n", "", ""])
    assert run.stdout == b"3  \n\n"
    with pytest.raises(ValueError, match="NUL"):
        sandbox.run(["/bin/echo", "a\0--ro-bind"])


def test_nothing_is_left_of_a_library_that_was_killed(sandbox, tmp_path):
    """Neither the run, nor its launcher, nor the launcher's folder for temporary mounts."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from codeact.sandbox import Sandbox\n"
        "from codeact.sandbox.tiers import find_tier\n"
        "sandbox = Sandbox(tier=find_tier())\n"
        "sandbox.run(['/bin/true'])\n"
        "print(*sandbox.launcher_pids(), flush=True)\n"
        "sandbox.run(['/bin/sleep', sys.argv[1]])\n"
    )
    seconds = f"60.{os.getpid():08d}"
    # Where the other user can look for the mounts: below a folder that everyone may enter.
    folder = Path(tempfile.mkdtemp(prefix="killed-"))
    folder.chmod(0o755)
    words = [sys.executable, "-c", script, seconds]
    try:
        library = subprocess.Popen(
            words, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(folder)}
        )
        launcher = Path("/proc", library.stdout.readline().strip())
        assert launcher.name.isdigit()
        assert wait_until(lambda: f"--\0/bin/sleep\0{seconds}" in command_lines())
        library.kill()
        library.wait()
        library.stdout.close()
        assert wait_until(lambda: not launcher.exists() and seconds not in command_lines())
        assert wait_until(lambda: os.listdir(folder) == [])
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def launcher_for_all(monkeypatch) -> Iterator[Path]:
    """A copy of the launcher that every user may start."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        copy = Path(shutil.copy(LAUNCHER, folder))
        copy.chmod(0o755)
        yield copy


@root_only
def test_a_user_without_rights_has_the_sandbox_too(sandbox, launcher_for_all, monkeypatch):
    as_nobody = functools.partial(subprocess.Popen, user=NOBODY, group=NOBODY, extra_groups=[])
    monkeypatch.setattr("codeact.sandbox.launcher.subprocess.Popen", as_nobody)
    monkeypatch.setattr("codeact.sandbox.launcher.LAUNCHER", launcher_for_all)
    monkeypatch.setattr("codeact.sandbox.slot.LAUNCHER", launcher_for_all)
    monkeypatch.setattr("codeact.sandbox.slot.os.geteuid", lambda: NOBODY)
    bwrap, version = find_bwrap()
    with Sandbox(tier=Tier("bwrap", bwrap, version)) as own:
        run = own.run(["/bin/sh", "-c", "cat; cat f; wc -l < /proc/net/dev"], stdin=b"in ",
                      files={"f": b"file "})  # fmt: skip
        (pid,) = own.launcher_pids()
        assert os.stat(f"/proc/{pid}/exe", follow_symlinks=False).st_uid == 0  # not dumpable
        assert f"Uid:\t{NOBODY}" in Path(f"/proc/{pid}/status").read_text()
        network = os.readlink(f"/proc/{pid}/ns/net")
    assert (run.outcome, run.stdout, run.stderr) == ("exited", b"in file 3\n", b"")
    assert network != os.readlink("/proc/self/ns/net")


@root_only
def test_a_launcher_that_gets_no_map_of_users_stays_where_it_was(launcher_for_all):
    """As under AppArmor on Ubuntu; here because /proc is read-only."""
    script = (
        "mount -o remount,ro,bind /proc && "
        f"exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups {launcher_for_all} serve"
    )
    words = ["unshare", "--mount", "/bin/sh", "-c", script]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as launcher:
        (length,) = struct.unpack("<I", launcher.stdout.read(4))
        said = launcher.stdout.read(length)
        for kind in ("user", "net"):
            ours = os.readlink(f"/proc/self/ns/{kind}")
            assert os.readlink(f"/proc/{launcher.pid}/ns/{kind}") == ours
        launcher.stdin.close()
    assert b"network 1\n" in said
