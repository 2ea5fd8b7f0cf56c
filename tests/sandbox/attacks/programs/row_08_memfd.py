"""Memory outside every heap: anonymous files, 24 of 16 MiB, that are written and not mapped."""

import os

chunk = bytes(1 << 20)
files = []
for _ in range(24):
    files.append(os.memfd_create("leak"))
    try:
        for _ in range(16):
            os.write(files[-1], chunk)
            os.write(1, b"x")
    except OSError as error:
        os.write(2, f"errno {error.errno}\n".encode())
