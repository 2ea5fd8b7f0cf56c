"""Dies of the signal that stdin names; or of a bad pointer."""

import ctypes
import os
import signal
import sys

kind = sys.stdin.readline().strip()
if kind == "pointer":
    ctypes.string_at(8)
elif kind == "abort":
    os.abort()
elif kind == "illegal":
    os.kill(os.getpid(), signal.SIGILL)
else:
    os.kill(os.getpid(), signal.SIGKILL)
