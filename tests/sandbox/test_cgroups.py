"""Where groups are made, read from text; that they bound what they should, on this machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from codeact.sandbox import Limits, Run, Sandbox, cgroups
from codeact.sandbox.cgroups import CgroupBases, Mount, NoCgroups, find_cgroups
from codeact.sandbox.launcher import LAUNCHER
from codeact.sandbox.tiers import find_tier

MIB = 2**20


@pytest.fixture
def bases(sandbox: Sandbox) -> CgroupBases:
    if sandbox.tier != "bwrap+cgroup":
        pytest.skip(f"not run: {find_tier().no_cgroups}")
    found = find_cgroups(LAUNCHER)
    assert isinstance(found, CgroupBases)
    return found


class TestReading:
    def test_mounts(self) -> None:
        text = (
            "22 1 8:1 / / rw,relatime - ext4 /dev/root rw\n"
            "31 25 0:27 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
            "32 25 0:28 /docker/a\\040b /sys/fs/cg\\134x ro - cgroup cgroup ro,cpu,cpuacct\n"
            "33 25 0:29 / /sys/fs/cgroup/unified rw shared:2 master:1 - cgroup2 cgroup2 rw\n"
            "cut short\n"
        )
        assert list(cgroups.parse_mounts(text)) == [
            Mount(frozenset({"rw", "memory"}), "/", Path("/sys/fs/cgroup/memory")),
            Mount(frozenset({"ro", "cpu", "cpuacct"}), "/docker/a b", Path("/sys/fs/cg\\x")),
            Mount(frozenset(), "/", Path("/sys/fs/cgroup/unified")),
        ]

    def test_own_groups(self) -> None:
        text = "9:name=systemd:/\n4:memory:/a:b\n3:cpu,cpuacct:/c\n0::/user.slice\n"
        assert cgroups.parse_own_groups(text) == {
            "name=systemd": "/", "memory": "/a:b", "cpu": "/c", "cpuacct": "/c", "": "/user.slice",
        }  # fmt: skip


class Machine:
    """A made-up /proc and hierarchy; its launcher finds that every group works, unless told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "self").mkdir()
        self.launcher = root / "codeact-launcher"
        self.says("ok")

    def says(self, words: str) -> None:
        script = f'#!/bin/sh\nprintf "%s\\n" "$@" > {self.root}/asked\necho "{words}"\n'
        self.launcher.write_text(script, encoding="ascii")
        self.launcher.chmod(0o755)

    def find(self, mounts: str, own: str) -> CgroupBases | NoCgroups:
        (self.root / "self/mountinfo").write_text(mounts, encoding="ascii")
        (self.root / "self/cgroup").write_text(own, encoding="ascii")
        return find_cgroups(self.launcher, proc=self.root)

    def group(self, path: str, handed_down: str | None = None) -> Path:
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        if handed_down is not None:
            (folder / "cgroup.subtree_control").write_text(handed_down + "\n", encoding="ascii")
        return folder

    def mount(self, folder: str, options: str, root: str = "/") -> str:
        kind = "cgroup cgroup rw," + options if options else "cgroup2 cgroup2 rw"
        return f"31 25 0:27 {root} {self.root / folder} rw - {kind}\n"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class TestFinding:
    def test_version_1_below_the_own_group(self, machine: Machine) -> None:
        memory, pids = machine.group("memory/job/7"), machine.group("pids")
        found = machine.find(
            machine.mount("memory", "memory") + machine.mount("pids", "pids"),
            "4:memory:/job/7\n8:pids:/\n",
        )
        assert found == CgroupBases(memory=memory, pids=pids)
        asked = (machine.root / "asked").read_text(encoding="ascii").splitlines()
        assert asked == ["probe", "cgroup", f"memory={memory}", f"pids={pids}"]

    def test_version_1_in_a_container(self, machine: Machine) -> None:
        """The mount shows the container's group as its root, the process names it in full."""
        machine.group("both")
        mount = machine.mount("both", "memory,pids,cpuacct", root="/docker/abc")
        found = machine.find(mount, "4:memory,pids,cpuacct:/docker/abc\n")
        assert found == CgroupBases(*3 * [machine.root / "both"])
        found = machine.find(mount, "4:memory,pids,cpuacct:/\n")
        assert found == CgroupBases(*3 * [machine.root / "both"])
        assert isinstance(machine.find(mount, "4:memory,pids,cpuacct:/other\n"), NoCgroups)

    def test_version_1_without_pids(self, machine: Machine) -> None:
        machine.group("memory")
        found = machine.find(machine.mount("memory", "memory"), "4:memory:/\n8:pids:/\n")
        assert isinstance(found, NoCgroups)
        assert "version 1: no hierarchy with pids" in found.reason

    def test_version_2_nearest_that_hands_down(self, machine: Machine) -> None:
        machine.group("all", "cpu memory pids")
        user = machine.group("all/user", "cpu memory pids")
        machine.group("all/user/app", "cpu pids")
        machine.group("all/user/app/own", "")
        found = machine.find(machine.mount("all", ""), "0::/user/app/own\n")
        assert found == CgroupBases(unified=user)

    def test_version_2_nothing_above_the_mount(self, machine: Machine) -> None:
        machine.group("", "memory pids")
        machine.group("all/own", "")
        found = machine.find(machine.mount("all", ""), "0::/own\n")
        assert isinstance(found, NoCgroups)
        assert "hands memory and pids down" in found.reason

    def test_not_believed_untried(self, machine: Machine) -> None:
        machine.group("all", "memory pids")
        machine.says("mkdir /x: Permission denied")
        found = machine.find(machine.mount("all", ""), "0::/\n")
        assert isinstance(found, NoCgroups)
        assert found.reason.endswith("; mkdir /x: Permission denied")

    def test_no_proc(self, tmp_path: Path) -> None:
        found = find_cgroups(LAUNCHER, proc=tmp_path / "none")
        assert found == NoCgroups("control groups cannot be read: No such file or directory")

    def test_probe_refuses_a_plain_folder(self, tmp_path: Path) -> None:
        reason = cgroups._try(LAUNCHER, CgroupBases(memory=tmp_path, pids=tmp_path))
        assert reason.startswith("mkdir ") or reason.startswith("write ")


def allocate(sandbox: Sandbox, size: int, limit: int) -> Run:
    command = ["/bin/sh", "-c", f"head -c {size} /dev/zero | tail | wc -c"]
    return sandbox.run(command, limits=Limits(memory_bytes=limit))


class TestRealGroups:
    def test_memory_of_all_processes_is_bound(self, sandbox: Sandbox, bases: CgroupBases) -> None:
        """tail holds what it is given. Pages of files that others use are in no group's sum."""
        assert allocate(sandbox, 40 * MIB, 64 * MIB).stdout == b"41943040\n"
        run = allocate(sandbox, 200 * MIB, 64 * MIB)
        assert run.stdout != b"209715200\n"
        assert run.peak_memory_bytes <= 66 * MIB

    def test_files_in_memory_count(self, sandbox: Sandbox, bases: CgroupBases) -> None:
        fill = "head -c 12000000 /dev/zero > $n"
        command = ["/bin/sh", "-c", f"for n in a b c d; do {fill} || exit 3; done; echo whole"]
        assert sandbox.run(command, limits=Limits(memory_bytes=96 * MIB)).stdout == b"whole\n"
        assert sandbox.run(command, limits=Limits(memory_bytes=24 * MIB)).stdout == b""

    def test_nothing_stays(self, sandbox: Sandbox, bases: CgroupBases) -> None:
        sandbox.run(["/bin/sh", "-c", "sleep 60 & exit 0"])
        sandbox.run(["/bin/sh", "-c", "true"])
        own = {f"codeact-{pid}-" for pid in sandbox.launcher_pids()}
        left = [
            group.name
            for base in bases.folders().values()
            for group in base.glob("codeact-*")
            if any(group.name.startswith(name) for name in own)
        ]
        assert left == []

    def test_after_a_launcher_was_killed(
        self, bases: CgroupBases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Sandbox() as own:
            own.run(["/bin/sh", "-c", "true"])
            (pid,) = own.launcher_pids()
            command, limits = ["/bin/sh", "-c", "sleep 60"], Limits(wall_seconds=1.0)
            running = threading.Thread(target=own.run, args=[command], kwargs={"limits": limits})
            running.start()
            group = wait_for_group(bases, pid)
            os.kill(pid, signal.SIGKILL)
            running.join()
        assert group.is_dir()
        assert cgroups.remove_stale(bases) == 0  # too young to tell from another container's
        monkeypatch.setattr(cgroups, "_STALE_SECONDS", -1.0)
        assert cgroups.remove_stale(bases) >= len(bases.folders())
        assert not group.exists()


def wait_for_group(bases: CgroupBases, pid: int) -> Path:
    assert bases.pids is not None or bases.unified is not None
    base = bases.pids or bases.unified
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for group in base.glob(f"codeact-{pid}-*"):
            # Its own processes: init, the shell and the sleep.
            if len((group / "cgroup.procs").read_text(encoding="ascii").split()) >= 3:
                return group
        time.sleep(0.01)
    raise AssertionError("the run made no group")
