"""Programs that read standard input and write standard output, in any language of the table."""

from __future__ import annotations

import re
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

from codeact.sandbox.calls.compare import same_text
from codeact.sandbox.limits import Limits
from codeact.sandbox.programs.compilation import Prepared, prepare
from codeact.sandbox.programs.languages import language_of
from codeact.sandbox.programs.program import Program
from codeact.sandbox.run import Run
from codeact.sandbox.tests import Rule, StdinTests
from codeact.sandbox.verdict import Status, Verdict

if TYPE_CHECKING:
    from codeact.sandbox.execute import Execution, Measured
    from codeact.sandbox.sandbox import Sandbox

_EXCERPT_CHARS = 60
_TAIL_BYTES = 4096
_ERROR = re.compile(r"(Error|Exception)\b|panic")


def execute_stdin(
    sandbox: Sandbox,
    program: Program,
    tests: StdinTests,
    limits: Limits | None = None,
    repeats: int = 1,
    measured: Measured | None = None,
    baseline: bool = False,
) -> Execution:
    """Runs a program on every input, and compares each output on the host.

    Every input is a process of its own in a sandbox of its own, so that nothing can be kept from
    one to the next. Expected outputs never enter.

    Args:
        sandbox: Where it runs.
        program: Compiled first where its language asks for that; compiling is in no number.
        tests: Inputs and expected outputs.
        limits: Of each run; None takes the language's.
        repeats: Runs of each input, one after the other; every output is checked.
        measured: Pin, sample memory and allow no further process.
        baseline: Run the language's empty program instead, on the same inputs, and look at no
            output: what is left when it is taken off is the program's own work.

    Returns:
        The verdict and all runs, up to the first that is not right.
    """
    from codeact.sandbox.execute import Execution  # which calls this function

    if baseline:
        program = Program(program.language, language_of(program.language).empty_source)
    prepared = prepare(sandbox, program, limits=limits, measured=measured is not None)
    num_tests = len(tests.inputs)
    if isinstance(prepared, Verdict):
        return Execution(replace(prepared, num_tests=num_tests), ())
    runs: list[Run] = []
    for test, (text, expected) in enumerate(zip(tests.inputs, tests.outputs, strict=True)):
        for _ in range(repeats):
            run = run_input(sandbox, prepared, text, measured=measured)
            runs.append(run)
            failure = judge(run, prepared, expected, tests.rule, look_at_output=not baseline)
            if failure is not None:
                status, reason = failure
                return Execution(Verdict(status, reason, num_tests, test, test), tuple(runs))
    return Execution(Verdict("passed", "", num_tests, num_tests, None), tuple(runs))


def run_input(
    sandbox: Sandbox, prepared: Prepared, text: str, *, measured: Measured | None = None
) -> Run:
    """One run of a prepared program with ``text`` on standard input."""
    return sandbox.run(
        prepared.command,
        mounts=prepared.mounts,
        environment=prepared.environment,
        limits=prepared.limits,
        stdin=text.encode("utf-8", "surrogatepass"),
        core=measured.core if measured else None,
        sample_seconds=measured.sample_seconds if measured else 0.0,
        single_process=measured is not None,
    )


def judge(
    run: Run, prepared: Prepared, expected: str, rule: Rule, *, look_at_output: bool = True
) -> tuple[Status, str] | None:
    """Status and reason of a run that did not answer rightly, None if it did.

    Exit status 0 alone proves nothing, and what stands on standard error harms nobody. A refused
    allocation is recognised by the runtime's words, which a candidate can fake: a failure then
    goes by another name, never by "passed".
    """
    limits = prepared.limits
    if run.outcome == "failed":
        return "sandbox_error", _last_line(run.stderr) or "the sandbox did not start"
    if run.outcome == "wall_limit":
        return "time_limit", f"ran longer than {limits.wall_seconds:g} s"
    if run.outcome == "cpu_limit":
        return "time_limit", f"took more than {limits.cpu_seconds:g} s of CPU time"
    if run.outcome == "memory_limit":
        return "memory_limit", f"took more than {limits.memory_bytes >> 20} MiB of memory"
    if run.outcome == "output_limit":
        return "output_limit", f"wrote more than {limits.output_bytes} bytes"
    if run.outcome == "signalled" or run.exit_code != 0:
        return _ended_badly(run, prepared)
    if not look_at_output or same_text(expected, run.stdout, rule):
        return None
    output = run.stdout.decode("utf-8", "replace")
    if not output.strip():
        return "missing_answer", "nothing on standard output"
    return "wrong_answer", f"expected {_excerpt(expected)}, got {_excerpt(output)}"


def _ended_badly(run: Run, prepared: Prepared) -> tuple[Status, str]:
    tail = run.stderr[-_TAIL_BYTES:].decode("utf-8", "replace")
    words = next((word for word in prepared.language.memory_words if word in tail), None)
    if words is not None:
        size = prepared.limits.memory_bytes >> 20
        return "memory_limit", f"refused memory ({words}) with a limit of {size} MiB"
    name = f"exit status {run.exit_code}"
    if run.outcome == "signalled":
        name = f"ended by {_signal_name(run.signal)}"
    said = _last_line(run.stderr)
    return "crashed" if run.outcome == "signalled" else "raised", f"{name}: {said}".rstrip(": ")


def _signal_name(number: int | None) -> str:
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"


def _last_line(stderr: bytes) -> str:
    """The last line that names an error, else the last one: traces go up in some languages."""
    lines = stderr[-_TAIL_BYTES:].decode("utf-8", "replace").splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    named = [line for line in lines if _ERROR.search(line)]
    return (named or lines or [""])[-1]


def _excerpt(text: str) -> str:
    short = text.strip()
    return repr(short if len(short) <= _EXCERPT_CHARS else short[:_EXCERPT_CHARS] + "...")
