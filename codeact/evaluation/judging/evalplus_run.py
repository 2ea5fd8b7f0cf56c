"""EvalPlus as it is installed, unmodified, as one program in the sandbox."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from codeact.errors import InputError
from codeact.evaluation.judging.evalplus_files import (
    TESTED_VERSION,
    EvalPlusFailed,
    EvalPlusVerdict,
    Installation,
    data_of,
    find_evalplus,
    samples_of,
    verdicts_of,
)
from codeact.files import replacing
from codeact.sandbox import Limits, Run, Sandbox
from codeact.sandbox.programs.languages import MissingCompiler, find_toolchain, python_command

_OVERRIDES = {"humaneval": "HUMANEVAL_OVERRIDE_PATH", "mbpp": "MBPP_OVERRIDE_PATH"}
_INPUTS = "/opt/evalplus-inputs"
_SITE = "/opt/site-packages"
_DATA, _SAMPLES = "data.jsonl", "samples.jsonl"
_LAST_WORDS = 1500
_MIB, _GIB = 2**20, 2**30
_log = logging.getLogger(__name__)

# ``python -m evalplus.evaluate`` and its results file as one answer frame. Its samples are a link,
# because it writes beside them. Two things differ from ``-m``: an error ends the process at once,
# where a thread of EvalPlus's would wait for ever for the samples that are left (and 20 s at a
# good end); and what it forks, the answers' processes, has no way to the frames.
_DRIVER = """\
import os, runpy, struct, sys, traceback
os.symlink(sys.argv[1], "samples.jsonl")
sys.argv = ["evalplus.evaluate", "--samples", "samples.jsonl", *sys.argv[2:]]
os.register_at_fork(after_in_child=lambda: os.closerange(3, 5))
code = 1
try:
    runpy.run_module("evalplus.evaluate", run_name="__main__", alter_sys=True)
    with open("samples_eval_results.json", "rb") as file:
        content = file.read()
    with open(4, "wb") as frames:
        frames.write(struct.pack("<I", len(content)) + content)
    code = 0
except BaseException:
    traceback.print_exc()
finally:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
"""


def run_evalplus(
    benchmark: str,
    data: Path,
    solutions: Mapping[str, Sequence[str]],
    *,
    folder: Path,
    workers: int,
    min_time_limit: float = 5.0,
) -> dict[tuple[str, int], EvalPlusVerdict]:
    """EvalPlus's own verdicts on complete programs.

    The whole of EvalPlus runs in the sandbox: no network, the data (by its override variable), the
    answers and the installed packages read-only, everything it writes in memory and gone at the
    end. That protects this machine, not the verdict: EvalPlus judges an answer in the process that
    runs it, so that an answer can forge its pass. Our own check stands beside it.

    Written to ``folder``: ``{benchmark}_samples.jsonl`` and
    ``{benchmark}_samples_eval_results.json`` as EvalPlus names and writes them, and
    ``{benchmark}.log``, its output. Older ones are never read: EvalPlus reuses what it finds.

    Args:
        benchmark: ``"humaneval"`` or ``"mbpp"``.
        data: ``HumanEvalPlus*.jsonl`` or ``MbppPlus*.jsonl``, ``.gz`` or not.
        solutions: task id -> complete programs, at least one. Tasks that are not there are not run.
        folder: for the raw files; made when it is not there.
        workers: answers that are judged at a time (EvalPlus's ``--parallel``).
        min_time_limit: shortest time limit of a test, in seconds. EvalPlus's default is 1, which a
            loaded machine turns into failures of right programs (HumanEval/15, Mbpp/255, 392,
            583, 599, 630 flip from run to run); its limit is the larger of this and 4 times the
            time of the reference.

    Returns:
        (task id, number of the answer) -> verdict.

    Raises:
        InputError: no such benchmark, no answers, or the data is broken or lacks a task.
        ImportError: evalplus is not installed; with the command.
        EvalPlusFailed: it crashed or passed a limit; with its last words.
        SandboxUnavailable: no sandbox of bubblewrap holds on this machine.
    """
    _check(benchmark, solutions, workers, min_time_limit)
    installation = find_evalplus()
    if installation.version != TESTED_VERSION:
        _log.warning("evalplus %s: %s is what we test", installation.version, TESTED_VERSION)
    inputs = {_DATA: data_of(data, list(solutions)), _SAMPLES: samples_of(solutions)}
    samples_file = folder / f"{benchmark}_samples.jsonl"
    results_file = folder / f"{benchmark}_samples_eval_results.json"
    results_file.unlink(missing_ok=True)  # of another run
    _write(samples_file, inputs[_SAMPLES])
    limits = evalplus_limits(solutions, workers=workers, min_time_limit=min_time_limit)
    options = [f"--dataset={benchmark}", f"--parallel={workers}"]
    options += [f"--min-time-limit={min_time_limit}"]
    run = _run(inputs, options, _OVERRIDES[benchmark], installation, limits)
    _write(folder / f"{benchmark}.log", run.stdout + b"\n" + run.stderr)
    if run.outcome != "exited" or run.exit_code != 0 or len(run.frames) != 1:
        raise EvalPlusFailed(_why(run, limits))
    _write(results_file, run.frames[0])
    return verdicts_of(run.frames[0], solutions)


def _check(
    benchmark: str, solutions: Mapping[str, Sequence[str]], workers: int, min_time_limit: float
) -> None:
    if benchmark not in _OVERRIDES:
        raise InputError(f"benchmark must be one of {', '.join(_OVERRIDES)}, got {benchmark!r}")
    if workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    if not math.isfinite(min_time_limit) or min_time_limit <= 0:
        raise InputError(f"min_time_limit must be seconds above 0, got {min_time_limit}")
    for task_id, programs in solutions.items():
        if isinstance(programs, str) or not programs:
            raise InputError(f"solutions must hold a list of programs a task, not so {task_id!r}")
    if not solutions:
        raise InputError("solutions must hold at least one task, got none")


def evalplus_limits(
    solutions: Mapping[str, Sequence[str]], *, workers: int, min_time_limit: float
) -> Limits:
    """Room and time for one run; generous, since they are there for a run that hangs.

    Time: 5 min, 5 s a task for the references (measured: 0.1 to 0.4 s each, four times that beside
    other work), and an answer in an endless loop meets its limit once in the base and once in the
    plus tests. Memory: EvalPlus's table of expected answers is held in the process, as a file in
    memory (255 MB for HumanEval+, 793 MB for MBPP+) and, page by page as it is touched, in each
    worker: MBPP+ with two workers peaked at 5.7 GiB. An answer may use 4 GiB of address space.
    Never more than four fifths of this machine's.
    """
    num_samples = sum(map(len, solutions.values()))
    num_bytes = sum(len(program) for programs in solutions.values() for program in programs)
    wall = 300.0 + 5.0 * len(solutions)
    wall += math.ceil(num_samples / workers) * (10.0 + 2.0 * min_time_limit)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Limits(
        wall_seconds=wall,
        cpu_seconds=wall * (workers + 1),
        memory_bytes=min(4 * _GIB + workers * 4 * _GIB, machine * 4 // 5),
        output_bytes=64 * _MIB,
        # A failed answer stands there with the input it failed, at most 0.2 MB in both benchmarks.
        answer_bytes=min(3 * _GIB, 64 * _MIB + 6 * num_bytes + num_samples * _MIB // 2),
        file_bytes=2 * _GIB,
        box_bytes=3 * _GIB,
        shared_memory_bytes=256 * _MIB,
        processes=64 + 16 * workers,
        open_files=1024,
        stack_bytes=0,  # EvalPlus sets 4 GiB for an answer, and may not raise a limit of ours
    )


def _run(
    inputs: Mapping[str, bytes],
    options: Sequence[str],
    override: str,
    installation: Installation,
    limits: Limits,
) -> Run:
    toolchain = find_toolchain("python")
    if isinstance(toolchain, MissingCompiler):
        raise EvalPlusFailed(f"no Python to run EvalPlus with: {toolchain.reason}")
    sites = [(path, f"{_SITE}-{number}") for number, path in enumerate(installation.folders)]
    with tempfile.TemporaryDirectory(prefix="codeact-evalplus-") as name:
        place = Path(name)
        place.chmod(0o755)  # the sandbox may run as another user
        for file, content in inputs.items():
            (place / file).write_bytes(content)
            (place / file).chmod(0o644)
        with Sandbox(shown=[*installation.folders, place]) as sandbox:
            return sandbox.run(
                [*python_command(toolchain), "-c", _DRIVER, f"{_INPUTS}/{_SAMPLES}", *options],
                mounts=[*toolchain.mounts, *sites, (place, _INPUTS)],
                limits=limits,
                many_cores=True,
                environment={
                    **toolchain.environment,
                    override: f"{_INPUTS}/{_DATA}",
                    "PYTHONPATH": ":".join(inside for _, inside in sites),
                    "XDG_CACHE_HOME": "/box/.cache",  # the expected answers: up to 793 MB
                    "TMPDIR": "/box",
                    "HF_HUB_OFFLINE": "1",
                },
            )


def _why(run: Run, limits: Limits) -> str:
    ended = f"ended with status {run.exit_code}"
    how = {
        "exited": ended if run.exit_code else f"gave {len(run.frames)} results",
        "signalled": f"was killed by signal {run.signal}",
        "wall_limit": f"was not done after {limits.wall_seconds:.0f} s",
        "cpu_limit": f"was not done after {limits.cpu_seconds:.0f} s of CPU time",
        "memory_limit": f"needed more than {limits.memory_bytes / _GIB:.1f} GiB of memory "
        "(fewer workers need less)",
        "output_limit": "wrote more than it may",
        "failed": "did not start",
    }[run.outcome]
    # An answer may have written there too: nothing that a terminal would obey.
    said = run.stderr[-_LAST_WORDS:].decode("utf-8", "replace").replace("\r", "\n")
    words = "".join(letter for letter in said if letter.isprintable() or letter == "\n").strip()
    return f"EvalPlus {how}; its last words: {words or 'none'}"


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
