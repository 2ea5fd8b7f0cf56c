"""Pages of measured candidates, read back, and measurements to make them from."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from made_measurements import Made, MadeTask, candidates_of, make, reference, tasks_of

from codeact.efficiency import build_effi_instruct, compare_origins
from codeact.efficiency.racing.noise import Noise
from codeact.pipeline.efficiency.facts import EfficiencyFacts
from codeact.pipeline.efficiency.report import write_efficiency_report
from codeact.sandbox.verdict import STATUSES

ORIGINS = ("org/model-7b", "small <b>", "by hand")
FAILURES = [status for status in STATUSES if status != "passed"]
NUM_TASKS = 60


class Page(HTMLParser):
    """Visible text, the cells of every row, the texts of programs, and every tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.programs: list[str] = []
        self._open = ""
        self.feed(html)
        self.rows = [row for row in self.rows if row]  # heads have none of these cells
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")
        elif tag == "pre":
            self.programs.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style"):
            return
        self.words.append(data)
        if self._open == "td":
            self.rows[-1][-1] += data
        elif self._open == "pre":
            self.programs[-1] += data

    def row(self, *first: str) -> list[str]:
        """The cells of the only row that begins with these."""
        (found,) = [row for row in self.rows if row[: len(first)] == list(first)]
        return found


def made_tasks(origins: Sequence[str] = ORIGINS, *, references: bool = True) -> list[MadeTask]:
    """Two answers an origin, about half of them right; most tasks with a reference."""
    rng = random.Random(7)
    tasks = []
    for number in range(NUM_TASKS):
        base = rng.lognormvariate(-6, 1)

        def runs(factor: float, base: float = base) -> list[float]:
            return [base * factor * (1 + 0.02 * rng.random()) for _ in range(5)]

        answers = []
        if references and rng.random() < 0.85:
            answers.append(reference(*runs(1.3), memory=int(1e7 * rng.lognormvariate(0, 0.1))))
        for place, origin in enumerate(origins):
            for sample in range(2):
                name, memory = f"{origin}-{sample}", int(1e7 * rng.lognormvariate(0, 0.2))
                if rng.random() < 0.55:
                    factor = (1 + 0.2 * place) * rng.lognormvariate(0, 0.4)
                    answers.append(
                        Made(
                            name, runs(factor), memory, origin,
                            source=f"def f(x):\n    return x  # {name} {number} <i>",
                        )
                    )  # fmt: skip
                else:
                    status = rng.choice(FAILURES)
                    answers.append(Made(name, (), 0, origin, status, f"got <u> {status}"))
        tasks.append(
            MadeTask(
                f"task-{number}", answers, rng.random() < 0.1, "Return <x> & more, " * 20,
                has_reference=references,
            )
        )  # fmt: skip
    return tasks


def make_facts(
    tasks: Sequence[MadeTask], compare: tuple[str, str] | None = None, **options: Any
) -> EfficiencyFacts:
    measured = replace(
        make(tasks),
        noise=(Noise("before", 0.021, (0.07,), 1.5), Noise("after", 0.034, (0.07,), 2.25)),
        options={"rounds": 5, "max_rounds": 9},
    )
    given, candidates = tasks_of(tasks), candidates_of(tasks)
    built = build_effi_instruct(measured, given, candidates, confirm=False, **options)
    found = (compare_origins(measured, *compare, candidates=candidates),) if compare else ()
    return EfficiencyFacts(measured, given, candidates, built, found, command="codeact measure x")


def confirmed(facts: EfficiencyFacts) -> EfficiencyFacts:
    """As if every pair had been measured again, its gap now a tenth smaller."""
    assert facts.built is not None
    pairs = tuple(
        {**row, "confirmed": True, "gap": 0.9 * row["race_gap"]} for row in facts.built.pairs
    )
    return replace(facts, built=replace(facts.built, pairs=pairs))


def page_of(facts: EfficiencyFacts, folder: Path) -> Page:
    path = write_efficiency_report(facts, folder / "page.html")
    return Page(path.read_text(encoding="utf-8"))


def figure_data(html: str, anchor: str) -> dict[str, dict[str, Any]]:
    """The traces of a figure by name, as plotly will read them."""
    found = re.search(rf'Plotly\.newPlot\(\s*"figure-{anchor}",\s*', html)
    assert found is not None, anchor
    data, _ = json.JSONDecoder().raw_decode(html[found.end() :])
    return {trace["name"]: trace for trace in data}
