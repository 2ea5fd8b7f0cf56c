"""A meter that runs nothing: what a program costs stands in its source, noise comes from a hash.

``python invented_meter.py OUTPUT SECONDS`` measures an invented set of tasks, each run taking so
many seconds, for the tests that kill it.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codeact.efficiency.racing.host import Host
from codeact.efficiency.racing.measure import measure
from codeact.efficiency.racing.meter import Reading
from codeact.efficiency.racing.noise import Noise
from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import Call, FunctionTests
from codeact.sandbox.verdict import Verdict

START_SECONDS = 0.007
DRIVER_SECONDS = 1e-5  # of each repeat, with and without a candidate
START_BYTES = 8_000_000
HOST = Host("Invented CPU", 4, "6.0", "performance", "3.11.0", "0.1.0", "invented", "0.8.0")


@dataclass(frozen=True)
class Task:
    """As `codeact.tasks.task_file.Task`, which imports all of torch."""

    id: str
    tests: FunctionTests
    reference: str | None = None
    instruction: str = ""
    language: str = "python"
    prompt_code: str = ""
    fields: dict[str, Any] = field(default_factory=dict)

    entry_point = None


@dataclass(frozen=True)
class Candidate:
    """As `codeact.efficiency.inputs.candidates.Candidate`."""

    id: str
    task_id: str
    source: str
    language: str = "python"
    origin: str = "model"


def task(name: str = "t", *, reference: str | None = None, language: str = "python") -> Task:
    """A task with two tests."""
    tests = FunctionTests("f", (Call((1,)), Call((2,))), (1, 2))
    return Task(name, tests, reference, language=language)


def source(cost: float, **facts: Any) -> str:
    """A program that costs ``cost`` seconds of CPU time for all tests.

    Args:
        memory: Bytes above those of the empty program.
        later: What a repetition after the first costs; as much as the first by default.
        noise: Largest share by which a run may be slower.
        status: Of the correctness run.
        fails_from: Measured run, from 0, from which on the answer is wrong.
        instructions: What valgrind would count.
    """
    return json.dumps({"cost": cost, **facts})


class InventedMeter:
    """See ``Meter``.

    Args:
        seconds: Real time that a run takes.
        noise: Of the empty program: largest share by which a run may be slower.
        cv: Of the calibrations.
        baseline_fails: The empty program does not run.
    """

    def __init__(
        self,
        *,
        seconds: float = 0.0,
        noise: float = 0.0,
        cv: float = 0.01,
        baseline_fails: bool = False,
    ) -> None:
        self.seconds, self.baseline_noise, self.cv = seconds, noise, cv
        self.baseline_fails = baseline_fails
        self.runs: list[tuple[str, str, int, int | None]] = []  # task, source, repeats, core
        self.checks: list[tuple[str, str]] = []
        self.counted: list[str] = []
        self._calls: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def host(self, languages: list[str]) -> Host:
        return HOST

    def noise(self, when: str, core: int | None) -> Noise:
        return Noise(when, self.cv, (0.05, 0.05 * (1 + self.cv)), 0.5)

    def check(self, task: Task, program: Program) -> Reading:
        time.sleep(self.seconds)
        facts = json.loads(program.source)
        with self._lock:
            self.checks.append((task.id, program.source))
        cpu_seconds = START_SECONDS + DRIVER_SECONDS + facts["cost"]
        return _reading(facts.get("status", "passed"), cpu_seconds, facts.get("memory", 0))

    def run(self, task: Task, program: Program, *, repeats: int, core: int | None) -> Reading:
        facts = json.loads(program.source)
        call = self._count(task, program.source, repeats, core, program.source)
        status = "wrong_answer" if call >= facts.get("fails_from", 10**9) else "passed"
        slower = 1 + facts.get("noise", 0.0) * _unit(task.id, program.source, call)
        later = facts.get("later", facts["cost"])
        cost = facts["cost"] + (repeats - 1) * later
        cpu_seconds = (START_SECONDS + repeats * DRIVER_SECONDS + cost) * slower
        return _reading(status, cpu_seconds, facts.get("memory", 0))

    def baseline(self, task: Task, language: str, *, repeats: int, core: int | None) -> Reading:
        call = self._count(task, "", repeats, core, f"{language} {repeats}")
        slower = 1 + self.baseline_noise * _unit(task.id, f"{repeats}", call)
        status = "sandbox_error" if self.baseline_fails else "passed"
        return _reading(status, (START_SECONDS + repeats * DRIVER_SECONDS) * slower, 0)

    def instructions(self, task: Task, program: Program) -> int | None:
        with self._lock:
            self.counted.append(program.source)
        count = json.loads(program.source).get("instructions")
        return None if count is None else int(count)

    def _count(self, task: Task, text: str, repeats: int, core: int | None, runner: str) -> int:
        time.sleep(self.seconds)
        with self._lock:
            self.runs.append((task.id, text, repeats, core))
            call = self._calls[task.id, runner]
            self._calls[task.id, runner] += 1
        return call


def _reading(status: Any, cpu_seconds: float, memory: int) -> Reading:
    passed = status == "passed"
    verdict = Verdict(status, "" if passed else f"it is {status}", 2, 2 if passed else 1, None)
    peak = START_BYTES + memory
    return Reading(
        verdict, cpu_seconds, 2 * cpu_seconds, peak, peak * cpu_seconds, 2 * peak * cpu_seconds
    )


def _unit(*parts: object) -> float:
    """A number in [0, 1) that only depends on ``parts``."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:7], "little") / 2**56


def invented_set() -> tuple[list[Task], list[Candidate]]:
    """Ten tasks, one of them too short, and 65 candidates of two languages, some of them wrong."""
    tasks, candidates = [], []
    for number in range(10):
        name = f"task {number}"
        base = 1e-9 if number == 7 else 0.002 * (number + 1)
        tasks.append(task(name, reference=source(base * 1.4, noise=0.02)))
        for place in range(6 + number % 2):
            text = source(
                base * (1 + 0.02 * place),
                noise=0.03,
                memory=1_000_000 * place,
                instructions=10_000_000 + place,
                status="raised" if place == 3 else "passed",
                fails_from=4 if place == 5 else 10**9,
            )
            language = "rust" if place % 4 == 2 else "python"
            candidates.append(Candidate(f"{number}-{place}", name, text, language))
    return tasks, candidates


def main(output: Path, seconds: float) -> None:
    """Measures the invented set."""
    tasks, candidates = invented_set()
    measure(tasks, candidates, output=output, meter=InventedMeter(seconds=seconds, noise=0.02))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
