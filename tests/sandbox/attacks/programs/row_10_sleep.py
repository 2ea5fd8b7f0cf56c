"""Sleeps for 20 s, which costs no CPU."""

import time

time.sleep(20)
