"""Leaves a daemon of the classic kind: two forks, a session of its own, no open descriptor."""

import os
import time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.chdir("/")
        os.closerange(0, 64)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            time.sleep(0.05)
    os._exit(0)
os.wait()
print("done")
