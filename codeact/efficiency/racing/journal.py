"""What is finished, a line each, on the disk before it counts: a killed call goes on from there."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from codeact.errors import InputError

FORMAT = 1  # of the lines; part of the key


def journal_path(output: str | Path) -> Path:
    """Where the journal of a result file is: beside it, with ``.journal`` added to its name."""
    output = Path(output)
    return output.with_name(f"{output.name}.journal")


def key_of(*parts: Any) -> str:
    """SHA-256, in hexadecimal, of plain values and dataclasses, the same in every process.

    Sets and the keys of mappings are put in order first; types count (1, 1.0 and True differ).
    """
    digest = hashlib.sha256(f"codeact journal {FORMAT}".encode())
    for part in parts:
        digest.update(b"\0" + _canonical(part).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _canonical(value: Any) -> str:
    if is_dataclass(value) and not isinstance(value, type):
        named = {item.name: getattr(value, item.name) for item in fields(value)}
        return f"{type(value).__name__}{_canonical(named)}"
    if isinstance(value, Mapping):
        pairs = sorted(f"{_canonical(key)}:{_canonical(item)}" for key, item in value.items())
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, Set):
        return f"{type(value).__name__}({','.join(sorted(map(_canonical, value)))})"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}[{','.join(map(_canonical, value))}]"
    return f"{type(value).__name__} {value!r}"


class Journal:
    """Lines of JSON that are appended and never changed.

    The first line holds the key: what every number depends on. Each further one is a finished
    unit, flushed to the disk (fsync) before :meth:`append` returns. A last line without its line
    end was being written when the process died; it is cut off.

    Args:
        path: The file, made when it is not there; None keeps the lines in memory alone.
        key: See :func:`key_of`.

    Attributes:
        rows: All lines but the first, in order.

    Raises:
        InputError: The file is of another key, broken before its last line, in use by another
            process, or cannot be written.
    """

    def __init__(self, path: str | Path | None, key: str) -> None:
        self.rows: list[dict[str, Any]] = []
        self.path = None if path is None else Path(path)
        self._file: IO[bytes] | None = None
        if self.path is None:
            return
        self._file = self._opened(self.path)
        try:
            self._resume(key)
        except BaseException:
            self.close()
            raise

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a finished unit; ``rows`` gets it as a reader of the file would."""
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        self._write(line)
        self.rows.append(json.loads(line))

    def close(self) -> None:
        """Closes the file and lets go of it; the lines stay."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _opened(self, path: Path) -> IO[bytes]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b")
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until closed, however that comes
        except BlockingIOError:
            file.close()
            raise InputError(f"{path} is in use by another process") from None
        _sync_folder(path.parent)
        return file

    def _resume(self, key: str) -> None:
        """Reads what is there, cuts off a torn line, writes the header of a new file."""
        assert self._file is not None
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        lines = content[:whole].splitlines()
        if not lines:
            self._write(json.dumps({"kind": "journal", "format": FORMAT, "key": key}))
            return
        rows = [self._parsed(line, number) for number, line in enumerate(lines, start=1)]
        if rows[0].get("kind") != "journal":
            raise InputError(f"{self.path} line 1 must be the header of a journal; move it away")
        if rows[0].get("key") != key:
            raise InputError(
                f"{self.path} was begun with other tasks, candidates, options or on another host; "
                "delete it to start anew, or write to another output"
            )
        self.rows = rows[1:]

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        with contextlib.suppress(ValueError):  # of JSON and of UTF-8
            row = json.loads(line)
            if isinstance(row, dict):
                return row
        raise InputError(f"{self.path} line {number} is no JSON object; delete it to start anew")

    def _write(self, line: str) -> None:
        if self._file is None:
            return
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _sync_folder(folder: Path) -> None:
    """Puts the name of a new file on the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
