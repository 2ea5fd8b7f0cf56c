"""Rounds of a race: the same order forwards and backwards, the empty program a runner like any."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from codeact.efficiency.racing.baselines import Net, net
from codeact.efficiency.racing.measurements import Sample

if TYPE_CHECKING:
    from codeact.efficiency.racing.meter import Meter, Reading
    from codeact.sandbox.programs.program import Program
    from codeact.sandbox.verdict import Verdict
    from codeact.tasks.task_file import Task

MAD_TO_SD = 1.4826  # standard deviation of a normal distribution / median absolute deviation


class BaselineFailedError(RuntimeError):
    """The empty program did not run: nothing can be said of the task."""


@dataclass
class Runner:
    """One place in the race.

    Args:
        name: Id of the candidate; empty for a baseline.
        program: What runs; None for the empty program.
        repeats: How often one run does all tests.
        stays: Runs in every round, however slow: the reference, which others are set against.
        samples: Of the rounds so far.
        failure: The verdict that put it out of the race.
    """

    name: str
    program: Program | None
    repeats: int = 1
    stays: bool = False
    samples: list[Sample] = field(default_factory=list)
    failure: Verdict | None = None


@dataclass(frozen=True)
class Track:
    """What all runs of a race share.

    Args:
        meter: Who runs and reads the clock.
        task: The tests.
        language: Of all programs.
        core: The CPU, None without pinning.
        noise_cv: By how much one and the same loop varied when the machine was calibrated.
    """

    meter: Meter
    task: Task
    language: str
    core: int | None
    noise_cv: float = 0.0

    def read(self, runner: Runner) -> Reading:
        """One measured run.

        Raises:
            BaselineFailedError: The runner is a baseline and did not run.
        """
        if runner.program is not None:
            return self.meter.run(self.task, runner.program, repeats=runner.repeats, core=self.core)
        reading = self.meter.baseline(
            self.task, self.language, repeats=runner.repeats, core=self.core
        )
        if not reading.verdict.passed:
            raise BaselineFailedError(f"{reading.verdict.status}: {reading.verdict.reason}")
        return reading


def run_round(track: Track, number: int, runners: Sequence[Runner]) -> None:
    """One run each of those that have not failed, A B C in even rounds and C B A in odd ones.

    A run whose verdict is not "passed" puts its runner out; the run leaves no sample.
    """
    entered = [runner for runner in runners if runner.failure is None]
    order = entered if number % 2 == 0 else entered[::-1]
    for position, runner in enumerate(order):
        reading = track.read(runner)
        if not reading.verdict.passed:
            runner.failure = reading.verdict
            continue
        runner.samples.append(_sample(reading, number, position))


def nets(runners: Sequence[Runner], baselines: Mapping[int, Runner]) -> dict[str, Net]:
    """Net metrics of each runner that has samples and has not failed, by name."""
    return {
        runner.name: net(runner.samples, baselines[runner.repeats].samples, runner.repeats)
        for runner in runners
        if runner.samples and runner.failure is None
    }


def pooled_spread(runners: Sequence[Runner]) -> float:
    """Robust spread of one run's CPU time per repetition, pooled over runners, in seconds.

    sqrt(mean_i s_i²) with s_i = 1.4826 · median_k |c_ik - median_k c_ik| and c_ik the CPU time of
    run k of runner i over its repeats. 0 if no runner has two samples.
    """
    squares = []
    for runner in runners:
        seconds = [sample.cpu_seconds / runner.repeats for sample in runner.samples]
        if len(seconds) > 1:
            middle = median(seconds)
            spread = MAD_TO_SD * median(abs(value - middle) for value in seconds)
            squares.append(spread * spread)
    return math.sqrt(sum(squares) / len(squares)) if squares else 0.0


def _sample(reading: Reading, number: int, position: int) -> Sample:
    return Sample(
        round=number,
        position=position,
        cpu_seconds=reading.cpu_seconds,
        wall_seconds=reading.wall_seconds,
        peak_memory_bytes=reading.peak_memory_bytes,
        memory_byte_seconds=reading.memory_byte_seconds,
        memory_byte_wall_seconds=reading.memory_byte_wall_seconds,
    )
