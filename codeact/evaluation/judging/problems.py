"""The problems of HumanEval+ and MBPP+, with expected answers from their canonical solutions."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeact.errors import InputError
from codeact.evaluation.judging.reference_answers import (
    ReferenceRun,
    read_stored,
    run_reference,
    stored_path,
)
from codeact.sandbox.limits import Limits
from codeact.sandbox.programs.languages import language_of
from codeact.sandbox.tests import FunctionTests
from codeact.tasks.evalplus_tasks import read_plus_row
from codeact.tasks.literals import UnreadableTestError

if TYPE_CHECKING:
    from codeact.sandbox.sandbox import Sandbox

BENCHMARKS: tuple[str, ...] = ("humaneval", "mbpp")

_STEMS = {"humaneval": "HumanEvalPlus", "mbpp": "MbppPlus"}
_ID_PREFIXES = {"humaneval": "HumanEval/", "mbpp": "Mbpp/"}
_OVERRIDES = {"humaneval": "HUMANEVAL_OVERRIDE_PATH", "mbpp": "MBPP_OVERRIDE_PATH"}
_COLUMNS = ("task_id", "prompt", "entry_point", "canonical_solution", "base_input", "plus_input")

# EvalPlus gives each call four times the reference's time by the clock, at least 1 s, and all
# calls together at most 60 s. We give the run of all calls CPU time: on a busy machine waiting for
# a core costs nothing.
_TIME_FACTOR, _MIN_CPU_SECONDS = 4.0, 10.0
_WALL_FACTOR = 4.0  # of the CPU limit, for programs that sleep and machines that are busy
_MEMORY_FACTOR, _MAX_MEMORY_BYTES = 3, 4 * 2**30  # EvalPlus allows 4 GiB to each
_ANSWER_FACTOR = 4
_OUTPUT_BYTES = 16 * 2**20  # a thousand calls may each print: EvalPlus drops what they print


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        benchmark: ``"humaneval"`` or ``"mbpp"``.
        task_id: As its source names it: ``"HumanEval/0"``, ``"Mbpp/2"``.
        prompt: What a model is given: a function's head (HumanEval) or a docstring (MBPP).
        entry_point: The function that the tests call.
        tests: All calls, the benchmark's own first. No prelude: as for EvalPlus, an answer is a
            complete program that brings its own imports.
        num_base: How many of the calls are the benchmark's own.
        limits: Of one run of all calls: CPU time max(10 s, 4 x the reference's CPU time), four
            times as much by the clock, memory 3 x the reference's between 1 and 4 GiB.
        reference: The canonical solution, a complete program.
    """

    benchmark: str
    task_id: str
    prompt: str
    entry_point: str
    tests: FunctionTests
    num_base: int
    limits: Limits
    reference: str


def find_problems(benchmark: str, source: str | Path | None = None) -> Path:
    """The file of a benchmark.

    Args:
        benchmark: ``"humaneval"`` or ``"mbpp"``.
        source: A file; or a folder with ``HumanEvalPlus*.jsonl`` or ``MbppPlus*.jsonl``, plain or
            ``.gz``, of which the newest version counts. None looks where EvalPlus does, at
            ``HUMANEVAL_OVERRIDE_PATH`` or ``MBPP_OVERRIDE_PATH`` and in its cache folder, then in
            ``$CODEACT_DATA/bench``.

    Raises:
        InputError: There is no such file.
    """
    if benchmark not in _STEMS:
        raise InputError(f"benchmark must be one of {', '.join(BENCHMARKS)}, got {benchmark!r}")
    if source is not None:
        return _file_at(benchmark, Path(source).expanduser(), "the benchmark's file or folder")
    override = os.environ.get(_OVERRIDES[benchmark])
    if override:
        return _file_at(benchmark, Path(override), _OVERRIDES[benchmark])
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folders = [Path(cache) / "evalplus"]
    if data := os.environ.get("CODEACT_DATA"):
        folders.append(Path(data) / "bench")
    for folder in folders:
        if (found := _newest(benchmark, folder)) is not None:
            return found
    raise InputError(
        f"{_STEMS[benchmark]}*.jsonl: not found in {', '.join(map(str, folders))}; "
        f"name its folder, or set {_OVERRIDES[benchmark]} to the file"
    )


def load_problems(
    benchmark: str,
    source: str | Path | None,
    sandbox: Sandbox,
    *,
    task_ids: Collection[str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Problem, ...]:
    """The problems of a benchmark, in the order of its file.

    Canonical solutions run in the sandbox where their answers are not stored yet, a minute or two
    for each benchmark, once.

    Args:
        benchmark: ``"humaneval"`` or ``"mbpp"``.
        source: See :func:`find_problems`.
        sandbox: Where canonical solutions run, ``sandbox.workers`` at a time.
        task_ids: Only these; None takes all.
        on_progress: Called with how many problems are ready and how many there are.

    Raises:
        InputError: The file is not there or is no such benchmark, a task is not in it, or a
            canonical solution does not answer its inputs.
    """
    path = find_problems(benchmark, source)
    rows = _rows(benchmark, path)
    if task_ids is not None:
        if unknown := sorted(set(task_ids) - rows.keys()):
            raise InputError(f"task_ids must be of {path}, got {', '.join(unknown[:3])}")
        rows = {task_id: rows[task_id] for task_id in rows if task_id in task_ids}
    ready: dict[str, Problem] = {}
    with ThreadPoolExecutor(sandbox.workers) as pool:
        pending = {
            pool.submit(_problem, benchmark, task_id, line, row, path, sandbox): task_id
            for task_id, (line, row) in rows.items()
        }
        try:
            for future in as_completed(pending):
                ready[pending[future]] = future.result()
                if on_progress is not None:
                    on_progress(len(ready), len(rows))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return tuple(ready[task_id] for task_id in rows)


def _problem(
    benchmark: str, task_id: str, line: bytes, row: Any, path: Path, sandbox: Sandbox
) -> Problem:
    try:
        read = read_plus_row(row, task_id, f"{path}: {task_id}")
        if not read.num_base:  # then every answer would pass them
            raise UnreadableTestError("base_input is empty")
        stored = stored_path(line)
        run = read_stored(stored, len(read.calls)) or run_reference(read, sandbox, stored)
    except UnreadableTestError as error:
        raise InputError(f"{path}: {task_id}: {error}") from None
    return Problem(
        benchmark,
        task_id,
        read.prompt,
        read.entry_point,
        read.tests(run.expected),
        read.num_base,
        limits_of(run),
        read.reference,
    )


def limits_of(run: ReferenceRun) -> Limits:
    """What an answer may use, from what the canonical solution used (see :class:`Problem`)."""
    plain = language_of("python").limits
    cpu_seconds = max(_MIN_CPU_SECONDS, _TIME_FACTOR * run.cpu_seconds)
    memory_bytes = min(_MEMORY_FACTOR * run.peak_memory_bytes, _MAX_MEMORY_BYTES)
    return replace(
        plain,
        cpu_seconds=cpu_seconds,
        wall_seconds=_WALL_FACTOR * cpu_seconds,
        memory_bytes=max(plain.memory_bytes, memory_bytes),
        answer_bytes=max(plain.answer_bytes, _ANSWER_FACTOR * run.answer_bytes),
        output_bytes=_OUTPUT_BYTES,
    )


def _file_at(benchmark: str, path: Path, origin: str) -> Path:
    if path.is_file():
        return path
    if path.is_dir() and (found := _newest(benchmark, path)) is not None:
        return found
    wanted = f"no {_STEMS[benchmark]}*.jsonl in it" if path.is_dir() else "not found"
    raise InputError(f"{origin}: {path}: {wanted}")


def _newest(benchmark: str, folder: Path) -> Path | None:
    """The file with the highest version; plain before compressed."""
    pattern = re.compile(rf"{_STEMS[benchmark]}(?:-v(?P<version>\d+(?:\.\d+)*))?\.jsonl(?:\.gz)?")
    versions = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if found := pattern.fullmatch(path.name):
            numbers = [int(number) for number in (found["version"] or "0").split(".")]
            versions.append((numbers, path.suffix != ".gz", path))
    return max(versions)[2] if versions else None


def _rows(benchmark: str, path: Path) -> dict[str, tuple[bytes, Any]]:
    """The line and the object of each row, by task id."""
    rows: dict[str, tuple[bytes, Any]] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        place = f"{path}: line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place}: no JSON ({error})") from None
        missing = [name for name in _COLUMNS if not isinstance(row, dict) or name not in row]
        if missing:
            raise InputError(f"{place}: a problem of EvalPlus needs {', '.join(missing)}")
        task_id = row["task_id"]
        if not isinstance(task_id, str) or not task_id.startswith(_ID_PREFIXES[benchmark]):
            wanted = _ID_PREFIXES[benchmark]
            raise InputError(f"{place}: task_id must begin with {wanted}, got {task_id!r}")
        if task_id in rows:
            raise InputError(f"{place}: task ids must be unique, {task_id} comes twice")
        rows[task_id] = (line, row)
    if not rows:
        raise InputError(f"{path}: the file is empty, at least one problem is needed")
    return rows


def _lines(path: Path) -> Iterable[bytes]:
    data = path.read_bytes()
    if path.suffix != ".gz":
        return data.split(b"\n")
    import gzip

    try:
        return gzip.decompress(data).split(b"\n")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a whole gzip file ({error})") from None
