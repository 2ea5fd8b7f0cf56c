"""What goes into a run of EvalPlus, and reading what comes out of it."""

from __future__ import annotations

import gzip
import importlib.metadata
import importlib.util
import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codeact.errors import InputError

TESTED_VERSION = "0.3.1"
INSTALL = (
    f"pip install --no-deps evalplus=={TESTED_VERSION} && pip install appdirs fire "
    "multipledispatch psutil rich tempdir termcolor tree-sitter tree-sitter-python wget"
)
STATUSES = ("pass", "fail", "timeout")  # evalplus.eval: PASS, FAIL, TIMEOUT
_SITE_FOLDERS = ("site-packages", "dist-packages")
_GZIP_MAGIC = b"\x1f\x8b"


class EvalPlusFailed(RuntimeError):  # noqa: N818 - what happened, like SandboxUnavailable
    """EvalPlus gave no verdicts: it crashed, ran out of time or of memory. Ends in its own words.

    Says nothing of the answers: our own verdicts stand.
    """


@dataclass(frozen=True)
class EvalPlusVerdict:
    """What EvalPlus said of one answer; each ``"pass"``, ``"fail"`` or ``"timeout"``.

    Attributes:
        base: on the benchmark's own tests.
        plus: on the tests that EvalPlus adds, alone: an answer passes HumanEval+ or MBPP+ where
            both are ``"pass"``.
    """

    base: str
    plus: str


@dataclass(frozen=True)
class Installation:
    """EvalPlus as it is installed here.

    Attributes:
        version: its own.
        folders: the folders of packages of this interpreter, in the order of ``sys.path``.
    """

    version: str
    folders: tuple[Path, ...]


def find_evalplus() -> Installation:
    """Where EvalPlus and what it imports are; nothing of it is imported.

    Raises:
        ImportError: it is not installed; with the command.
    """
    spec = importlib.util.find_spec("evalplus")
    if spec is None or spec.origin is None:
        raise ImportError(f"evalplus is not installed: {INSTALL}")
    own = Path(spec.origin).resolve().parent.parent
    entries = [Path(entry).resolve() for entry in sys.path if entry]
    folders = [path for path in entries if path.name in _SITE_FOLDERS and path.is_dir()]
    if own not in folders:  # installed with --target, say
        folders.insert(0, own)
    return Installation(importlib.metadata.version("evalplus"), tuple(dict.fromkeys(folders)))


def data_of(data: Path, task_ids: Sequence[str]) -> bytes:
    """The lines of EvalPlus's data file for these tasks, uncompressed.

    Uncompressed, because EvalPlus names its caches and results by the md5 of the file as it is:
    that of a ``.gz`` is no version of the data. All tasks give the file's own bytes, and so the
    official hash.

    Args:
        data: ``HumanEvalPlus*.jsonl`` or ``MbppPlus*.jsonl``, gzip-compressed or not.
        task_ids: EvalPlus wants answers to exactly the tasks of its data.

    Raises:
        InputError: the file is broken or lacks a task.
    """
    try:
        content = data.read_bytes()
        if content.startswith(_GZIP_MAGIC):
            content = gzip.decompress(content)
        lines = {json.loads(line)["task_id"]: line for line in content.split(b"\n") if line.strip()}
    except OSError as error:
        raise InputError(f"data must be a file of EvalPlus, got {data}: {error}") from None
    except (zlib.error, EOFError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"data must be a file of EvalPlus, {data} is broken: {error}") from None
    wanted = set(task_ids)
    if unknown := sorted(wanted - lines.keys()):
        raise InputError(f"solutions must be of tasks in {data.name}, got {unknown[0]!r}")
    if wanted == lines.keys():
        return content
    return b"".join(line + b"\n" for task_id, line in lines.items() if task_id in wanted)


def samples_of(solutions: Mapping[str, Sequence[str]]) -> bytes:
    """EvalPlus's samples file: complete programs, task by task, in the order of their numbers."""
    rows = (
        {"task_id": task_id, "solution": solution}
        for task_id, programs in solutions.items()
        for solution in programs
    )
    return "".join(json.dumps(row) + "\n" for row in rows).encode("ascii")


def verdicts_of(
    content: bytes, solutions: Mapping[str, Sequence[str]]
) -> dict[tuple[str, int], EvalPlusVerdict]:
    """(task id, number of the answer) -> verdict, from the text of EvalPlus's results file.

    The file comes out of the sandbox, where the answers ran as well: it is read as data that
    anybody may have written, and has to hold each answer as it was handed in, once.

    Raises:
        EvalPlusFailed: it does not.
    """
    try:
        results: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise EvalPlusFailed(f"the results of EvalPlus are no JSON: {error}") from None
    tasks = results.get("eval") if isinstance(results, dict) else None
    if not isinstance(tasks, dict) or tasks.keys() != solutions.keys():
        raise EvalPlusFailed("the results of EvalPlus are not of the tasks it was given")
    verdicts = {}
    for task_id, programs in solutions.items():
        rows = tasks[task_id]
        if not isinstance(rows, list) or len(rows) != len(programs):
            raise EvalPlusFailed(f"the results of EvalPlus lack answers to {task_id}")
        for sample, (row, program) in enumerate(zip(rows, programs, strict=True)):
            verdicts[task_id, sample] = _verdict_of(row, program, f"{task_id}, answer {sample}")
    return verdicts


def _verdict_of(row: object, program: str, where: str) -> EvalPlusVerdict:
    if not isinstance(row, dict) or row.get("solution") != program:
        raise EvalPlusFailed(f"the results of EvalPlus hold another program for {where}")
    base, plus = row.get("base_status"), row.get("plus_status")
    if base not in STATUSES or plus not in STATUSES:
        raise EvalPlusFailed(f"the results of EvalPlus hold no status for {where}")
    return EvalPlusVerdict(base, plus)
