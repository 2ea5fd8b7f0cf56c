"""Instructions that a program executes: a count that hardly varies, to break ties of time.

Counted by valgrind's cachegrind with the cache simulation off, which needs no privilege and no
hardware counter. It spreads by 0.005 % where CPU time spreads by 2 %, at 50 to 90 times the time.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from codeact.sandbox.execute import Measured, execute
from codeact.sandbox.limits import Limits
from codeact.sandbox.programs.compilation import prepare
from codeact.sandbox.programs.languages import language_of
from codeact.sandbox.programs.program import Program
from codeact.sandbox.run import Run
from codeact.sandbox.tests import StdinTests, Tests
from codeact.sandbox.verdict import Verdict

if TYPE_CHECKING:
    from codeact.sandbox.sandbox import Sandbox

_SLOWDOWN = 100
_MAX_SECONDS = 600.0
_VALGRIND_BYTES = 1024 * 2**20  # translations and tables of its own
# The last thing a process under valgrind writes. With one process allowed nothing comes after it.
_COUNT = re.compile(rb"==\d+== I\s+refs:\s+([\d,]+)\s*\Z")
_ONE_PROCESS = Measured(sample_seconds=0.0)
_NO_INPUT = StdinTests(("",), ("",))

_baselines: dict[int, tuple[Tests, dict[str, int | None]]] = {}
_MAX_BASELINES = 64
_lock = threading.Lock()


def find_valgrind() -> str | None:
    """Valgrind's path inside a sandbox; None if it is not installed below ``/usr``."""
    found = shutil.which("valgrind") or shutil.which("valgrind", path="/usr/bin:/usr/local/bin")
    path = str(Path(found).resolve()) if found else ""
    return path if path.startswith("/usr/") else None


def why_not_counted(language: str) -> str | None:
    """Why instructions of this language's programs are not counted here; None if they are."""
    entry = language_of(language)
    if not entry.is_counted:
        return f"{entry.name} compiles or schedules at run time: a count would mean nothing"
    return None if find_valgrind() else "no valgrind below /usr: install valgrind"


def instruction_count(
    sandbox: Sandbox, program: Program, tests: Tests, *, limits: Limits | None = None
) -> int | None:
    """Instructions of a program on its tests, less those of the empty program on the same tests.

    One run of every test: I(program) - I(baseline), user space only. For Python the count is the
    interpreter's, with a fixed hash seed. A program that replaces itself by another (``exec``) can
    fake the line that the count is read from; it decides no verdict, only ties.

    Args:
        sandbox: Where valgrind runs.
        program: A right one: a run whose answers are not all right is not counted.
        tests: Its tests.
        limits: Of the same program without valgrind; a hundred times the time, and a gigabyte
            more memory, are allowed.

    Returns:
        The count, at least 0; None if `why_not_counted` gives a reason, a limit was passed or an
        answer was wrong.
    """
    if why_not_counted(program.language) is not None:
        return None
    # Compiled now, not under valgrind.
    if isinstance(tests, StdinTests) and isinstance(prepare(sandbox, program), Verdict):
        return None
    count = _count(sandbox, program, tests, limits, baseline=False)
    if count is None:
        return None
    baseline = _baseline_count(sandbox, program.language, tests, limits)
    return None if baseline is None else max(count - baseline, 0)


def _baseline_count(
    sandbox: Sandbox, language: str, tests: Tests, limits: Limits | None
) -> int | None:
    """Instructions of the empty program; kept for the next candidates of the same tests.

    The empty program reads no input: one run of it stands for all inputs.
    """
    if isinstance(tests, StdinTests) and tests is not _NO_INPUT:
        once = _baseline_count(sandbox, language, _NO_INPUT, limits)
        return None if once is None else once * len(tests.inputs)
    with _lock:
        _, known = _baselines.get(id(tests), (tests, {}))
        if language in known:
            return known[language]
    empty = Program(language, language_of(language).empty_source)
    if isinstance(tests, StdinTests) and isinstance(prepare(sandbox, empty), Verdict):
        return None
    count = _count(sandbox, empty, tests, limits, baseline=True)
    with _lock:
        if len(_baselines) >= _MAX_BASELINES:
            _baselines.clear()
        # Holding the tests keeps their id theirs.
        _baselines.setdefault(id(tests), (tests, {}))[1][language] = count
    return count


def _count(
    sandbox: Sandbox, program: Program, tests: Tests, limits: Limits | None, *, baseline: bool
) -> int | None:
    """Sum over the runs of all tests; None if a run was not counted or not right."""
    counting = _CountingSandbox(sandbox)
    stretched = _stretched(limits or language_of(program.language).limits)
    execution = execute(
        cast("Sandbox", counting),  # all that `execute` asks of one is `run`
        program,
        tests,
        limits=stretched,
        measured=_ONE_PROCESS,
        baseline=baseline,
    )
    if not baseline and not execution.verdict.passed:
        return None
    counts = [_count_of(run) for run in execution.runs]
    return sum(cast(list[int], counts)) if counts and None not in counts else None


def _count_of(run: Run) -> int | None:
    found = _COUNT.search(run.stderr) if run.outcome == "exited" else None
    return int(found[1].replace(b",", b"")) if found else None


def _stretched(limits: Limits) -> Limits:
    return replace(
        limits,
        wall_seconds=min(limits.wall_seconds * _SLOWDOWN, _MAX_SECONDS),
        cpu_seconds=min(limits.cpu_seconds * _SLOWDOWN, _MAX_SECONDS),
        memory_bytes=limits.memory_bytes + _VALGRIND_BYTES,
        address_space_bytes=None,  # valgrind reserves far more than it uses
        open_files=max(limits.open_files, 256),
    )


class _CountingSandbox:
    """A sandbox in which every command runs under cachegrind."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def run(self, command: Sequence[str], **options: Any) -> Run:
        words = [
            find_valgrind() or "valgrind",
            "--tool=cachegrind",
            "--cache-sim=no",
            "--cachegrind-out-file=/dev/null",
            *command,
        ]
        return self._sandbox.run(words, **options)
