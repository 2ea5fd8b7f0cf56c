"""Doubles itself ten times, at most 1,024 processes, each of which would sleep for 20 s."""

import os
import time

os.write(1, b"x")
for _ in range(10):
    try:
        if os.fork() == 0:
            os.write(1, b"x")
    except OSError:
        pass  # the limit: what is there keeps trying
time.sleep(20)
