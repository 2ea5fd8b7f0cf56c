"""Timings are interleaved, per call, and written only where they are meant to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import Case, measure, record, report, short_count, short_time

pytestmark = pytest.mark.alone


def test_contenders_take_turns() -> None:
    calls: list[str] = []
    case = Case("work", {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, {})
    measured = measure(case, rounds=2)
    assert calls == ["a", "b", "a", "b", "a", "b"]  # the first round warms up
    assert [len(taken.cpu_seconds) for taken in measured.values()] == [2, 2]


def test_short_calls_are_repeated_and_reported_per_call() -> None:
    count = 0

    def call() -> None:
        nonlocal count
        count += 1

    measured = measure(Case("work", {"a": call}, {}), rounds=1, at_least=0.01)
    assert count > 100
    assert 0 < measured["a"].wall_seconds[0] < 0.001


def test_facts_and_rates_stand_in_the_table() -> None:
    case = Case("pack", {"ours": lambda: None}, {"lengths": 1000}, {"ours": {"bins": 7}})
    measured = measure(case, rounds=1)
    measured["ours"].wall_seconds, measured["ours"].cpu_seconds = [0.002], [0.002]
    text = report(case, measured, "test")
    assert "500 k lengths" in text
    assert "bins 7" in text
    assert "2.00 ms" in text
    assert "peak MiB" not in text  # nobody measured it


def test_results_are_lines_with_their_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record({"case": "unwanted"}, tmp_path)  # the fixture forbids it
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv("CODEACT_BENCH_NO_RECORD")
    record({"case": "a"}, tmp_path)
    record({"case": "b"}, tmp_path)
    (file,) = tmp_path.iterdir()
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["case"] for row in rows] == ["a", "b"]
    assert rows[0]["versions"]["torch"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.34, "12.3 s"), (0.0041, "4.10 ms"), (0.25, "250 ms"), (3e-8, "0.03 us")],
)
def test_times_have_three_digits(seconds: float, text: str) -> None:
    assert short_time(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (157_000_000, "157 M"),
        (6.2e6, "6.20 M"),
        (220_000, "220 k"),
        (11_200, "11.2 k"),
        (93, "93.0"),
    ],
)
def test_counts_have_three_digits(value: float, text: str) -> None:
    assert short_count(value) == text
