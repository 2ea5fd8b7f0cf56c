"""The table of the report on what training was to cost, what it cost, and what that saved."""

from __future__ import annotations

from collections.abc import Mapping

from codeact.pipeline.report_facts import RunFacts
from codeact.pipeline.report_parts import Table
from codeact.pipeline.report_words import duration, memory, percent


def cost_table(facts: RunFacts) -> list[Table]:
    """Predicted against achieved time and memory, and the savings; none of older runs."""
    lines, sources, batch_sizes = [], [], []
    for arm, run in facts.summaries.items():
        before, after = run.get("forecast"), run.get("spending")
        if after is None:
            continue
        expected = ("—", "—")  # of a short run
        if before is not None:
            expected = (duration(before["seconds"]), memory(before["peak_mib"]))
        sources.append(after["peak_source"])
        batch_sizes.append(after["batch_size"])
        lines.append(
            [
                facts.arm_names[arm],
                f"{expected[0]}, {duration(after['seconds'])}",
                f"{expected[1]}, {memory(after['peak_mib'])}",
                percent(after["mfu"]),
                *(_saved(after[f"saved_{name}"]) for name in ("by_packing", "by_selection")),
                _saved(after["saved_in_all"]),
            ]
        )
    if not lines:
        return []
    head = [
        "", "time: predicted, taken", "peak memory: predicted, taken", "utilisation",
        "saved by packing", "saved by selection", "saved by both",
    ]  # fmt: skip
    caption = (
        f"Utilisation is of the speed of {sources[0]}. Savings of time are against padded batches "
        f"of {batch_sizes[0]}, against all rows packed alike, and against all rows in such "
        "batches, by the operations that each needs at the speed reached here. A minus sign is a "
        "loss."
    )
    return [Table(head, lines, caption)]


def _saved(saving: Mapping[str, float] | None) -> str:
    if saving is None:
        return "—"
    sign = "−" if saving["seconds"] < 0 else ""
    share, seconds = percent(abs(saving["share"])), duration(abs(saving["seconds"]))
    return f"{sign}{share} ({sign}{seconds})"
