"""Stops itself and a child: nobody sends SIGCONT."""

import os
import signal
import time

if os.fork() == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(20)
os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(20)
