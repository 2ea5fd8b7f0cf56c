"""Keeps 192 MiB in files of its memory-backed folders instead of its heap."""

import os

chunk = bytes(1 << 20)
for folder in ("/box", "/tmp"):
    for number in range(96):
        try:
            with open(f"{folder}/{number}", "wb", buffering=0) as file:
                file.write(chunk)
            os.write(1, b"x")
        except OSError as error:
            os.write(2, f"errno {error.errno}\n".encode())
            break
