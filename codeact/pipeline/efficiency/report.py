"""Measured candidates as one HTML page: which are right, what they cost, what was kept."""

from __future__ import annotations

import statistics
from pathlib import Path

from codeact.efficiency.racing.noise import MAX_CV
from codeact.pipeline.efficiency.facts import EfficiencyFacts
from codeact.pipeline.efficiency.instruct import kept_section, pairs_section
from codeact.pipeline.efficiency.origins import comparison_section, origins_section
from codeact.pipeline.efficiency.reading import limits_section, reading_section
from codeact.pipeline.efficiency.sections import (
    asked_section,
    correctness_section,
    cost_section,
)
from codeact.pipeline.report_page import KeyFigure, write_page
from codeact.pipeline.report_parts import Section
from codeact.pipeline.report_words import count, percent


def write_efficiency_report(facts: EfficiencyFacts, path: str | Path) -> Path:
    """Render the page; it carries its figures, styles and plotly.js and forbids any request.

    Returns:
        ``path``.
    """
    sections = [
        asked_section(facts),
        correctness_section(facts),
        cost_section(facts),
        origins_section(facts),
        comparison_section(facts),
        kept_section(facts),
        pairs_section(facts),
        reading_section(facts),
        limits_section(),
        *([Section("command", "Command", source=facts.command)] if facts.command else []),
    ]
    return write_page(
        path,
        name="Efficiency of candidate solutions",
        summary=_summary(facts),
        key_figures=_key_figures(facts),
        sections=sections,
        footer="about one measurement",
        source_title="The command",
    )


def _summary(facts: EfficiencyFacts) -> list[str]:
    passed = sum(record.passed for record in facts.answers)
    num_tasks = len({race.task_id for race in facts.measurements.tasks})
    text = [
        f"Of {count(len(facts.answers), 'candidate')} for {count(num_tasks, 'task')}, "
        f"{count(passed)} {'answers' if passed == 1 else 'answer'} every test."
    ]
    if facts.built is not None:
        among = ""
        if facts.references and facts.built.summary["options"]["include_reference"]:
            among = ", the tasks’ own solutions among them,"
        text.append(
            f"The right answers{among} give {count(len(facts.built.sft), 'instruction')} and "
            f"{count(len(facts.built.pairs), 'preference pair')}."
        )
    return text


def _key_figures(facts: EfficiencyFacts) -> list[KeyFigure]:
    """How many are right, how far they lie apart, what choosing gains, how quiet it was."""
    figures = []
    if facts.answers:
        share = percent(sum(record.passed for record in facts.answers) / len(facts.answers))
        figures.append(KeyFigure(share, "right", f"of {count(len(facts.answers), 'candidate')}"))
    if facts.spans:
        middle = statistics.median(span.slowest for span in facts.spans)
        note = f"CPU time, median of {count(len(facts.spans), facts.unit)}"
        figures.append(KeyFigure(f"{middle:.2f}×", "slowest / fastest right answer", note))
    gain = (facts.built.summary.get("chosen_over_twin") or {}) if facts.built else {}
    if found := gain.get("et_seconds"):
        value, number = found["geometric_mean"]["value"], found["num_tasks"]
        note = f"CPU time, geometric mean of {count(number, facts.unit)}"
        figures.append(KeyFigure(f"{value:.2f}×", "chosen / random right answer", note))
    if noise := facts.measurements.noise:
        worst = max(one.cv for one in noise)
        note = f"largest of {count(len(noise), 'calibration')}"
        if worst > MAX_CV:
            note += f", above {percent(MAX_CV)}: a busy machine"
        figures.append(KeyFigure(percent(worst), "scatter of one loop", note))
    return figures
