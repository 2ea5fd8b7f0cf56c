"""Shared memory: System V segments and shared mappings, 16 of 16 MiB each way, left behind."""

import ctypes
import mmap
import os

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
held = []
for _ in range(16):
    identity = libc.shmget(0, ctypes.c_size_t(16 << 20), 0o1600)
    if identity >= 0:
        address = libc.shmat(identity, None, 0)
        if address not in (None, ctypes.c_void_p(-1).value):
            ctypes.memset(address, 1, 16 << 20)
            os.write(1, b"s")
    try:
        held.append(mmap.mmap(-1, 16 << 20))
        held[-1].write(b"\1" * (16 << 20))
        os.write(1, b"m")
    except OSError as error:
        os.write(2, f"errno {error.errno}\n".encode())
