"""Fills its folder with links to the caller's files, named like what a harness would collect.

stdin: the path of a secret of the caller.
"""

import contextlib
import os
import sys

secret = sys.stdin.readline().strip()
for name in ("stdout", "stderr", "answers", "result.json", "a.out", "prog", "core"):
    with contextlib.suppress(OSError):
        os.unlink(f"/box/{name}")
    with contextlib.suppress(OSError):
        os.symlink(secret, f"/box/{name}")
    for source in (secret, "/usr/bin/env", "/proc/1/exe"):
        with contextlib.suppress(OSError):
            os.link(source, f"/box/{name}.hard")
            print("hard link to", source)
with contextlib.suppress(OSError):
    os.unlink("/box/main.py")
    os.symlink("/", "/box/main.py")
with contextlib.suppress(OSError):
    os.mkfifo("/box/fifo")
with contextlib.suppress(OSError):
    os.rename("/box", "/tmp/box")
    print("moved its folder")
os.chdir("/tmp")
for folder in ("/box", "/tmp"):
    with contextlib.suppress(OSError):
        os.chmod(folder, 0)
print("done")
