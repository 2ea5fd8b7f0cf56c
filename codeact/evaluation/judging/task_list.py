"""Ids and version of a benchmark's file, read without answering any of its tests."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

from codeact.errors import InputError

_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class TaskList:
    """A benchmark's file.

    Attributes:
        benchmark: ``"humaneval"`` or ``"mbpp"``.
        path: Of the file.
        task_ids: In its order.
        md5: Of its uncompressed content, which is EvalPlus's name for the version of its data.
    """

    benchmark: str
    path: Path
    task_ids: tuple[str, ...]
    md5: str


def read_task_list(benchmark: str, path: Path) -> TaskList:
    """Read ``HumanEvalPlus*.jsonl[.gz]`` or ``MbppPlus*.jsonl[.gz]``.

    Raises:
        InputError: It cannot be read, or a line has no ``task_id``.
    """
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP_MAGIC):
            content = gzip.decompress(content)
        rows = [json.loads(line) for line in content.splitlines() if line.strip()]
        task_ids = tuple(str(row["task_id"]) for row in rows)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (EOFError, zlib.error, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path} is no file of tasks: a line has no task_id") from None
    if not task_ids:
        raise InputError(f"{path} must hold at least 1 task, got none")
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return TaskList(benchmark, path, task_ids, digest)
