"""Influence as one HTML page: which rows help which tasks, for how long, and how sure that is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from codeact.evaluation import spearman
from codeact.pipeline.influence.facts import InfluenceFacts, check_facts
from codeact.pipeline.influence.languages import language_section
from codeact.pipeline.influence.limits import limits_section, oracle_section, predictor_section
from codeact.pipeline.influence.over_time import checkpoint_section, extreme_section, task_section
from codeact.pipeline.influence.rows import rows_section
from codeact.pipeline.influence.sections import (
    asked_section,
    distribution_section,
    relation_section,
)
from codeact.pipeline.influence.words import listed, rho
from codeact.pipeline.report_page import KeyFigure, write_page
from codeact.pipeline.report_parts import Section
from codeact.pipeline.report_words import count, duration, percent

__all__ = ["InfluenceFacts", "write_influence_report"]

_MOST_KEY_FIGURES = 4  # one line of them


def write_influence_report(facts: InfluenceFacts, path: str | Path) -> Path:
    """Render the page; it carries its figures, styles and plotly.js and forbids any request.

    Args:
        facts: The influence table and what was checked beside it.
        path: HTML file to write.

    Returns:
        ``path``.

    Raises:
        InputError: Facts that do not belong together.
    """
    check_facts(facts)
    return write_page(
        path,
        name=f"Influence of {_data_name(facts)}",
        summary=_summary(facts),
        key_figures=_key_figures(facts),
        sections=_sections(facts),
        footer="about one influence table",
        source_title="The command",
    )


def _sections(facts: InfluenceFacts) -> list[Section]:
    return [
        asked_section(facts),
        distribution_section(facts),
        rows_section(facts),
        relation_section(facts),
        task_section(facts),
        checkpoint_section(facts),
        extreme_section(facts),
        language_section(facts),
        oracle_section(facts),
        predictor_section(facts),
        limits_section(facts),
        *([Section("command", "Command", source=facts.command)] if facts.command else []),
    ]


def _data_name(facts: InfluenceFacts) -> str:
    return Path(facts.examples.source).name


def _summary(facts: InfluenceFacts) -> list[str]:
    """How many rows help, and what that rests on."""
    values = facts.influence[np.isfinite(facts.influence)]
    if not len(values):
        return [f"None of {count(facts.num_rows, 'row')} of {_data_name(facts)} has an influence."]
    checkpoints = facts.over_time.checkpoints
    means = ["tasks"] if len(facts.tasks) > 1 else []
    means += ["checkpoints"] if len(checkpoints) > 1 else []
    where = f", in the mean over {' and '.join(means)}" if means else ""
    if facts.num_predicted:
        where += f"; for {count(facts.num_predicted)} of the rows this is predicted, not measured"
    return [
        f"Of {count(len(values), 'row')} of {_data_name(facts)}, {count((values > 0).sum())} "
        f"({percent((values > 0).mean())}) lower the loss on {listed(facts.tasks)} when the model "
        f"takes a small step on one of them alone{where}.",
        "Random rows of the same lengths remain the baseline that a selection has to beat.",
    ]


def _key_figures(facts: InfluenceFacts) -> list[KeyFigure]:
    """Harm, agreement of tasks and of checkpoints, the exact check, the price."""
    from codeact.scoring.influence.drift import between_checkpoints, rank_agreement

    figures = []
    values = facts.influence[np.isfinite(facts.influence)]
    if len(values):
        note = f"{count((values < 0).sum())} of {count(len(values), 'row')}"
        note += ", mean over tasks" if len(facts.tasks) > 1 else ""
        figures.append(KeyFigure(percent((values < 0).mean()), "of the rows harm", note))
    if len(facts.tasks) > 1:
        found = rank_agreement(facts.by_task, facts.tasks)
        note = "Spearman ρ, mean over pairs" if len(facts.tasks) > 2 else "Spearman ρ"
        figures.append(KeyFigure(rho(found.mean), "between tasks", note))
    if len(facts.over_time.checkpoints) > 1:
        ends = [one.rho[0, -1] for one in between_checkpoints(facts.over_time).values()]
        note = "Spearman ρ, lowest task" if len(ends) > 1 else "Spearman ρ"
        figures.append(KeyFigure(rho(min(ends)), "first and last checkpoint", note))
    if facts.oracle:
        checks = {task: spearman(*pair) for task, pair in facts.oracle.items()}
        worst = min(checks.values(), key=lambda one: one.rho)
        note = f"Spearman ρ, {count(worst.num_pairs, 'row')}"
        note += ", lowest task" if len(checks) > 1 else ""
        figures.append(KeyFigure(rho(worst.rho, 3), "fast against exact", note))
    if facts.seconds is not None and facts.scoring_seconds:
        ratio = f"{facts.seconds / facts.scoring_seconds:.1f}×"
        figures.append(KeyFigure(ratio, "a plain scoring pass", duration(facts.seconds)))
    return figures[:_MOST_KEY_FIGURES]
