"""Rows of an influence report, for reading: the highest, the lowest, those that tasks dispute."""

from __future__ import annotations

from textwrap import shorten

import numpy as np
from numpy.typing import NDArray

from codeact.pipeline.influence.facts import Floats, InfluenceFacts
from codeact.pipeline.influence.words import number, without_unit
from codeact.pipeline.report_parts import Card, CardGroup, Section, Table
from codeact.pipeline.report_words import clipped, count

_PER_END = 4  # cards of the highest, of the lowest
_PER_TASK = 2  # cards of the rows on which tasks differ most
_START = 110  # characters of an instruction in a table


def rows_section(facts: InfluenceFacts) -> Section:
    """The highest and the lowest rows, for reading."""
    values = facts.influence
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return Section("rows", "Rows", "No row has an influence.")
    order = known[np.argsort(-values[known], kind="stable")]
    half = (len(order) + 1) // 2
    best, worst = order[:half][:_PER_END], order[half:][::-1][:_PER_END]
    groups = [
        CardGroup(_end_title(values[best] > 0, "helpful", "harmful"), "", cards(facts, best)),
        CardGroup(_end_title(values[worst] < 0, "harmful", "helpful"), "", cards(facts, worst)),
    ]
    if len(facts.tasks) > 1:
        spread = np.ptp(places(facts.by_task), axis=1)
        apart = known[np.argsort(-spread[known], kind="stable")][:_PER_TASK]
        note = "Rows whose places in the tasks' rankings differ most."
        groups.append(CardGroup("Where tasks disagree", note, cards(facts, apart)))
    text = [
        "By the mean over tasks. Places are counted among the rows that have an influence, the "
        "most helpful first."
    ]
    return Section("rows", "Rows", text=text, groups=[group for group in groups if group.cards])


def _end_title(is_so: NDArray[np.bool_], what: str, opposite: str) -> str:
    """The top of a pool may harm, and the bottom may help."""
    return f"Most {what}" if is_so.all() else f"Least {opposite}"


def places(columns: Floats) -> Floats:
    """(num_rows, num_columns) place of each row in each column, 0 the highest and 1 the lowest."""
    found = np.full(columns.shape, np.nan)
    for column, values in enumerate(columns.T):
        known = np.isfinite(values)
        ranks = np.argsort(np.argsort(-values[known], kind="stable"), kind="stable")
        found[known, column] = ranks / max(1, len(ranks) - 1)
    return found


def cards(facts: InfluenceFacts, rows: NDArray[np.int64]) -> list[Card]:
    """Rows with their influence and excerpts."""
    values, by_task = facts.influence, facts.by_task
    known = np.isfinite(values)
    shown = []
    for row in rows.tolist():
        example = facts.examples[row]
        place = int((values[known] > values[row]).sum()) + 1
        words = [f"influence {number(values[row])}"]
        words.append(f"place {count(place)} of {count(known.sum())}")
        for name, column in facts.others.items():
            short = {"answer length (tokens)": "answer tokens"}.get(name, without_unit(name))
            words.append(f"{short} {number_or_count(column[row])}")
        words.append(facts.languages[row])
        parts = zip(facts.tasks, by_task[row].tolist(), strict=True)
        reason = ", ".join(f"{task} {number(value)}" for task, value in parts)
        shown.append(
            Card(
                example.id,
                " · ".join(words),
                f"On {reason}." if len(facts.tasks) > 1 else "",
                *clipped(example.instruction),
                *clipped(example.response),
            )
        )
    return shown


def number_or_count(value: float) -> str:
    """Whole numbers with thousands, others with three digits."""
    whole = np.isfinite(value) and float(value).is_integer()
    return count(value) if whole else number(value)


def row_table(facts: InfluenceFacts, rows: NDArray[np.int64], caption: str) -> Table:
    """Rows on one line each."""
    lines = []
    for row in rows.tolist():
        example = facts.examples[row]
        start = shorten(example.instruction, _START, placeholder=" …")
        value = number(facts.influence[row])
        lines.append([example.id, start, facts.languages[row], value])
    head = ["row", "instruction", "language", "influence"]
    return Table(head, lines, caption, num_text_columns=3)
