"""Generated answers: one JSON line each in ``samples.jsonl``, appended as they come."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from codeact.errors import InputError
from codeact.files import read_jsonl

_COLUMNS: dict[str, type | tuple[type, ...]] = {
    "benchmark": str,
    "task_id": str,
    "sample": int,
    "response": str,
    "solution": str,
    "seconds": (int, float),
    "num_tokens": int,
    "finish": str,
}


@dataclass(frozen=True)
class Sample:
    """One answer of a model to one task of a benchmark.

    Attributes:
        benchmark: ``"humaneval"`` or ``"mbpp"``.
        task_id: As EvalPlus names it, ``"HumanEval/0"``.
        sample: From 0 to n-1.
        response: What the model wrote, as it came.
        solution: The program in it, complete: it runs alone. Empty where there is none.
        seconds: Wall time, beside others in a batch; 0 where it was not measured here.
        num_tokens: That were generated; 0 where nobody counted.
        finish: ``"stop"`` at the end of an answer, ``"length"`` where it was cut.
    """

    benchmark: str
    task_id: str
    sample: int
    response: str
    solution: str
    seconds: float
    num_tokens: int
    finish: Literal["stop", "length"]

    @property
    def name(self) -> tuple[str, str, int]:
        """What no other answer of an evaluation is called."""
        return self.benchmark, self.task_id, self.sample


class SampleFile:
    """``samples.jsonl``: every line is forced to the disk before the next answer is waited for.

    A process that was killed leaves at most half a line, which is dropped; all others are taken
    over. A second process that writes to the same file is refused.

    Args:
        path: The file; made when it is not there.
        wanted: Names of all answers that may be in it.

    Raises:
        InputError: a line is no answer, one that is not wanted, or one that was there before; or
            another process is writing.
    """

    def __init__(self, path: Path, wanted: Collection[tuple[str, str, int]]) -> None:
        self.path = path
        self.samples: dict[tuple[str, str, int], Sample] = {}
        self._stream: IO[bytes] = path.open("a+b")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._take_over(frozenset(wanted))
        except OSError:
            self.close()
            raise InputError(f"{path}: another process is writing to it") from None
        except InputError:
            self.close()
            raise

    def add(self, sample: Sample) -> None:
        """Keep one answer."""
        line = json.dumps(asdict(sample), ensure_ascii=False, allow_nan=False) + "\n"
        # Half of a surrogate pair is no UTF-8; what replaces it is JSON's escape of it.
        self._stream.write(line.encode(errors="backslashreplace"))
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self.samples[sample.name] = sample

    def close(self) -> None:
        """Let go of the file."""
        self._stream.close()

    def _take_over(self, wanted: frozenset[tuple[str, str, int]]) -> None:
        self._stream.seek(0)
        content = self._stream.read()
        self._stream.truncate(content.rfind(b"\n") + 1)  # a torn last line was never an answer
        for sample in read_samples(self.path):
            which = f"{self.path} holds sample {sample.sample} of {sample.task_id}"
            if sample.name in self.samples:
                raise InputError(f"{which} twice; --no-resume begins anew")
            if sample.name not in wanted:
                raise InputError(f"{which}, which is not asked for; --no-resume begins anew")
            self.samples[sample.name] = sample


def read_samples(path: Path) -> Iterable[Sample]:
    """The lines of a ``samples.jsonl``, in their order.

    Raises:
        InputError: a line is no answer as :class:`Sample` describes it.
    """
    for number, row in enumerate(read_jsonl(path), start=1):
        yield sample_from_row(row, f"{path} line {number}")


def sample_from_row(row: dict[str, Any], where: str) -> Sample:
    """One line of ``samples.jsonl``; InputError, beginning with ``where``, if it is none."""
    for column, kind in _COLUMNS.items():
        value = row.get(column)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{where}: {column} is missing or of another type, got {value!r:.40}")
    if row["finish"] not in ("stop", "length"):
        raise InputError(f"{where}: finish must be stop or length, got {row['finish']!r:.40}")
    if row["sample"] < 0:
        raise InputError(f"{where}: sample must be at least 0, got {row['sample']}")
    for column in ("seconds", "num_tokens"):
        if not 0 <= row[column] < math.inf:
            raise InputError(f"{where}: {column} must be at least 0, got {row[column]!r:.40}")
    return Sample(**{column: row[column] for column in _COLUMNS})
