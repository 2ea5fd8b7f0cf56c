"""Catches whatever a timeout inside the process could raise, for 20 s."""

import time

end = time.monotonic() + 20
while time.monotonic() < end:
    try:
        while time.monotonic() < end:
            pass
    except BaseException:
        continue
