"""Rows 15-22, 25 and 26: programs that reach for what is not theirs."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attacks.harness import PROGRAMS, attack, attack_in_c, nothing_left

from codeact.sandbox import Sandbox

SECRET = "the-secret-of-the-caller"


def test_row_15_kill_all(arena: Sandbox) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        with nothing_left(arena):
            run = attack(
                arena, "row_15_kill_all", stdin=os.readlink("/proc/self/ns/pid"), wall_seconds=3
            )
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    report = json.loads(run.stdout)
    assert report["reached"] == [1] == [report["parent"]]
    assert (run.outcome, run.signal) == ("signalled", 9)  # of its own group it reached itself


def test_row_16_daemon(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_16_daemon")
    assert (run.outcome, run.exit_code, run.stdout) == ("exited", 0, b"done\n")
    assert run.wall_seconds < 2


def test_row_17_orphan_keeps_stdout(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_17_orphan_keeps_stdout")
    assert (run.outcome, run.exit_code, run.stdout) == ("exited", 0, b"done\n")
    assert run.wall_seconds < 2


def test_row_18_read_secrets(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox made while the secret is in the environment and the secret's file is open."""
    monkeypatch.setenv("CODEACT_TEST_SECRET", SECRET)
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    home = os.path.expanduser("~")
    paths = [str(secret), str(tmp_path), home, "/root", "/home", "/etc/passwd", "/etc/shadow"]
    paths += [str(PROGRAMS), os.getcwd(), "/var", "/run", "/sys", "/proc/1/root", "/boot", "/mnt"]
    with open(secret) as held, Sandbox() as own:
        os.set_inheritable(held.fileno(), True)
        with nothing_left(own):
            run = attack(own, "row_18_read_secrets", stdin=json.dumps(paths))
    assert SECRET.encode() not in run.stdout + run.stderr
    report = json.loads(run.stdout)
    assert report["readable"] == []
    allowed = {"bin", "box", "codeact-init", "dev", "lib", "lib32", "lib64", "libx32", "opt"}
    assert set(report["top"]) <= allowed | {"proc", "sbin", "tmp", "usr"}
    known = {"PATH", "HOME", "TMPDIR", "LANG", "PYTHONHASHSEED", "OMP_NUM_THREADS", "PWD"}
    known |= {"OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LC_CTYPE"}
    assert set(report["environment"]) <= known
    assert report["descriptors"] == [0, 1, 2, 3, 4]
    assert report["box"] == ["main.py"]
    assert report["tmp"] == []
    # Its own process and the bare command line of init: no others, and no more of that one.
    seen = {(name, part) for name, part, content in report["processes"] if name == "1"}
    assert seen <= {("1", "cmdline"), ("1", "maps")}
    assert not any(
        content for name, part, content in report["processes"] if (name, part) == ("1", "maps")
    )
    assert len({name for name, _, _ in report["processes"]}) <= 2


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[dict[str, object]]:
    """Sockets of the caller that take whatever comes."""
    abstract = f"codeact-{os.getpid()}"
    path = str(tmp_path / "socket")
    with (
        socket.create_server(("", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unnamed,
        socket.socket(socket.AF_UNIX) as named,
    ):
        udp.bind(("", 0))
        udp.setblocking(False)
        unnamed.bind("\0" + abstract)
        named.bind(path)
        for listening in (unnamed, named):
            listening.listen()
        os.chmod(path, 0o777)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))  # nothing is sent
                own = probe.getsockname()[0]
            except OSError:
                own = "127.0.0.1"
        yield {
            "udp_socket": udp,
            "target": {
                "port": tcp.getsockname()[1],
                "udp": udp.getsockname()[1],
                "abstract": abstract,
                "path": path,
                "addresses": sorted({"127.0.0.1", own}),
            },
        }


def test_row_19_network(arena: Sandbox, listeners: dict[str, object]) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_19_network", stdin=json.dumps(listeners["target"]))
    report = json.loads(run.stdout)
    assert [name for name in report["reached"] if not name.startswith("udp 127.")] == []
    assert report["made"] == []
    assert report["interfaces"] == ["lo"]
    udp = listeners["udp_socket"]
    assert isinstance(udp, socket.socket)
    with pytest.raises(BlockingIOError):
        udp.recv(10)


def test_row_20_system_calls(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_20_system_calls")
    report = json.loads(run.stdout)
    errors = report["errors"]
    assert errors.pop("clone3") == errno.ENOSYS  # so that libraries fall back to clone
    tolerated = {
        "process_madvise": {errno.EPERM, errno.EBADF, errno.EINVAL},
        "setuid_root": {errno.EPERM, errno.EINVAL},
        "mknod": {errno.EPERM},
    }
    wrong = {k: v for k, v in errors.items() if v not in tolerated.get(k, {errno.EPERM})}
    assert wrong == {}
    status = report["status"]
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == int(status["CapPrm"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_row_20_old_gate(arena: Sandbox, tmp_path: Path) -> None:
    with nothing_left(arena):
        run = attack_in_c(arena, "row_20_old_gate", tmp_path)
    assert (run.outcome, run.signal) == ("signalled", 31)  # SIGSYS


def test_row_21_write_outside(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_21_write_outside")
    report = json.loads(run.stdout)
    assert sorted(report["writable"]) == ["/box", "/tmp"]
    assert report["kernel"] == []
    assert report["remounted"] == []
    open_mounts = {path for path, mode in report["mounts"] if mode == "rw"}
    devices = {"null", "zero", "random", "urandom"}
    assert open_mounts <= {"/box", "/tmp", "/proc"} | {f"/dev/{name}" for name in devices}
    assert set(report["devices"]) <= devices | {"fd", "shm", "stdin", "stdout", "stderr"}


def test_row_22_links(arena: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    with nothing_left(arena):
        run = attack(arena, "row_22_links", stdin=str(secret))
    assert (run.outcome, run.stdout, run.frames) == ("exited", b"done\n", ())
    assert SECRET.encode() not in run.stderr
    assert secret.read_text() == SECRET


@pytest.mark.parametrize("name", ["../escape", "/etc/escape", "a/b", "..", ".", "", "a\0b"])
def test_row_22_names_of_files_are_plain(arena: Sandbox, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        arena.run(["/bin/true"], files={name: b""})


@pytest.mark.parametrize(
    ("kind", "signal"), [("pointer", 11), ("abort", 6), ("illegal", 4), ("kill", 9)]
)
def test_row_25_crash(arena: Sandbox, kind: str, signal: int) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_25_crash", stdin=f"{kind}\n")
    assert (run.outcome, run.signal, run.exit_code) == ("signalled", signal, None)


def test_row_26_descriptors(arena: Sandbox) -> None:
    with nothing_left(arena):
        run = attack(arena, "row_26_descriptors", open_files=64)
    report = json.loads(run.stdout)
    assert report["errno"] == errno.EMFILE
    assert report["opened"] <= 64 - 5
    assert report["raised"] == []
    assert report["in_flight"] <= 64 + 8  # the kernel refuses the message after the limit
