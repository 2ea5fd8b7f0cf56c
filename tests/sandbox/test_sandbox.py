"""Sandbox.run: what it reports of a program, and what a program finds inside."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from codeact.sandbox import Limits, Sandbox

pytestmark = pytest.mark.alone


def python(sandbox: Sandbox, source: str, **options):
    """Run a source with the interpreter of /usr, which is there whatever runs the tests."""
    command = ["/usr/bin/python3", "-I", "-S", "-B", "-c", source]
    if not Path(command[0]).exists():
        pytest.skip("needs /usr/bin/python3")
    return sandbox.run(command, **options)


def test_streams_and_exit_code(sandbox):
    script = "cat; cat data.txt; echo words >&2; exit 7"
    run = sandbox.run(["/bin/sh", "-c", script], files={"data.txt": b"file"}, stdin=b"in ")
    assert (run.outcome, run.exit_code, run.signal) == ("exited", 7, None)
    assert (run.stdout, run.stderr) == (b"in file", b"words\n")
    assert run.sandbox == sandbox.tier


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_signals_keep_their_number(sandbox, number):
    run = sandbox.run(["/bin/sh", "-c", f"kill -{int(number)} $$"])
    assert (run.outcome, run.exit_code, run.signal) == ("signalled", None, number)


def test_a_program_that_does_not_exist_is_no_answer(sandbox):
    run = sandbox.run(["/usr/bin/no-such-program"])
    assert run.outcome == "failed"
    assert b"no-such-program" in run.stderr


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_000])
def test_frames_come_back_whole(sandbox, size):
    frames = [bytes([number]) * size for number in range(3)]
    source = (
        "import os\n"
        "def read(size):\n"
        "    whole = b''\n"
        "    while len(whole) < size: whole += os.read(3, size - len(whole))\n"
        "    return whole\n"
        "def write(whole):\n"
        "    while whole: whole = whole[os.write(4, whole):]\n"
        "while head := os.read(3, 4): write(head + read(int.from_bytes(head, 'little')))\n"
    )
    run = python(sandbox, source, frames=frames)
    assert run.frames == tuple(frames)
    assert not run.broken_frames


def test_a_frame_comes_only_after_the_answer_to_the_one_before(sandbox):
    source = (
        "import os, select, time\n"
        "first = os.read(3, 5)\n"
        "early = bool(select.select([3], [], [], 0.3)[0])\n"
        "os.write(4, (1).to_bytes(4, 'little') + (b'y' if early else b'n'))\n"
        "second = os.read(3, 5)\n"
        "os.write(4, (1).to_bytes(4, 'little') + second[4:])\n"
    )
    assert python(sandbox, source, frames=[b"a", b"b"]).frames == (b"n", b"b")


def test_half_a_frame_is_told(sandbox):
    run = sandbox.run(["/bin/sh", "-c", r"printf '\002\000\000\000okx' >&4"])
    assert run.frames == (b"ok",)
    assert run.broken_frames


def test_cpu_time_counts_all_processes_and_no_waiting(sandbox):
    burn = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\n"
    child = (
        f"import os, time\npid = os.fork()\n{burn}\nif pid: os.waitpid(pid, 0); time.sleep(0.3)\n"
    )
    run = python(sandbox, child)
    assert 0.40 <= run.cpu_seconds < 0.55
    assert run.wall_seconds >= 0.5
    assert run.cpu_seconds == pytest.approx(run.user_seconds + run.system_seconds)


def test_an_orphan_left_behind_is_counted_and_ended(sandbox):
    source = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    while True: pass\n"
        "time.sleep(0.3)\n"
    )
    run = python(sandbox, source)
    assert run.outcome == "exited"
    assert run.cpu_seconds > 0.15
    assert run.wall_seconds < 2


@pytest.mark.parametrize("mebibytes", [50, 300])
def test_peak_memory_is_the_programs_own(sandbox, mebibytes):
    ballast = bytearray(os.urandom(1024) * 2**18)  # 256 MiB in this process must not show
    empty = python(sandbox, "pass").peak_memory_bytes
    run = python(sandbox, f"x = bytearray({mebibytes} * 2**20)\nx[::4096] = x[::4096]")
    assert ballast[0] >= 0
    assert run.peak_memory_bytes - empty == pytest.approx(mebibytes * 2**20, rel=0.02)
    assert sandbox.run(["/bin/true"]).peak_memory_bytes < 8 * 2**20


def test_memory_integral_follows_cpu_time_not_waiting(sandbox):
    hold = "x = b'1' * (100 * 2**20)\nimport time\nend = time.process_time() + 0.8\n"
    spin = "while time.process_time() < end: pass\n"
    busy = python(sandbox, hold + spin, sample_seconds=0.001)
    idle = python(sandbox, hold + spin + "time.sleep(0.5)\n", sample_seconds=0.001)
    assert busy.num_samples > 50
    for run in (busy, idle):  # 0.8 s of CPU time with all of it, the rest while it grows
        assert 100 * 2**20 * 0.79 < run.memory_byte_seconds < 112 * 2**20 * run.cpu_seconds
    assert idle.memory_byte_wall_seconds > busy.memory_byte_wall_seconds + 0.4 * 100 * 2**20


@pytest.mark.parametrize(
    ("script", "limits", "outcome"),
    [
        ("sleep 60", Limits(wall_seconds=0.3), "wall_limit"),
        ("while :; do :; done", Limits(cpu_seconds=0.3), "cpu_limit"),
        ("yes", Limits(), "output_limit"),
        ("yes >&2", Limits(), "output_limit"),
        ("yes >&4", Limits(answer_bytes=4096), "output_limit"),
    ],
    ids=["wall", "cpu", "stdout", "stderr", "frames"],
)
def test_limits_end_a_run(sandbox, script, limits, outcome):
    start = time.monotonic()
    run = sandbox.run(["/bin/sh", "-c", script], limits=limits)
    assert run.outcome == outcome
    assert time.monotonic() - start < 8
    assert len(run.stdout) <= limits.output_bytes
    assert sandbox.run(["/bin/echo", "next"]).stdout == b"next\n"


def test_memory_limit_with_and_without_address_space_limit(sandbox):
    eat = "x = []\nwhile True: x.append(bytearray(2**20))\n"
    free = python(sandbox, eat, limits=Limits(memory_bytes=100 * 2**20))
    assert free.outcome == "memory_limit"
    bound = Limits(memory_bytes=2**30, address_space_bytes=200 * 2**20)
    held = python(sandbox, eat, limits=bound)
    assert held.outcome == "exited"
    assert b"MemoryError" in held.stderr


def test_nothing_of_the_caller_is_inside(sandbox, monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    secret = tmp_path / "secret.txt"
    secret.write_text("hush")
    script = f"env; cat {secret}; ls {Path.home()}; cat /etc/passwd; ls /sys"
    run = sandbox.run(["/bin/sh", "-c", script])
    assert b"hush" not in run.stdout
    assert b"root:" not in run.stdout
    names = {line.split("=")[0] for line in run.stdout.decode().splitlines() if "=" in line}
    assert names <= {
        "PATH", "HOME", "TMPDIR", "LANG", "PYTHONHASHSEED", "OMP_NUM_THREADS", "PWD", "OLDPWD",
        "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "_", "SHLVL",
    }  # fmt: skip


def test_single_process_allows_threads_only(sandbox):
    source = (
        "import threading, os\n"
        "threads = [threading.Thread(target=print, args=(n,)) for n in range(3)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "try: os.fork()\n"
        "except PermissionError: print('no fork')\n"
        "import subprocess\n"
        "try: subprocess.run(['/bin/true'])\n"
        "except PermissionError: print('no child')\n"
    )
    run = python(sandbox, source, single_process=True)
    assert run.stdout.split() == [b"0", b"1", b"2", b"no", b"fork", b"no", b"child"]


def test_runs_of_several_threads_do_not_mix(sandbox):
    results: dict[int, bytes] = {}

    def ask(number: int) -> None:
        results[number] = sandbox.run(["/bin/echo", str(number)]).stdout

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n".encode() for number in range(8)}


def test_a_killed_launcher_is_replaced(sandbox):
    sandbox.run(["/bin/true"])
    for pid in sandbox.launcher_pids():
        os.kill(pid, signal.SIGKILL)
    assert sandbox.run(["/bin/echo", "again"]).stdout == b"again\n"


def test_names_of_files_are_no_paths(sandbox):
    for name in ("../x", "", ".", "..", "a/b", "a\0"):
        with pytest.raises(ValueError, match="plain names"):
            sandbox.run(["/bin/true"], files={name: b""})


@pytest.mark.parametrize("leaves", [True, False], ids=["launcher left", "bwrap leaves"])
def test_no_interface_but_a_loopback_of_its_own(sandbox, monkeypatch, leaves):
    """Either the launcher is in a network namespace of its own, or every run gets one."""
    python(sandbox, "pass")
    with Sandbox(tier=sandbox._tier) as own:
        own.run(["/bin/true"])
        slot = own._slots.get()
        own._slots.put(slot)
        if leaves:
            assert not slot.launcher.has_network
        else:
            monkeypatch.setattr(slot.launcher, "has_network", True)
        run = own.run(["/bin/sh", "-c", "cat /proc/self/net/dev; readlink /proc/self/ns/net"])
        names = [line.split(":")[0].strip() for line in run.stdout.decode().splitlines()[2:-1]]
        assert [name for name in names if not name.startswith(("sit", "tunl", "ip"))] == ["lo"]
        outside = os.readlink("/proc/self/ns/net").encode()
        assert outside not in run.stdout


def test_time_of_children_that_nobody_waits_for(sandbox):
    """Ended while SIGCHLD is ignored, a child is in no account but its control group's."""
    if sandbox.tier != "bwrap+cgroup":
        pytest.skip("needs control groups")
    source = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n"
        "    end = time.process_time() + 0.3\n"
        "    while time.process_time() < end: pass\n"
        "    os._exit(0)\n"
        "time.sleep(0.8)\n"
    )
    assert 0.3 <= python(sandbox, source).cpu_seconds < 0.6
