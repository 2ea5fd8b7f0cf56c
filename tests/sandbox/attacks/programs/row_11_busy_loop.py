"""Spins for 20 s of CPU."""

import time

while time.process_time() < 20:
    pass
