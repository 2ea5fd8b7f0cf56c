"""Lets children do the work: 0.3 s of CPU in one that is waited for, 0.3 s in one that is not."""

import os
import time


def spin() -> None:
    while time.process_time() < 0.3:
        pass


for wait in (True, False):
    child = os.fork()
    if child == 0:
        spin()
        os._exit(0)
    if wait:
        os.waitpid(child, 0)
    else:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # stays a zombie: never in our rusage
