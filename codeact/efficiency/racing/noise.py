"""Whether the machine is quiet enough for a measurement to mean something."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codeact.efficiency.racing.host import load_average, race_cores

if TYPE_CHECKING:
    from codeact.sandbox.sandbox import Sandbox

logger = logging.getLogger(__name__)

MAX_CV = 0.05  # of the CPU time of one and the same loop; a quiet machine has 1 to 2 %
NUM_TRIES = 10
LOOP_SECONDS = 0.05
_ATTEMPTS = 3  # a burst of a neighbour passes

# Integer work on a few cache lines: what it costs depends on the machine, not on memory.
_LOOP = """\
total = 0
for number in range(int(input())):
    total = (total * 31 + number) & 65535
print(total)
"""


class HostTooNoisyError(RuntimeError):
    """The same work cost too different amounts of CPU time for a race to be fair."""


@dataclass(frozen=True)
class Noise:
    """One calibration: the same loop, ten times.

    Args:
        when: ``"before"`` or ``"after"`` the races.
        cv: Coefficient of variation of CPU time: sample standard deviation / mean.
        cpu_seconds: CPU time of each try, start-up of the interpreter included.
        load_average: Of the machine, at the end of the tries.
        attempts: Calibrations made until one was quiet enough; the best of them is recorded.
    """

    when: str
    cv: float
    cpu_seconds: tuple[float, ...]
    load_average: float
    attempts: int = 1

    @property
    def quiet(self) -> bool:
        """Whether ``cv`` is at most 5 %."""
        return self.cv <= MAX_CV


def variation(seconds: Sequence[float]) -> float:
    """Sample standard deviation / mean.

    Raises:
        ValueError: Fewer than two values, or a mean that is not positive.
    """
    mean = sum(seconds) / len(seconds) if seconds else 0.0
    if len(seconds) < 2 or not mean > 0:
        raise ValueError(f"variation needs two positive times or more, got {list(seconds)}")
    squares = sum((value - mean) ** 2 for value in seconds)
    return math.sqrt(squares / (len(seconds) - 1)) / mean


def calibrate(
    sandbox: Sandbox, *, core: int | None = None, when: str = "before", attempts: int = _ATTEMPTS
) -> Noise:
    """CPU time of ten sandboxed runs of a loop of 50 ms, on the CPU of the races.

    Args:
        sandbox: Where it runs.
        core: CPU to pin it to; the first of :func:`race_cores` by default.
        when: Goes into the record.
        attempts: Calibrations to make before giving up on a quiet one.

    Raises:
        RuntimeError: The loop does not run in the sandbox.
    """
    core = race_cores()[0] if core is None else core
    run = _loop_runner(sandbox, core)
    run(1000)  # the interpreter's files come into the page cache
    # Start-up is most of a short run, so the size of the loop comes from the difference of two.
    small, large = min(run(10_000) for _ in range(3)), min(run(410_000) for _ in range(3))
    num_steps = max(10_000, int(LOOP_SECONDS * 400_000 / max(large - small, 1e-3)))
    return quietest(lambda: [run(num_steps) for _ in range(NUM_TRIES)], when, attempts)


def quietest(tries: Callable[[], Sequence[float]], when: str, attempts: int) -> Noise:
    """The calibration of least variation, stopping at the first that is quiet enough.

    Args:
        tries: CPU times of one calibration, in seconds.
        when: Goes into the record.
        attempts: How often to ask for them, at least once.
    """
    best: Noise | None = None
    for attempt in range(1, attempts + 1):
        seconds = tuple(tries())
        cv = variation(seconds)
        if best is None or cv < best.cv:
            best = Noise(when, cv, seconds, load_average(), attempt)
        if best.quiet:
            break
    assert best is not None
    return best


def require_quiet(noise: Noise, *, allow_noise: bool) -> None:
    """Raises, or warns if ``allow_noise``, when the calibration varied by more than 5 %.

    Raises:
        HostTooNoisyError: It did.
    """
    if noise.quiet:
        return
    text = (
        f"host too noisy: CPU time of one and the same loop varied by {noise.cv:.1%}, "
        f"at most {MAX_CV:.0%} is allowed (load {noise.load_average})"
    )
    if not allow_noise:
        raise HostTooNoisyError(f"{text}; stop other work, or allow noise and read with care")
    logger.warning("%s", text)


def _loop_runner(sandbox: Sandbox, core: int) -> Callable[[int], float]:
    from codeact.sandbox.execute import Measured, execute
    from codeact.sandbox.programs.program import Program
    from codeact.sandbox.tests import StdinTests

    program = Program("python", _LOOP)

    def run(num_steps: int) -> float:
        tests = StdinTests((f"{num_steps}\n",), (f"{_loop_answer(num_steps)}\n",))
        measured = Measured(core=core, sample_seconds=0.0)
        execution = execute(sandbox, program, tests, measured=measured)
        verdict = execution.verdict
        if not verdict.passed:
            raise RuntimeError(f"calibration did not run: {verdict.status} {verdict.reason}")
        return execution.cpu_seconds

    return run


def _loop_answer(num_steps: int) -> int:
    total = 0
    for number in range(num_steps):
        total = (total * 31 + number) & 65535
    return total
