"""A pair is measured afresh before it counts: by an invented meter, through the real race."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_measurements import (
    HOST,
    REFERENCE_SOURCE,
    Made,
    MadeTask,
    candidates_of,
    make,
    reference,
    tasks_of,
)

from codeact.efficiency.instruct.build import build_effi_instruct
from codeact.efficiency.racing.measurements import Measurements
from codeact.efficiency.racing.meter import Reading
from codeact.efficiency.racing.noise import Noise
from codeact.errors import InputError
from codeact.sandbox.verdict import Verdict

EMPTY_SECONDS = 0.007


class InventedMeter:
    """CPU seconds of all tests once, by program; every run of a program costs the same."""

    def __init__(self, seconds: dict[str, float], failing: str | None = None) -> None:
        self.seconds, self.failing = seconds, failing
        self.ran: set[str] = set()

    def host(self, languages: list[str]) -> Any:
        return HOST

    def noise(self, when: str, core: int | None) -> Noise:
        return Noise(when, 0.01, (0.05,) * 10, 0.0)

    def check(self, task: Any, program: Any) -> Reading:
        return self.run(task, program, repeats=1, core=None)

    def run(self, task: Any, program: Any, *, repeats: int, core: int | None) -> Reading:
        self.ran.add(program.source)
        if program.source == self.failing:
            return self._reading(0.0, "wrong_answer")
        return self._reading(self.seconds[program.source] * repeats)

    def baseline(self, task: Any, language: str, *, repeats: int, core: int | None) -> Reading:
        return self._reading(0.0)

    def instructions(self, task: Any, program: Any) -> int | None:
        raise AssertionError("a pair's instructions are not counted again")

    def _reading(self, seconds: float, status: Any = "passed") -> Reading:
        cpu = EMPTY_SECONDS + seconds
        verdict = Verdict(status, "", 1, 1 if status == "passed" else 0, None)
        return Reading(verdict, cpu, 2 * cpu, 10_000_000, 1e7 * cpu, 2e7 * cpu)


TASKS = [
    MadeTask("holds", [Made("a", [0.010] * 3), Made("m", [0.015] * 3), Made("b", [0.020] * 3)]),
    MadeTask("shrinks", [Made("c", [0.010] * 3), Made("d", [0.012] * 3)]),
    MadeTask("turns", [Made("e", [0.010] * 3), Made("f", [0.020] * 3)]),
    MadeTask("vanishes", [Made("g", [0.010] * 3), Made("h", [0.020] * 3)]),
    MadeTask("reference", [reference(0.030, 0.030, 0.030), Made("i", [0.010] * 3)]),
]
# What a second look finds, by program.
AFRESH = {
    "a": 0.030, "b": 0.045, "c": 0.030, "d": 0.032, "e": 0.040, "f": 0.020,
    "g": 0.030, "h": 0.060, "i": 0.025,
}  # fmt: skip


def sources(seconds: dict[str, float]) -> dict[str, float]:
    return {Made(name).text(): value for name, value in seconds.items()} | {REFERENCE_SOURCE: 0.1}


def build(meter: InventedMeter, **options: Any) -> Any:
    return build_effi_instruct(
        make(TASKS),
        tasks_of(TASKS),
        candidates_of(TASKS),
        measure_options={"meter": meter, "workers": 1},
        **options,
    )


def test_the_fresh_gap_decides_and_is_published(tmp_path: Path):
    meter = InventedMeter(sources(AFRESH), failing=Made("h").text())
    built = build(meter, output=tmp_path)
    assert [(row["task_id"], row["confirmed"]) for row in built.pairs] == [
        ("holds", True),
        ("reference", True),
    ]
    holds, with_reference = built.pairs
    assert holds["race_gap"] == pytest.approx(1.0)
    assert holds["gap"] == pytest.approx(0.5)
    assert holds["chosen_et_seconds"] == pytest.approx(0.030)
    assert with_reference["rejected_origin"] == "reference"
    assert with_reference["gap"] == pytest.approx(3.0)
    refused = {one.task_id: one for one in built.dropped if one.stage == "pair"}
    assert {one.reason for one in refused.values()} == {"not_confirmed"}
    assert "1.067" in refused["shrinks"].detail
    assert "0.500" in refused["turns"].detail
    assert "wrong_answer" in refused["vanishes"].detail
    # The middle answer is in no pair, and references only where they are one of the two.
    assert Made("m").text() not in meter.ran
    fresh = Measurements.read(tmp_path / "confirmation.jsonl")
    assert {r.task_id for r in fresh.records if r.origin == "reference"} == {"reference"}


def test_the_instruction_stays_when_its_pair_does_not_hold():
    built = build(InventedMeter(sources(AFRESH), failing=Made("h").text()))
    assert [row["task_id"] for row in built.sft] == [task.id for task in TASKS]


def test_a_second_call_reads_the_fresh_measurement_again(tmp_path: Path):
    build(InventedMeter(sources(AFRESH)), output=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    silent = InventedMeter({})
    build(silent, output=tmp_path)
    assert silent.ran == set()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_fresh_measurement_of_other_pairs_is_not_taken_for_this_one(tmp_path: Path):
    build(InventedMeter(sources(AFRESH)), output=tmp_path)
    with pytest.raises(InputError, match="journal"):
        build(InventedMeter(sources(AFRESH)), output=tmp_path, min_gap=0.5)
