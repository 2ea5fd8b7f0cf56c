"""Ignores every signal that can be ignored, then sleeps or spins for 20 s, as stdin says."""

import contextlib
import signal
import sys
import time

for number in range(1, 65):
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_IGN)
spin = sys.stdin.readline().strip() == "spin"
end = time.monotonic() + 20
while time.monotonic() < end:
    if not spin:
        time.sleep(1)
