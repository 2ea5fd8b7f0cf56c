"""Touches up to 1 GiB, 8 MiB at a time."""

import os

held = []
try:
    for _ in range(128):
        held.append(bytearray(b"x") * (8 << 20))
        os.write(1, b"x")
except MemoryError:
    held.clear()
    print("MemoryError")
    raise SystemExit(7) from None
