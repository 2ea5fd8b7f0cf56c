"""A selection as one HTML page: what it keeps of what, beside random rows."""

from __future__ import annotations

from pathlib import Path

from codeact.pipeline.report_page import KeyFigure, write_page
from codeact.pipeline.report_parts import Section
from codeact.pipeline.report_words import count, percent
from codeact.pipeline.selection_cost import cost_section, saved_flops
from codeact.pipeline.selection_facts import SelectionFacts, check_rows
from codeact.pipeline.selection_sections import (
    arms_section,
    decision_section,
    group_sections,
    map_section,
    overlap_section,
)
from codeact.selection.summary import expected_jaccard, jaccard

__all__ = ["SelectionFacts", "write_selection_report"]


def write_selection_report(facts: SelectionFacts, path: str | Path) -> Path:
    """Render the page; it carries its figures, styles and plotly.js and forbids any request.

    Args:
        facts: The selection and what it is compared with.
        path: HTML file to write.

    Returns:
        ``path``.

    Raises:
        InputError: An arm is of another number of rows.
    """
    check_rows(facts)
    return write_page(
        path,
        name=f"{facts.main.name} on {_data_name(facts)}",
        summary=_summary(facts),
        key_figures=_key_figures(facts),
        sections=_sections(facts),
        footer="about one selection",
        source_title="The command",
    )


def _sections(facts: SelectionFacts) -> list[Section]:
    settings = {**facts.main.selector.get_params(deep=False)}
    text = ", ".join(f"{name} = {value!r}" for name, value in settings.items())
    return [
        arms_section(facts),
        map_section(facts),
        *group_sections(facts),
        overlap_section(facts),
        cost_section(facts),
        decision_section(facts),
        Section("settings", "Settings", text=[f"{facts.main.name}: {text}."], source=facts.command),
    ]


def _data_name(facts: SelectionFacts) -> str:
    return Path(facts.examples.source).name


def _summary(facts: SelectionFacts) -> list[str]:
    """What was kept, and how that differs from random rows, in sentences."""
    lengths, unit = facts.lengths
    total = max(1, int(lengths.sum()))
    shares = {name: lengths[rows].sum() / total for name, rows in facts.selections.items()}
    kept = len(facts.main.selected)
    main, control = facts.main.name, facts.control.name
    return [
        f"Of {count(facts.num_rows, 'row')} of {_data_name(facts)}, {main} keeps {count(kept)} "
        f"({percent(kept / facts.num_rows)}), holding {percent(shares[main])} of the {unit} of "
        "all answers.",
        f"With the same budget, {control} keeps {count(len(facts.control.selected))}, holding "
        f"{percent(shares[control])}.",
    ]


def _key_figures(facts: SelectionFacts) -> list[KeyFigure]:
    """Rows, tokens, overlap with random rows, operations saved."""
    main, control = facts.main, facts.control
    kept, num_rows = len(main.selected), facts.num_rows
    lengths, unit = facts.lengths
    figures = [
        KeyFigure(
            percent(kept / num_rows),
            "of the rows kept",
            f"{count(kept)} of {count(num_rows, 'row')}",
        ),
        KeyFigure(
            percent(lengths[main.selected].sum() / max(1, lengths.sum())),
            f"of the answers' {unit}",
            f"{control.name}: {percent(lengths[control.selected].sum() / max(1, lengths.sum()))}",
        ),
    ]
    shared = jaccard({"main": main.selected, "control": control.selected}, num_rows)[0, 1]
    chance = expected_jaccard(kept, len(control.selected), num_rows)
    note = f"chance: {percent(chance)}"
    figures.append(KeyFigure(percent(shared), f"shared with {control.name} rows", note))
    spent = sum(cost.flops for cost in facts.costs)
    if spent and facts.candidates.num_tokens is not None:
        trained = max(facts.costs, key=lambda cost: cost.num_parameters)
        ratio = saved_flops(facts, trained) / spent
        note = f"{facts.epochs:g} epochs of the scoring model"
        figures.append(KeyFigure(f"{ratio:.2g}×", "the scoring's operations saved", note))
    return figures
