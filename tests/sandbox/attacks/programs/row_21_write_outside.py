"""Finds every place that can be written: creates, opens, renames, changes modes, remounts."""

import contextlib
import ctypes
import itertools
import json
import os
from collections.abc import Iterator

libc = ctypes.CDLL(None, use_errno=True)
writable = []


def folders_below(start: str, most: int) -> Iterator[tuple[str, list[str], list[str]]]:
    return itertools.islice(os.walk(start), most)


starts = sorted("/" + name for name in os.listdir("/") if name != "proc")
walks = [folders_below(start, 300) for start in starts]
for top, _, files in itertools.chain([("/", [], [])], *walks):
    probe = os.path.join(top, ".codeact-probe")
    with contextlib.suppress(OSError):
        os.close(os.open(probe, os.O_CREAT | os.O_WRONLY))
        writable.append(top)
        os.unlink(probe)
    for name in files[:3]:
        path = os.path.join(top, name)
        if top.startswith(("/box", "/tmp", "/dev")):
            continue
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY))
            writable.append(path)
        with contextlib.suppress(OSError):
            os.chmod(path, 0o777)
            writable.append("chmod " + path)
        with contextlib.suppress(OSError):
            os.rename(path, "/tmp/stolen")
            writable.append("rename " + path)
kernel = []
for path in (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/kernel/hostname",
    "/proc/sysrq-trigger",
    "/proc/1/oom_score_adj",
    "/proc/1/mem",
    "/proc/1/clear_refs",
    "/proc/1/comm",
    "/sys/kernel/mm/transparent_hugepage/enabled",
):
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY))
        kernel.append(path)
with contextlib.suppress(OSError):  # anyone may open it, few may write
    last_pid = os.open("/proc/sys/kernel/ns_last_pid", os.O_WRONLY)
    os.write(last_pid, b"300")
    kernel.append("ns_last_pid")
REMOUNT, BIND = 32, 4096
remounted = [
    path
    for path in ("/", "/usr", "/dev", "/proc")
    if libc.mount(b"none", path.encode(), None, REMOUNT | BIND, None) == 0
]
with open("/proc/self/mountinfo") as file:
    mounts = [[line.split()[4], line.split()[5].split(",")[0]] for line in file]
devices = sorted(os.listdir("/dev"))
print(
    json.dumps(
        {
            "writable": writable,
            "kernel": kernel,
            "remounted": remounted,
            "mounts": mounts,
            "devices": devices,
        }
    )
)
