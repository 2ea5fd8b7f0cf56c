"""Run a program on its tests: the verdict and what every run used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from codeact.errors import InputError
from codeact.sandbox.calls import function_calls
from codeact.sandbox.calls.function_calls import BadTestError, EncodedTests, judge
from codeact.sandbox.limits import Limits
from codeact.sandbox.programs.languages import (
    MissingCompiler,
    find_toolchain,
    language_of,
    python_command,
)
from codeact.sandbox.programs.program import Program
from codeact.sandbox.run import Run
from codeact.sandbox.tests import Call, FunctionTests, Result, Rule, Tests
from codeact.sandbox.verdict import Status, Verdict

if TYPE_CHECKING:
    from codeact.sandbox.sandbox import Sandbox

_DRIVER = "driver.pyc"
_MEASURED_BOX_BYTES = 2**20
_MAYBE_OURS = ("NameError", "TypeError", "AttributeError")
_ANY_RULE = Rule()
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


@dataclass(frozen=True)
class Measured:
    """A run whose time and memory count: one process, one thread, memory sampled.

    Args:
        core: The candidate runs on this core alone, its sampler elsewhere; None pins nothing.
        sample_seconds: Between two samples of resident memory.
    """

    core: int | None = None
    sample_seconds: float = 0.001


@dataclass(frozen=True)
class Execution:
    """A verdict and the runs behind it; costs are sums over the runs, the peak their maximum."""

    verdict: Verdict
    runs: tuple[Run, ...]

    @property
    def cpu_seconds(self) -> float:
        """User and system time of everything that ran."""
        return sum(run.cpu_seconds for run in self.runs)

    @property
    def wall_seconds(self) -> float:
        """Time by the clock."""
        return sum(run.wall_seconds for run in self.runs)

    @property
    def peak_memory_bytes(self) -> int:
        """Largest resident memory of any run; 0 if there was none."""
        return max((run.peak_memory_bytes for run in self.runs), default=0)

    @property
    def memory_byte_seconds(self) -> float:
        """Resident memory integrated over CPU time: our TMU."""
        return sum(run.memory_byte_seconds for run in self.runs)

    @property
    def memory_byte_wall_seconds(self) -> float:
        """Resident memory integrated over wall time: TMU as EffiCoder has it (arXiv:2410.10209)."""
        return sum(run.memory_byte_wall_seconds for run in self.runs)


def execute(
    sandbox: Sandbox,
    program: Program,
    tests: Tests,
    *,
    limits: Limits | None = None,
    repeats: int = 1,
    measured: Measured | None = None,
    baseline: bool = False,
) -> Execution:
    """Run a program on all its tests, in order, up to the first that fails.

    Function tests are one run: the driver makes all calls ``repeats`` times, each repetition from
    newly decoded arguments and a newly loaded candidate, so that what it cached in its own
    variables is gone; answers of the first and of the last repetition are compared. Tests on
    standard input are ``repeats`` runs each, every answer compared.

    Args:
        sandbox: Where it runs.
        program: What runs. Its text is compiled and run inside only.
        tests: What it must answer.
        limits: Of each run, all repetitions together; None takes the language's.
        repeats: How often every test runs.
        measured: The run's cost will be used: one process, memory sampled.
        baseline: Run an empty program in its place: for function tests the driver decodes the
            arguments and calls a function that returns None. The verdict then says whether
            it ran to its end, and looks at no answer.

    Returns:
        The verdict and the runs, none of them if there was nothing to run.
    """
    if repeats < 1:
        raise InputError(f"repeats must be at least 1, got {repeats}")
    if not isinstance(tests, FunctionTests):
        from codeact.sandbox.stdin_runs import execute_stdin  # it returns an Execution

        return execute_stdin(sandbox, program, tests, limits, repeats, measured, baseline)
    if program.language != "python":
        reason = f"tests that call a function need a Python program, got {program.language}"
        return Execution(_nothing_ran("bad_test", reason, tests), ())
    try:
        encoded = function_calls.encode_tests(tests)
    except BadTestError as error:
        return Execution(_nothing_ran("bad_test", str(error), tests), ())
    plan = _Plan(sandbox, tests, encoded, limits, repeats, measured)
    if baseline:
        run = plan.run(None)
        return Execution(run, ()) if isinstance(run, Verdict) else plan.baseline_execution(run)
    return plan.execution(program.source)


def check(
    sandbox: Sandbox, program: Program, tests: Tests, *, limits: Limits | None = None
) -> Verdict:
    """Whether a program passes its tests: `execute` once, its verdict."""
    return execute(sandbox, program, tests, limits=limits).verdict


@dataclass(frozen=True)
class Outputs:
    """What a trusted solution answered, and what that took: reading the arguments included."""

    values: tuple[Any, ...]
    run: Run


def call_outputs(
    sandbox: Sandbox,
    program: Program,
    entry_point: str,
    calls: Sequence[Call],
    *,
    prelude: str = "",
    result: Result = "return",
    rule: Rule = _ANY_RULE,
    limits: Limits | None = None,
    digest_above: int = 0,
) -> Outputs | Verdict:
    """What a trusted solution answers: for tests that come without expected answers.

    Args:
        sandbox: Where it runs.
        program: The solution.
        entry_point: What is called.
        calls: The arguments.
        prelude: Trusted code that runs before the solution.
        result: What of a call is its answer.
        rule: The rule of the tests that the answers are for.
        limits: Of the run; None takes the language's.
        digest_above: Answers of more characters come as a `Digest`, if they hold integers and text
            only or cannot come otherwise; 0 for none.

    Returns:
        One value a call, or the verdict of the first that has none.
    """
    unknown = (None,) * len(calls)
    tests = FunctionTests(entry_point, tuple(calls), unknown, rule, prelude, result)
    try:
        encoded = function_calls.encode_tests(tests)
    except BadTestError as error:
        return _nothing_ran("bad_test", str(error), tests)
    plan = _Plan(sandbox, tests, encoded, limits, 1, None)
    run = plan.run(program.source, digest_above=digest_above)
    if isinstance(run, Verdict):
        return run
    values = function_calls.decode_answers(run, len(calls))
    return values if isinstance(values, Verdict) else Outputs(values, run)


@dataclass(frozen=True)
class _Plan:
    """How the calls of one task are run."""

    sandbox: Sandbox
    tests: FunctionTests
    encoded: EncodedTests
    limits: Limits | None
    repeats: int
    measured: Measured | None

    def execution(self, source: str) -> Execution:
        """Run a candidate, and look twice where the prelude is said to be at fault.

        A correctness run leaves statements of the prelude out (`prelude.py`), so a missing name
        or a strange annotation may be our doing; and only the task's own code may make a test bad,
        whatever the candidate, which shares the driver's process, has it say.
        """
        execution = self._judged(source, is_split=self.measured is None)
        verdict = execution.verdict
        is_doubtful = verdict.status == "bad_test" or (
            verdict.status in ("raised", "load_error")
            and any(name in verdict.reason for name in _MAYBE_OURS)
        )
        if is_doubtful and self.measured is None and self.tests.prelude:
            execution = self._judged(source, is_split=False)
            verdict = execution.verdict
        if verdict.status == "bad_test" and execution.runs:
            bare = self.run(None)
            if not isinstance(bare, Verdict) and self.baseline_execution(bare).verdict.passed:
                reason = "says that the prelude fails, which runs without it"
                return replace(
                    execution, verdict=replace(verdict, status="load_error", reason=reason)
                )
        return execution

    def _judged(self, source: str, *, is_split: bool) -> Execution:
        run = self.run(source, is_split=is_split)
        if isinstance(run, Verdict):
            return Execution(run, ())
        return Execution(judge(run, self.tests, self.encoded, self.repeats), (run,))

    def baseline_execution(self, run: Run) -> Execution:
        """``"passed"`` if every call was made: its answers are None, whatever was expected."""
        num_tests = len(self.tests.calls)
        answers = function_calls.read_answers(run, num_tests * min(self.repeats, 2))
        num_passed = min(len(answers.texts), num_tests)
        status = answers.status or "passed"
        return Execution(Verdict(status, answers.reason, num_tests, num_passed, None), (run,))

    def run(
        self, source: str | None, *, is_split: bool = False, digest_above: int = 0
    ) -> Run | Verdict:
        """One run of the driver, of a baseline if there is no source."""
        toolchain = find_toolchain("python")
        if isinstance(toolchain, MissingCompiler):
            return _nothing_ran("no_compiler", toolchain.reason, self.tests)
        header = function_calls.header_frame(
            source or "",
            self.tests,
            self.encoded,
            repeats=self.repeats,
            is_baseline=source is None,
            is_split=is_split,
            digest_above=digest_above,
        )
        limits, measured = self.limits or language_of("python").limits, self.measured
        if measured is not None:  # what is kept in files is in no number
            limits = replace(limits, box_bytes=min(limits.box_bytes, _MEASURED_BOX_BYTES))
        return self.sandbox.run(
            [*python_command(toolchain), f"/box/{_DRIVER}"],
            files={_DRIVER: function_calls.driver_bytecode()},
            mounts=toolchain.mounts,
            frames=[header, *self.encoded.frames],
            limits=limits,
            environment=_ONE_THREAD,
            sample_seconds=measured.sample_seconds if measured else 0.0,
            core=measured.core if measured else None,
            single_process=measured is not None,
        )


def _nothing_ran(status: Status, reason: str, tests: FunctionTests) -> Verdict:
    return Verdict(status, reason, len(tests.calls), 0, None)
