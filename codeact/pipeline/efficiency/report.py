"""Measured candidates as one HTML page: which are right, what they cost, what was kept."""

from __future__ import annotations

import statistics
from pathlib import Path

from codeact.pipeline.efficiency.facts import EfficiencyFacts
from codeact.pipeline.efficiency.instruct import (
    kept_section,
    limits_section,
    pairs_section,
    reading_section,
)
from codeact.pipeline.efficiency.sections import (
    asked_section,
    comparison_section,
    correctness_section,
    cost_section,
    origins_section,
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
    records = facts.measurements.records
    passed = sum(record.passed for record in records)
    text = [
        f"Of {count(len(records), 'candidate')} for "
        f"{count(len(facts.measurements.tasks), 'task')}, "
        f"{count(passed)} answer every test."
    ]
    if facts.built is not None:
        text.append(
            f"{count(len(facts.built.sft), 'instruction')} and "
            f"{count(len(facts.built.pairs), 'preference pair')} came of them."
        )
    return text


def _key_figures(facts: EfficiencyFacts) -> list[KeyFigure]:
    records = facts.measurements.records
    figures = []
    if records:
        share = percent(sum(record.passed for record in records) / len(records))
        figures.append(KeyFigure(share, "right", f"of {count(len(records), 'candidate')}"))
    spreads = [
        records[-1].et_seconds / records[0].et_seconds
        for records in facts.races.values()
        if len(records) > 1 and records[0].et_seconds and records[-1].et_seconds
    ]
    if spreads:
        note = f"median of {count(len(spreads), 'task')}, CPU time"
        figures.append(KeyFigure(f"{statistics.median(spreads):.2f}×", "slowest / fastest", note))
    noise = facts.measurements.noise
    if noise:
        worst = max(one.cv for one in noise)
        figures.append(KeyFigure(f"{worst:.1%}", "scatter of one loop", "largest calibration"))
    if facts.built is not None:
        gain = (facts.built.summary.get("chosen_over_twin") or {}).get("et_seconds")
        if gain:
            value = gain["geometric_mean"]["value"]
            figures.append(
                KeyFigure(f"{value:.2f}×", "CPU time of a random right answer", "chosen")
            )
    return figures
