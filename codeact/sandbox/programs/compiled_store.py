"""Compiled programs on the host's disk: found by content, bounded in size, never run here."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path

MAX_BYTES = 2 * 2**30
YOUNG_SECONDS = 3600.0  # a program found or stored within the last hour may be about to run
_FILES_BETWEEN_TRIMS = 1000

_lock = threading.Lock()
_since_trim: dict[Path, tuple[int, int]] = {}  # folder -> bytes and files stored since


def find(folder: Path, key: str) -> Path | None:
    """The compiled program stored under ``key``, used now; None if there is none."""
    path = folder / key
    try:
        os.utime(path)
    except FileNotFoundError:
        return None
    except PermissionError:  # another user's cache, read-only
        pass
    return path if path.is_file() else None


def store(folder: Path, key: str, content: bytes) -> Path:
    """Writes a compiled program, whole or not at all, and keeps the folder below its cap.

    The file can be read and executed by anyone, as the sandbox runs it under another user. The
    folder is looked through after every thousand files or sixteenth of the cap.
    """
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o555)
        os.replace(temporary, folder / key)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    with _lock:
        num_bytes, num_files = _since_trim.get(folder, (MAX_BYTES, 0))  # first: look at once
        num_bytes, num_files = num_bytes + len(content), num_files + 1
        is_due = num_bytes > MAX_BYTES // 16 or num_files >= _FILES_BETWEEN_TRIMS
        _since_trim[folder] = (0, 0) if is_due else (num_bytes, num_files)
    if is_due:
        trim(folder)
    return folder / key


def trim(
    folder: Path, *, max_bytes: int = MAX_BYTES, young_seconds: float = YOUNG_SECONDS
) -> list[str]:
    """Removes the programs unused for longest until the rest fits in ``max_bytes``.

    Those used in the last ``young_seconds`` stay even then. Returns the names that went.
    """
    entries = []
    for entry in os.scandir(folder):
        try:
            about = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # another process trims too
            continue
        entries.append((about.st_mtime, about.st_size, entry.name))
    total = sum(size for _, size, _ in entries)
    oldest_kept = time.time() - young_seconds
    removed = []
    for used, size, name in sorted(entries):
        if total <= max_bytes or used >= oldest_kept:
            break
        (folder / name).unlink(missing_ok=True)
        total -= size
        removed.append(name)
    return removed
