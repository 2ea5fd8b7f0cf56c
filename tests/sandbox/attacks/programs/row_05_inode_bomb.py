"""Makes up to 300,000 empty directories and empty files; each costs the kernel about 1 KB."""

import os

made = 0
try:
    for number in range(150_000):
        os.mkdir(f"/box/d{number}")
        os.close(os.open(f"/tmp/f{number}", os.O_CREAT | os.O_WRONLY))
        made += 2
        if made % 1000 == 0:
            os.write(1, b"x")
except OSError as error:
    os.write(2, f"errno {error.errno}".encode())
