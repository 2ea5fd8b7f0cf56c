"""Who runs and reads the clock: the sandbox in earnest, an invented one in tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from codeact.efficiency.racing.host import Host, fingerprint
from codeact.efficiency.racing.noise import Noise, calibrate
from codeact.sandbox.limits import Limits
from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import FunctionTests
from codeact.sandbox.verdict import Status, Verdict

if TYPE_CHECKING:
    from codeact.sandbox.execute import Execution
    from codeact.sandbox.sandbox import Sandbox
    from codeact.tasks.task_file import Task

_SLACK = 2  # what passed within its limits once is not to fail for a clock that is a bit slower


@dataclass(frozen=True)
class Reading:
    """One run: what became of it and what it used, gross, for all repeats together."""

    verdict: Verdict
    cpu_seconds: float
    wall_seconds: float
    peak_memory_bytes: int
    memory_byte_seconds: float
    memory_byte_wall_seconds: float


class Meter(Protocol):
    """What ``measure`` asks of the world. Every method may be called from several threads."""

    def host(self, languages: list[str]) -> Host:
        """The machine, with the tools of these languages."""

    def noise(self, when: str, core: int | None) -> Noise:
        """One calibration; see `noise.py`."""

    def check(self, task: Task, program: Program) -> Reading:
        """One unmeasured run of all tests."""

    def run(self, task: Task, program: Program, *, repeats: int, core: int | None) -> Reading:
        """One measured run of all tests, ``repeats`` times, alone on ``core``."""

    def baseline(self, task: Task, language: str, *, repeats: int, core: int | None) -> Reading:
        """The same run with an empty program; ``verdict`` passed if it ran."""

    def instructions(self, task: Task, program: Program) -> int | None:
        """Instructions of all tests once, net of the baseline; None where they mean nothing."""


class SandboxMeter:
    """Measures in a sandbox.

    Args:
        sandbox: Where everything runs.
        limits: Of the correctness run; None: the language's. A measured run gets twice as much,
            times its repeats where one process does them all.
        sample_seconds: Time between two samples of resident memory.
    """

    def __init__(
        self, sandbox: Sandbox, *, limits: Limits | None = None, sample_seconds: float = 0.001
    ) -> None:
        self.sandbox, self.limits, self.sample_seconds = sandbox, limits, sample_seconds

    def host(self, languages: list[str]) -> Host:
        """See :class:`Meter`."""
        from codeact.sandbox.programs.toolchains import MissingCompiler, find_toolchain
        from codeact.sandbox.tiers import find_bwrap

        found = {language: find_toolchain(language) for language in languages}
        tools = {
            language: "missing" if isinstance(tool, MissingCompiler) else tool.version
            for language, tool in found.items()
        }
        tier = self.sandbox.tier
        bubblewrap = find_bwrap()[1] if tier.startswith("bwrap") else ""
        return fingerprint(sandbox=tier, bubblewrap=bubblewrap, tools=tools)

    def noise(self, when: str, core: int | None) -> Noise:
        """See :class:`Meter`."""
        return calibrate(self.sandbox, core=core, when=when)

    def check(self, task: Task, program: Program) -> Reading:
        """See :class:`Meter`."""
        from codeact.sandbox.execute import execute

        return _reading(execute(self.sandbox, program, task.tests, limits=self.limits))

    def run(self, task: Task, program: Program, *, repeats: int, core: int | None) -> Reading:
        """See :class:`Meter`."""
        return _reading(self._measured(task, program, repeats, core))

    def baseline(self, task: Task, language: str, *, repeats: int, core: int | None) -> Reading:
        """See :class:`Meter`."""
        execution = self._measured(task, Program(language, ""), repeats, core, baseline=True)
        failed = [run for run in execution.runs if run.outcome != "exited" or run.exit_code != 0]
        status: Status = "sandbox_error" if failed or not execution.runs else "passed"
        reason = execution.verdict.reason or (failed[0].outcome if failed else "")
        verdict = replace(execution.verdict, status=status, reason=reason)
        return replace(_reading(execution), verdict=verdict)

    def instructions(self, task: Task, program: Program) -> int | None:
        """See :class:`Meter`."""
        from codeact.sandbox.instructions import instruction_count

        return instruction_count(self.sandbox, program, task.tests)

    def _measured(
        self,
        task: Task,
        program: Program,
        repeats: int,
        core: int | None,
        *,
        baseline: bool = False,
    ) -> Execution:
        from codeact.sandbox.execute import Measured, execute

        return execute(
            self.sandbox,
            program,
            task.tests,
            limits=self._limits(task, program.language, repeats),
            repeats=repeats,
            measured=Measured(core=core, sample_seconds=self.sample_seconds),
            baseline=baseline,
        )

    def _limits(self, task: Task, language: str, repeats: int) -> Limits:
        """Of a measured run: room for all repeats where one process does them all."""
        from codeact.sandbox.programs.languages import language_of

        limits = self.limits or language_of(language).limits
        times = _SLACK * (repeats if isinstance(task.tests, FunctionTests) else 1)
        return replace(
            limits,
            wall_seconds=limits.wall_seconds * times,
            cpu_seconds=limits.cpu_seconds * times,
            output_bytes=limits.output_bytes * times,
            answer_bytes=limits.answer_bytes * times,
        )


def _reading(execution: Execution) -> Reading:
    return Reading(
        verdict=execution.verdict,
        cpu_seconds=execution.cpu_seconds,
        wall_seconds=execution.wall_seconds,
        peak_memory_bytes=execution.peak_memory_bytes,
        memory_byte_seconds=execution.memory_byte_seconds,
        memory_byte_wall_seconds=execution.memory_byte_wall_seconds,
    )
