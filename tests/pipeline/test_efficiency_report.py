"""The page of measured candidates: its numbers computed here from the runs that were made up."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from efficiency_pages import (
    FAILURES,
    NUM_TASKS,
    ORIGINS,
    Page,
    confirmed,
    figure_data,
    made_tasks,
    make_facts,
)
from made_measurements import Made, MadeTask

from codeact.pipeline.efficiency.facts import EfficiencyFacts
from codeact.pipeline.efficiency.report import write_efficiency_report


def ranked(tasks: Sequence[MadeTask]) -> dict[str, list[Made]]:
    """Right answers of the tasks that were not too short, fastest first."""
    found = {
        task.id: sorted((one for one in task.contestants if one.cpu), key=lambda one: min(one.cpu))
        for task in tasks
        if not task.too_short
    }
    return {name: answers for name, answers in found.items() if answers}


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.mean(math.log(value) for value in values))


def percent(share: float) -> str:
    value = 100 * share
    return f"{value:.{0 if 9.95 <= value <= 99 or value >= 100 else 1}f}\xa0%"


@pytest.fixture(scope="module")
def tasks() -> list[MadeTask]:
    return made_tasks()


@pytest.fixture(scope="module")
def facts(tasks: list[MadeTask]) -> EfficiencyFacts:
    return confirmed(make_facts(tasks, ORIGINS[:2]))


@pytest.fixture(scope="module")
def html(facts: EfficiencyFacts, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "page.html"
    assert write_efficiency_report(facts, path) == path
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_right_answers_are_counted(tasks: list[MadeTask], page: Page) -> None:
    every = [one for task in tasks for one in task.contestants]
    answers = [one for one in every if one.origin != "reference"]
    right = sum(one.status == "passed" for one in answers)
    assert f"Of {len(answers)} candidates for 60 tasks, {right} answer every test." in page.text
    num_references = len(every) - len(answers)
    assert f"{num_references} solutions that came with the tasks, {num_references} do." in page.text
    limits = ("time_limit", "memory_limit", "output_limit")
    unrun = ("unsafe", "not_algorithmic", "no_compiler", "bad_test", "sandbox_error")
    for origin in ORIGINS:
        found = Counter(one.status for one in answers if one.origin == origin)
        cells = [
            found.total(), found["passed"], found["wrong_answer"], 0,
            sum(found[name] for name in limits), sum(found[name] for name in unrun),
        ]  # fmt: skip
        cells[3] = cells[0] - sum(cells[1:])
        assert [origin, *map(str, cells)] in page.rows
    statuses = Counter(one.status for one in answers)
    for status in FAILURES:
        first = next(
            (task.id, one) for task in tasks for one in task.contestants if one.status == status
        )
        row = page.row(status.replace("_", " "))
        assert row[1:] == [str(statuses[status]), first[0], first[1].origin, first[1].reason]


def test_cost_is_that_of_the_runs(tasks: list[MadeTask], html: str, page: Page) -> None:
    races = ranked(tasks)
    short = sum(task.too_short for task in tasks)
    assert short
    assert len(races) == NUM_TASKS - short
    words = f"Of 60 tasks, {len(races)} could be ranked (too little work to measure {short})."
    assert words in page.text
    spans = [
        [min(one.cpu) / min(answers[0].cpu) for one in answers]
        for answers in races.values()
        if len(answers) > 1
    ]
    slowest = [span[-1] for span in spans]
    references = [
        min(one.cpu) / min(answers[0].cpu)
        for answers in races.values()
        for one in answers
        if one.origin == "reference" and len(answers) > 1
    ]
    assert (
        f"needs {statistics.median(slowest):.2f} times the CPU time of the fastest "
        f"(median of {len(slowest)} tasks with two or more), the reference "
        f"{statistics.median(references):.2f} times (median of {len(references)})"
    ) in page.text
    assert f"{statistics.median(slowest):.2f}× slowest / fastest right answer" in page.text
    bars = figure_data(html, "speed-up")
    for name, values in (("slowest", slowest), ("reference", references)):
        bar = bars[f"{name} / fastest right answer"]
        width = bar["width"] / 0.94
        for centre, number in zip(bar["x"], bar["y"], strict=True):
            low, high = centre - width / 2, centre + width / 2
            assert number == sum(low - 1e-9 <= math.log10(one) < high - 1e-9 for one in values)
        assert sum(bar["y"]) == len(values)


def test_points_stand_beside_the_reference_or_the_fastest(
    tasks: list[MadeTask], html: str, page: Page
) -> None:
    expected: dict[str, set[tuple[float, float]]] = {origin: set() for origin in ORIGINS}
    for answers in ranked(tasks).values():
        beside = next((one for one in answers if one.origin == "reference"), answers[0])
        for one in answers:
            if one is not beside:
                x, y = min(one.cpu) / min(beside.cpu), one.memory / beside.memory
                expected[one.origin].add((round(x, 9), round(y, 9)))
    traces = figure_data(html, "time-memory")
    assert set(traces) == {"org/model-7b", "small &lt;b&gt;", "by hand"}
    for origin, points in expected.items():
        trace = traces[origin.replace("<", "&lt;").replace(">", "&gt;")]
        shown = zip(trace["x"], trace["y"], strict=True)
        assert {(round(x, 9), round(y, 9)) for x, y in shown} == points
    assert len({trace["marker"]["color"] for trace in traces.values()}) == len(ORIGINS)
    assert "the reference of their task, or beside the fastest where there is none" in page.text


def test_origins_by_hand(tasks: list[MadeTask], page: Page) -> None:
    races = ranked(tasks)
    for origin in ORIGINS:
        own = {
            name: [one for one in answers if one.origin == origin]
            for name, answers in races.items()
            if any(one.origin == origin for one in answers)
        }
        times = {n: geometric_mean([min(a.cpu) for a in all_]) for n, all_ in own.items()}
        memory = [geometric_mean([a.memory for a in all_]) for all_ in own.values()]
        passed = [
            statistics.mean(
                one.status == "passed" for one in task.contestants if one.origin == origin
            )
            for task in tasks
        ]
        row = page.row(origin, "60")
        assert row[2:6] == [
            percent(statistics.mean(passed)),
            str(len(own)),
            f"{1e3 * statistics.mean(times.values()):.3g}",
            f"{statistics.mean(memory) / 2**20:.1f}",
        ]  # fmt: skip
        ratios, sums = [], [0.0, 0.0]
        for name, time in times.items():
            for one in races[name]:
                if one.origin == "reference":
                    ratios.append(time / min(one.cpu))
                    sums = [sums[0] + time, sums[1] + min(one.cpu)]
        (row,) = [each for each in page.rows if each[:1] == [origin] and "(" in "".join(each[2:3])]
        assert row[1] == str(len(ratios))
        assert row[2].startswith(f"{geometric_mean(ratios):.3f} (")
        assert row[5:] == [f"{sums[0] / sums[1]:.3f}", f"{statistics.mean(ratios):.3f}"]


def test_comparison_by_hand(tasks: list[MadeTask], page: Page) -> None:
    ratios, both = [], 0
    for task in tasks:
        ours = [[a for a in task.contestants if a.cpu and a.origin == o] for o in ORIGINS[:2]]
        both += all(map(bool, ours))
        if all(map(bool, ours)) and not task.too_short:
            one, other = (geometric_mean([min(a.cpu) for a in all_]) for all_ in ours)
            ratios.append(one / other)
    (row,) = [each for each in page.rows if each[0] == "CPU time" and len(each) == 6]
    assert row[1].startswith(f"{geometric_mean(ratios):.3f} (")
    better = sum(ratio < 1 for ratio in ratios)
    assert row[2:4] == [str(better), str(len(ratios) - better)]
    assert f"Both answer 60 tasks and solve {both} of these, of which {len(ratios)}" in page.text


def test_choice_and_twin_by_hand(tasks: list[MadeTask], facts: EfficiencyFacts, page: Page) -> None:
    assert facts.built is not None
    races = ranked(tasks)
    chosen = {row["task_id"]: row for row in facts.built.sft}
    assert set(chosen) <= set(races)
    winners = Counter(races[name][0].origin for name in chosen)
    for origin, number in winners.items():
        assert [origin, str(number)] in page.rows
    times = {(task.id, a.name): min(a.cpu) for task in tasks for a in task.contestants if a.cpu}
    gains = [
        min(races[row["task_id"]][0].cpu) / times[row["task_id"], row["candidate_id"]]
        for row in facts.built.twin
    ]
    assert f"CPU time is {geometric_mean(gains):.3f} times as large (" in page.text
    assert f"{geometric_mean(gains):.2f}× chosen / random right answer" in page.text
    assert f"{len(chosen)} of 60 tasks give an instruction" in page.text


def test_pairs_by_hand(
    tasks: list[MadeTask], facts: EfficiencyFacts, html: str, page: Page
) -> None:
    assert facts.built is not None
    races = ranked(tasks)
    names = [row["task_id"] for row in facts.built.pairs]
    race = [min(races[name][-1].cpu) / min(races[name][0].cpu) for name in names]
    again = [1 + 0.9 * (ratio - 1) for ratio in race]
    assert (
        f"The median was {statistics.median(race):.2f} times in the race and is "
        f"{statistics.median(again):.2f} times now"
    ) in page.text
    points = figure_data(html, "again")["pair"]
    assert points["x"] == pytest.approx(race)
    assert points["y"] == pytest.approx(again)
    assert f"{len(names)} pairs of the chosen and the slowest right answer" in page.text


def test_cards_show_the_two_programs(tasks: list[MadeTask], page: Page) -> None:
    races = {name: all_ for name, all_ in ranked(tasks).items() if len(all_) > 1}
    apart = sorted(races, key=lambda name: -min(races[name][-1].cpu) / min(races[name][0].cpu))
    shown = [(races[name][0], races[name][-1]) for name in apart[:4]]
    assert page.programs[:8] == [one.text() for both in shown for one in both]
    best, worst = shown[0]
    assert f"Chosen: {best.origin}, {1e3 * min(best.cpu):.3g} ms" in page.text
    assert f"Slowest right: {worst.origin}, {1e3 * min(worst.cpu):.3g} ms" in page.text
    ratio = min(worst.cpu) / min(best.cpu)
    memory = worst.memory / best.memory
    words = f"The slowest needs {ratio:.2f} times the CPU time and {memory:.2f} times the memory."
    assert words in page.text
    shortened = re.findall(r"(?:Return <x> & more, ?)+(?:Return <x>|Return)?[^.]{0,9}…", page.text)
    assert len(shortened) == 4
    assert all(len(text) <= 160 for text in shortened)


def test_page_stands_alone(html: str, page: Page, facts: EfficiencyFacts, tmp_path: Path) -> None:
    for tag, attributes in page.tags:
        assert "src" not in attributes, tag
        assert tag != "link"
        assert not (attributes.get("href") or "#").startswith(("http", "//", "file"))
    policy = next(each for tag, each in page.tags if "http-equiv" in each)["content"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {(attributes["href"] or "")[1:] for tag, attributes in page.tags if tag == "a"}
    assert links <= set(ids)
    assert "small <b>" not in html
    assert "<u>" not in html
    assert "codeact measure x" in page.text
    again = write_efficiency_report(facts, tmp_path / "again.html").read_text(encoding="utf-8")
    assert again == html
