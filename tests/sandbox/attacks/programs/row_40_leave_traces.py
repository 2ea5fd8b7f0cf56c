"""Leaves something in every place that could outlive a run, and prints what it finds there."""

import contextlib
import ctypes
import json
import os

libc = ctypes.CDLL(None, use_errno=True)
found = []
for folder in ("/box", "/tmp", "/dev/shm", "/var/tmp", "/run", "/", "/dev/mqueue"):
    with contextlib.suppress(OSError):
        if os.path.exists(f"{folder}/trace"):
            found.append(folder)
    with contextlib.suppress(OSError), open(f"{folder}/trace", "w") as file:
        file.write("left")
KEY = 0x0C0DEAC7
segment = libc.shmget(KEY, ctypes.c_size_t(4096), 0)
if segment >= 0:
    found.append("shmget")
libc.shmget(KEY, ctypes.c_size_t(4096), 0o1666)
if libc.msgget(KEY, 0) >= 0:
    found.append("msgget")
libc.msgget(KEY, 0o1666)
if libc.semget(KEY, 1, 0) >= 0:
    found.append("semget")
libc.semget(KEY, 1, 0o1666)
if libc.syscall(240, b"trace", 0) >= 0:
    found.append("mq_open")
libc.syscall(240, b"trace", 0o102, 0o666, 0)
for keyring in (-3, -4, -5):  # session, user, user session
    if libc.syscall(250, 10, keyring, b"user", b"codeact-trace", 0) >= 0:
        found.append(f"key {keyring}")
    libc.syscall(248, b"user", b"codeact-trace", b"x", 1, keyring)
print(json.dumps(found))
