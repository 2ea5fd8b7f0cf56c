"""The page of measured candidates where something is missing, and the ticks of its axes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from efficiency_pages import ORIGINS, confirmed, figure_data, made_tasks, make_facts, page_of
from made_measurements import Made, MadeTask

from codeact.pipeline.efficiency.axes import log_ticks
from codeact.pipeline.efficiency.facts import EfficiencyFacts
from codeact.pipeline.efficiency.words import result_words


@pytest.fixture(scope="module")
def tasks() -> list[MadeTask]:
    return made_tasks()


@pytest.fixture(scope="module")
def facts(tasks: list[MadeTask]) -> EfficiencyFacts:
    return confirmed(make_facts(tasks, ORIGINS[:2]))


def test_no_right_answer(tmp_path: Path) -> None:
    tasks = [MadeTask(f"t{n}", [Made("a", status="raised", reason="no")]) for n in range(3)]
    page = page_of(make_facts(tasks), tmp_path)
    for words in (
        "Of 3 candidates for 3 tasks, 0 answer every test.",
        "Of 3 tasks, 0 could be ranked (no right answer 3).",
        "No task has two right answers that could be ranked.",
        "No right answer could be ranked.",
        "0 of 3 tasks give an instruction",
        "No pair holds.",
        "No task has a chosen answer.",
    ):
        assert words in page.text, words
    assert page.row("no right answer") == ["no right answer", "3"]
    assert "Plotly.newPlot(" not in page.text
    assert page.programs == ["codeact measure x"]


def test_one_origin_without_references(tmp_path: Path) -> None:
    tasks = made_tasks(ORIGINS[:1], references=False)
    facts = make_facts(tasks)
    page = page_of(facts, tmp_path)
    assert "Right answers beside the fastest of their task;" in page.text
    assert "that came with the tasks" not in page.text
    assert "NET" not in page.text
    assert "the reference" not in page.text.split("What this does not show")[0]
    assert (
        "There is no comparison: two origins are compared when --compare names them." in page.text
    )
    traces = figure_data((tmp_path / "page.html").read_text(encoding="utf-8"), "time-memory")
    assert list(traces) == ["org/model-7b"]
    assert min(traces["org/model-7b"]["x"]) >= 1


def test_too_small_a_gap_gives_no_pair(tmp_path: Path) -> None:
    tasks = [MadeTask("t", [Made("a", [0.010] * 3), Made("b", [0.0105] * 3, source="b")])]
    page = page_of(make_facts(tasks), tmp_path)
    assert "1 of 1 task gives an instruction" in page.text
    assert "No pair holds." in page.text
    assert page.row("gap too small") == ["gap too small", "1"]
    assert "NaN" not in page.text


def test_pairs_that_were_not_measured_again(tasks: list[MadeTask], tmp_path: Path) -> None:
    page = page_of(make_facts(tasks), tmp_path)
    assert "They were not measured again" in page.text
    assert "measured again, alone" not in page.text


def test_nothing_was_built(facts: EfficiencyFacts, tmp_path: Path) -> None:
    page = page_of(replace(facts, built=None, comparisons=(), not_compared="no luck"), tmp_path)
    for words in (
        "No instructions were asked for.",
        "No pairs were asked for.",
        "There is no comparison: no luck.",
    ):
        assert words in page.text, words
    assert "preference pairs." not in page.text


def test_busy_machine_is_named(facts: EfficiencyFacts, tmp_path: Path) -> None:
    calm = page_of(facts, tmp_path)
    assert "busy" not in calm.text
    noisy = tuple(replace(one, cv=0.081) for one in facts.measurements.noise)
    busy = replace(facts, measurements=replace(facts.measurements, noise=noisy))
    page = page_of(busy, tmp_path)
    assert "The machine was busy" in page.text
    note = "largest of 2 calibrations, above 5.0 %: a busy machine"
    assert f"8.1 % scatter of one loop {note}" in page.text


def test_two_languages_are_races(tmp_path: Path) -> None:
    answers = [
        Made(f"{language}-{n}", [0.01 * n] * 3, source=f"{language} {n}", language=language)
        for language in ("python", "cpp")
        for n in (1, 2)
    ]
    facts = make_facts([MadeTask("t", answers)])
    page = page_of(facts, tmp_path)
    assert "Of 4 candidates for 1 task, 4 answer every test." in page.text
    assert "Of 2 races, 2 could be ranked." in page.text
    assert list(result_words(facts)) == [
        "4 candidates: passed 4",
        "2 races: ranked 2",
        "2 instructions; left out: nothing",
        "2 pairs; left out: nothing",
    ]


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.98, 1.02), (0.9, 1.6), (0.8, 2.2), (0.3, 6), (0.05, 40), (0.01, 1e3), (1e-5, 1e7)],
)
def test_ticks_are_round_and_few(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 3 <= len(ticks) <= 8
    assert ticks == sorted(ticks)
    assert all(low <= tick <= high * (1 + 1e-9) for tick in ticks)
    assert any(tick == pytest.approx(1) for tick in ticks)
    for tick in ticks:  # three significant digits write it out
        assert float(f"{tick:.4g}") == pytest.approx(tick, rel=1e-12)
