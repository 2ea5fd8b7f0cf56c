"""Waits for input that never comes, on stdin and on the frames' pipe."""

import os
import select

print(os.read(0, 100))
ready, _, _ = select.select([3], [], [], 0.2)
print("frame" if ready and os.read(3, 100) else "no frame")
