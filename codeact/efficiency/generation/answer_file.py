"""Answers of models as they come: each survives the process, and the file ends in one order."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from codeact.errors import InputError
from codeact.files import read_jsonl, write_jsonl

_COLUMNS = {"task_id": str, "origin": str, "sample": int, "key": str, "response": str}


class Wanted(NamedTuple):
    """One answer to be had, and a hash of everything that it depends on."""

    task_id: str
    origin: str
    sample: int
    key: str

    @property
    def name(self) -> tuple[str, str, int]:
        """What no other answer of a file is called."""
        return self.task_id, self.origin, self.sample


class AnswerFile:
    """One JSON line for each of ``wanted``, in their order once all is done.

    Until then every answer is appended to ``OUTPUT.part`` and forced to the disk. A process that
    was killed leaves at most half a line there, which is dropped; all others are taken over.

    Args:
        output: The file (``.jsonl``). Answers in it are taken over too.
        wanted: All that shall be in it.
        resume: False leaves aside what is there; it is replaced at the end.

    Raises:
        InputError: what is there holds an answer that is not wanted, one to another question or of
            other settings, or a line that is no answer; or another process is writing to it.
    """

    def __init__(self, output: Path, wanted: Sequence[Wanted], *, resume: bool = True) -> None:
        self.output = output
        self._part = output.with_name(output.name + ".part")
        self._wanted = list(wanted)
        self._rows: dict[tuple[str, str, int], dict[str, Any]] = {}
        self._stream: IO[str] | None = None
        if resume:
            self._take_over()
        else:
            self._locked("w").close()
            self._part.unlink()

    def missing(self) -> list[Wanted]:
        """What is not there yet, in order."""
        return [each for each in self._wanted if each.name not in self._rows]

    def add(self, row: dict[str, Any]) -> None:
        """Keep one answer: ``task_id``, ``origin``, ``sample``, ``key``, and what else is known."""
        if self._stream is None:
            self._stream = self._locked("a")
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        self._stream.write(line + "\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._rows[_name(row)] = row

    def finish(self) -> None:
        """Write what there is to the output in order, atomically, and drop the part."""
        if self._stream is not None or self._part.exists():
            there = (self._rows.get(each.name) for each in self._wanted)
            write_jsonl(self.output, (row for row in there if row is not None))
            self._part.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the part; another process may go on with it."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _take_over(self) -> None:
        keys = {each.name: each.key for each in self._wanted}
        if self._part.exists():
            with self._locked("r+b") as part:
                content = part.read()
                part.truncate(content.rfind(b"\n") + 1)  # a torn last line was never an answer
        for path in (self.output, self._part):
            for row in read_jsonl(path) if path.exists() else ():
                self._check(row, keys, path)
                self._rows[_name(row)] = row

    def _check(
        self, row: dict[str, Any], keys: dict[tuple[str, str, int], str], path: Path
    ) -> None:
        advice = f"choose another --output, or replace {self.output} with --no-resume"
        if any(type(row.get(column)) is not kind for column, kind in _COLUMNS.items()):
            raise InputError(f"{path} holds rows that codeact generate has not written; {advice}")
        task_id, origin, sample = name = _name(row)
        which = f"{path} holds answer {sample} of {origin} to {task_id}"
        if name not in keys:
            raise InputError(f"{which}, for which recipe and tasks do not ask; {advice}")
        if row["key"] != keys[name]:
            raise InputError(f"{which}, of other settings or another prompt; {advice}")

    def _locked(self, mode: str) -> IO[Any]:
        text = "b" not in mode
        stream = self._part.open(
            mode, encoding="utf-8" if text else None, newline="\n" if text else None
        )
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            raise InputError(f"another process is writing to {self._part}") from None
        return stream


def _name(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["task_id"], row["origin"], row["sample"]
