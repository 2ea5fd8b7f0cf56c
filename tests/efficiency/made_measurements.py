"""Measurements made by hand: every run as given, metrics by the definitions, ranks by ET."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from codeact.efficiency.inputs.candidates import Candidate
from codeact.efficiency.racing.host import Host
from codeact.efficiency.racing.measurements import MeasuredCandidate, Measurements, Sample, TaskRace
from codeact.sandbox.tests import Call, FunctionTests
from codeact.tasks.task_file import Task

HOST = Host("Some CPU", 2, "6.1", "performance", "3.11.4", "0.1.0", "bwrap", "0.8.0", {"c": "12"})

BASE_CPU = 0.007  # of the empty program, in seconds
BASE_AREA = 0.05  # byte-seconds, in millions


@dataclass
class Made:
    """One contestant: CPU seconds a round, net and for all tests once."""

    name: str
    cpu: Sequence[float] = ()
    memory: int = 10_000_000
    origin: str = "model"
    status: str = "passed"
    reason: str = ""
    instructions: int | None = None
    tie_rule: str | None = None
    repeats: int = 4
    source: str = ""
    language: str = "python"
    response: str | None = None
    rank: int | None = None

    def text(self) -> str:
        return self.source or f"def f(x):\n    return x  # {self.name}"


def reference(*cpu: float, **options: Any) -> Made:
    return Made("reference", cpu, origin="reference", source=REFERENCE_SOURCE, **options)


REFERENCE_SOURCE = "def f(x):\n    return +x"


@dataclass
class MadeTask:
    """One task and its contestants; several languages are several races."""

    id: str
    contestants: list[Made]
    too_short: bool = False
    instruction: str = "Return x."
    prompt_code: str = ""
    has_reference: bool = True
    fields: dict[str, Any] = field(default_factory=dict)


def samples_of(made: Made, repeats: int) -> tuple[Sample, ...]:
    """Gross samples whose net minimum over rounds, divided by repeats, is what was asked for."""
    return tuple(
        Sample(
            round=number,
            position=number % 2,
            cpu_seconds=BASE_CPU + cpu * repeats,
            wall_seconds=2 * (BASE_CPU + cpu * repeats),
            peak_memory_bytes=made.memory + 1000 * number,
            memory_byte_seconds=1e6 * BASE_AREA + made.memory * cpu * repeats,
            memory_byte_wall_seconds=2e6 * BASE_AREA + 2 * made.memory * cpu * repeats,
        )
        for number, cpu in enumerate(made.cpu)
    )


def empty_samples(num_rounds: int) -> tuple[Sample, ...]:
    """The baseline: a little slower in every round but the last."""
    return tuple(
        Sample(
            number, 9, BASE_CPU * (1 + extra), 2 * BASE_CPU, 8_000_000,
            1e6 * BASE_AREA * (1 + extra), 2e6 * BASE_AREA,
        )
        for number, extra in zip(range(num_rounds), [0.02] * (num_rounds - 1) + [0.0], strict=True)
    )  # fmt: skip


def record_of(task_id: str, made: Made, rank: int | None) -> MeasuredCandidate:
    samples = samples_of(made, made.repeats)
    measured: dict[str, Any] = {}
    if samples:
        cpu = min(made.cpu)
        measured = {
            "repeats": made.repeats,
            "samples": samples,
            "baseline": empty_samples(5),
            "et_seconds": cpu,
            "et_wall_seconds": 2 * cpu,
            "mu_bytes": made.memory,
            "tmu_byte_seconds": made.memory * cpu,
            "tmu_wall_byte_seconds": 2 * made.memory * cpu,
            "instructions": made.instructions,
            "rank": rank,
            "tie_rule": made.tie_rule,
        }
    return MeasuredCandidate(
        task_id=task_id,
        candidate_id=made.name,
        origin=made.origin,
        language=made.language,
        status=made.status,
        reason=made.reason,
        num_tests=3,
        num_passed=3 if made.status == "passed" else 1,
        check_cpu_seconds=0.01,
        source_chars=len(made.text()),
        source_sha256=hashlib.sha256(made.text().encode()).hexdigest(),
        **measured,
    )


def make(tasks: Sequence[MadeTask], host: Host = HOST) -> Measurements:
    """Measurements of these tasks; ranks by ET unless a contestant names its own."""
    records, races = [], []
    for task in tasks:
        for language in dict.fromkeys(made.language for made in task.contestants):
            group = [made for made in task.contestants if made.language == language]
            ran = [made for made in group if made.cpu and made.status == "passed"]
            order = sorted(ran, key=lambda made: (made.rank or 0, min(made.cpu)))
            ranks = {} if task.too_short else {m.name: i for i, m in enumerate(order, start=1)}
            made_records = []
            for made in group:
                found = record_of(task.id, made, ranks.get(made.name))
                if found.rank is not None and made is not order[-1] and made.tie_rule is None:
                    found = replace(found, tie_rule="cpu")
                made_records.append(found)
            records += made_records
            status = "too_short" if task.too_short else "ranked" if ran else "none_passed"
            races.append(
                TaskRace(
                    task.id, language, len(group), len(ran), 4, 5, 1, status,
                    "too little work" if task.too_short else "", 1e-4, {4: empty_samples(5)},
                )
            )  # fmt: skip
    return Measurements(tuple(records), tuple(races), host)


def tasks_of(tasks: Sequence[MadeTask]) -> list[Task]:
    tests = FunctionTests("f", (Call((1,)),), (1,))
    return [
        Task(
            task.id, task.instruction, tests, REFERENCE_SOURCE if task.has_reference else None,
            "python", task.prompt_code, task.fields,
        )
        for task in tasks
    ]  # fmt: skip


def candidates_of(tasks: Sequence[MadeTask]) -> list[Candidate]:
    return [
        Candidate(made.name, task.id, made.text(), made.language, made.origin, 1, made.response)
        for task in tasks
        for made in task.contestants
        if made.origin != "reference"
    ]
