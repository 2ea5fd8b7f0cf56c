"""Ten children touch 48 MiB each, together far above a limit that each of them keeps."""

import os
import time

for _ in range(10):
    if os.fork() == 0:
        held = bytearray(b"x") * (48 << 20)
        os.write(1, b"x")
        time.sleep(10)
        os._exit(0)
time.sleep(10)
