"""Asks for a file of 1 TiB that holds nothing, by three calls."""

import json
import os

SIZE = 1 << 40
file = os.open("/box/sparse", os.O_CREAT | os.O_RDWR)
errors = []
for attempt in (
    lambda: os.ftruncate(file, SIZE),
    lambda: os.posix_fallocate(file, 0, SIZE),
    lambda: os.pwrite(file, b"x", SIZE),
):
    try:
        attempt()
        errors.append(0)
    except OSError as error:
        errors.append(error.errno)
print(json.dumps({"errors": errors, "size": os.fstat(file).st_size}))
