"""Looks for what belongs to the caller: environment, files, open descriptors, other processes.

stdin is a JSON list of host paths that hold the secret, or may.
"""

import contextlib
import json
import os
import sys

paths = json.loads(sys.stdin.read())
readable = []
for path in paths:
    for prefix in ("", "/proc/self/root", "/proc/1/root", "/proc/1/cwd/../..", "/box/../.."):
        with contextlib.suppress(OSError):
            if os.path.isdir(prefix + path):
                os.listdir(prefix + path)
                readable.append(prefix + path + "/")
            else:
                with open(prefix + path, "rb") as file:
                    readable.append(prefix + path + ":" + repr(file.read(100)))
environments = []
for name in os.listdir("/proc"):
    if name.isdigit():
        for part in ("environ", "cmdline", "maps", "fd"):
            with contextlib.suppress(OSError):
                if part == "fd":
                    folder = f"/proc/{name}/fd"
                    links = [os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)]
                    environments.append([name, part, links])
                else:
                    with open(f"/proc/{name}/{part}", "rb") as file:
                        environments.append([name, part, file.read(20_000).decode("latin-1")])
own = []
for fd in range(256):
    with contextlib.suppress(OSError):
        os.fstat(fd)
        own.append(fd)
print(
    json.dumps(
        {
            "top": sorted(os.listdir("/")),
            "environment": dict(os.environ),
            "readable": readable,
            "processes": environments,
            "descriptors": own,
            "box": sorted(os.listdir("/box")),
            "tmp": sorted(os.listdir("/tmp")),
            "host": os.uname().nodename,
        }
    )
)
