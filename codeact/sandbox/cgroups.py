"""Finding the place where control groups can be made, by making one."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_NEEDED = ("memory", "pids")  # without these two a group bounds nothing; cpuacct only counts
_PROBE_SECONDS = 10.0
_STALE_SECONDS = 60.0
_GROUP_NAME = re.compile(r"codeact-(\d+)-")  # csrc/sandbox/cgroup.h


@dataclass(frozen=True)
class CgroupBases:
    """Folders below which the launcher makes one group a run; None where there is none.

    Either version 1 (``memory``, ``pids`` and, where it is mounted, ``cpuacct``) or version 2
    (``unified``).
    """

    memory: Path | None = None
    pids: Path | None = None
    cpuacct: Path | None = None
    unified: Path | None = None

    def folders(self) -> dict[str, Path]:
        """Those that are there, by name: the launcher's arguments."""
        return {name: path for name, path in vars(self).items() if path is not None}


class NoCgroups(NamedTuple):
    """Why there are none; one line."""

    reason: str


class Mount(NamedTuple):
    """One mounted hierarchy.

    Attributes:
        controllers: those of version 1 that it holds; empty for version 2.
        root: the group that is mounted, as ``/proc/self/cgroup`` names it.
        folder: where.
    """

    controllers: frozenset[str]
    root: str
    folder: Path


def find_cgroups(launcher: Path, *, proc: Path = Path("/proc")) -> CgroupBases | NoCgroups:
    """Where this process may make groups that bound and count memory and processes.

    Below this process's own group, so that every limit it has itself still holds; in version 2,
    where a group with processes in it hands no controller down, below the nearest one above that
    does. The place is tried with a group and a process of its own before it is believed.

    Args:
        launcher: ``codeact-launcher``, which has the probe.
        proc: to read ``self/mountinfo`` and ``self/cgroup`` of.
    """
    try:
        mounts = list(parse_mounts((proc / "self/mountinfo").read_text(encoding="utf-8")))
        own = parse_own_groups((proc / "self/cgroup").read_text(encoding="utf-8"))
    except OSError as error:
        return NoCgroups(f"control groups cannot be read: {error.strerror}")
    reasons = []
    for found in (_version_1(mounts, own), _version_2(mounts, own)):
        if isinstance(found, CgroupBases):
            refusal = _try(launcher, found)
            if not refusal:
                return found
            found = NoCgroups(refusal)
        reasons.append(found.reason)
    return NoCgroups("; ".join(reasons))


def remove_stale(bases: CgroupBases) -> int:
    """Removes empty groups of launchers that were killed; how many."""
    removed = 0
    for base in bases.folders().values():
        for folder in base.glob("codeact-*-*"):
            match = _GROUP_NAME.match(folder.name)
            if match is None or Path("/proc", match[1]).exists():
                continue
            try:
                # A launcher of another container may share the folder and not the process ids.
                if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                    folder.rmdir()  # refused while a process is in it
                    removed += 1
            except OSError:
                continue
    return removed


def parse_mounts(mountinfo: str) -> Iterator[Mount]:
    """Hierarchies among the mounts of ``/proc/self/mountinfo`` (proc_pid_mountinfo(5))."""
    for line in mountinfo.splitlines():
        fields = line.split()
        dash = fields.index("-") if "-" in fields else len(fields)
        kind = fields[dash + 1] if dash + 3 < len(fields) else ""
        if kind not in ("cgroup", "cgroup2"):
            continue
        options = frozenset(fields[dash + 3].split(",")) if kind == "cgroup" else frozenset()
        root, folder = (_unescaped(field) for field in fields[3:5])
        yield Mount(options, root, Path(folder))


def parse_own_groups(text: str) -> Mapping[str, str]:
    """This process's group by controller, ``""`` for version 2, from ``/proc/self/cgroup``."""
    groups = {}
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        for controller in [""] if number == "0" else controllers.split(","):
            groups[controller] = path
    return groups


def _unescaped(field: str) -> str:
    """Spaces and the like are written in octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _folder_of(mount: Mount, group: str) -> Path | None:
    """Where a group lies below a mount; None when it is not there."""
    if Path(group).is_relative_to(mount.root):
        below = Path(group).relative_to(mount.root)
    elif group == "/":
        below = Path()  # in a namespace of its own, a container sees its group as the root
    else:
        return None  # outside of what the mount shows
    folder = mount.folder / below
    return folder if ".." not in below.parts and folder.is_dir() else None


def _version_1(mounts: list[Mount], own: Mapping[str, str]) -> CgroupBases | NoCgroups:
    bases: dict[str, Path] = {}
    for name in (*_NEEDED, "cpuacct"):
        for mount in mounts:
            if name in mount.controllers and name in own:
                folder = _folder_of(mount, own[name])
                if folder is not None:
                    bases[name] = folder
    missing = [name for name in _NEEDED if name not in bases]
    if missing:
        return NoCgroups(f"version 1: no hierarchy with {' and '.join(missing)}")
    return CgroupBases(**bases)


def _version_2(mounts: list[Mount], own: Mapping[str, str]) -> CgroupBases | NoCgroups:
    for mount in mounts:
        folder = None if mount.controllers or "" not in own else _folder_of(mount, own[""])
        while folder is not None and folder.is_relative_to(mount.folder):
            if set(_NEEDED) <= _handed_down(folder):
                return CgroupBases(unified=folder)
            folder = folder.parent
    return NoCgroups("version 2: no group above this process hands memory and pids down")


def _handed_down(folder: Path) -> set[str]:
    try:
        return set((folder / "cgroup.subtree_control").read_text(encoding="utf-8").split())
    except OSError:
        return set()


def _try(launcher: Path, bases: CgroupBases) -> str:
    """Why a group made there does not work, in the probe's words; empty when it does."""
    words = [f"{name}={folder}" for name, folder in bases.folders().items()]
    try:
        done = subprocess.run(
            [launcher, "probe", "cgroup", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the probe did not run: {error}"
    said = " ".join((done.stdout or done.stderr).split())
    return "" if said == "ok" else said or f"the probe ended with status {done.returncode}"
