"""Sections about the training records: what was kept and dropped, pairs and their gaps."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping
from typing import Any

from codeact.efficiency.instruct.effi_instruct import EffiInstruct
from codeact.pipeline.efficiency.facts import EfficiencyFacts
from codeact.pipeline.efficiency.figures import again_scatter
from codeact.pipeline.efficiency.labels import DECIDED_BY, REASONS
from codeact.pipeline.report_parts import Section, Table, as_figure
from codeact.pipeline.report_words import count

_RULES = {
    "lexicographic": "of least CPU time (within 3 %: fewest instructions where they were "
    "counted, else least TMU, then the shorter source)",
    "pareto": "that no other beats in both CPU time and memory, of these the one of least TMU",
    "weighted": "of the smallest product of CPU time, memory and TMU",
}


def kept_section(facts: EfficiencyFacts) -> Section:
    """Instructions: how many, from whom, what the choice gained over a random right answer."""
    built = facts.built
    if built is None:
        return Section("kept", "Instructions", absent="No instructions were asked for.")
    unit = facts.unit + "s"
    rule = built.summary["options"]["rule"]
    text = [
        f"{count(len(built.sft))} of {count(len(facts.measurements.tasks), facts.unit)} "
        f"{'gives' if len(built.sft) == 1 else 'give'} an instruction, with the right answer "
        f"{_RULES[rule]}."
    ]
    gains = built.summary.get("chosen_over_twin") or {}
    if words := _gain(gains):
        text.append(
            f"Beside the unoptimised twin, a right answer drawn at random for each of these "
            f"{unit}, {words}. These are the measurements that the choice was made from: what "
            "looks fast by luck is chosen more often, so the true gain is smaller. Training on "
            "each of the two sets, all else equal, shows what the choice alone does."
        )
    chosen = Counter(choice.origin for choice in built.choices)
    decided = Counter(DECIDED_BY.get(one.decided_by, one.decided_by) for one in built.choices)
    tables = [
        Table([head, unit], [[name, count(n)] for name, n in found.most_common()])
        for head, found in (("chosen answer by", chosen), ("chosen for", decided))
    ]
    tables.append(_dropped(built, "task", unit))
    return Section("kept", "Instructions", text=text, tables=[one for one in tables if one.rows])


def pairs_section(facts: EfficiencyFacts) -> Section:
    """Preference pairs and how their gap held when measured again."""
    title, built = "Preference pairs", facts.built
    if built is None:
        return Section("pairs", title, absent="No pairs were asked for.")
    left_out = _dropped(built, "pair", facts.unit + "s with an instruction")
    tables = [left_out] if left_out.rows else []
    if not built.pairs:
        return Section("pairs", title, absent="No pair holds.", tables=tables)
    least = 1 + built.summary["options"]["min_gap"]
    text = [
        f"{count(len(built.pairs), 'pair')} of the chosen and the slowest right answer, which "
        f"needs at least {least:g} times the CPU time."
    ]
    confirmed = [row for row in built.pairs if row["confirmed"]]
    if not confirmed:
        text.append(
            "They were not measured again: the gap of a pair that was chosen for its gap is too "
            "large on average."
        )
        return Section("pairs", title, text=text, tables=tables)
    race, again = ([1 + float(row[name]) for row in confirmed] for name in ("race_gap", "gap"))
    text.append(
        "Each was measured again, alone, because the gap of a pair that was chosen for its gap is "
        f"too large on average; the gap in the file is the new one. The median was "
        f"{statistics.median(race):.2f} times in the race and is {statistics.median(again):.2f} "
        "times now, among the pairs that held."
    )
    caption = "CPU time of slowest / chosen, twice: below the line the gap became smaller."
    figure = again_scatter(race, again, [str(row["task_id"]) for row in confirmed])
    return Section(
        "pairs", title, text=text, figures=[as_figure("again", caption, figure)], tables=tables
    )


def _dropped(built: EffiInstruct, stage: str, noun: str) -> Table:
    reasons = Counter(one.reason for one in built.dropped if one.stage == stage)
    rows = [[REASONS.get(name, name), count(n)] for name, n in reasons.most_common()]
    return Table(["left out because of", noun], rows)


def _gain(gains: Mapping[str, Any]) -> str:
    """CPU time and memory of chosen / drawn, in words; empty without numbers."""
    names = {"et_seconds": "CPU time", "mu_bytes": "peak memory", "tmu_byte_seconds": "TMU"}
    found = {name: gains[key]["geometric_mean"] for key, name in names.items() if key in gains}
    if not found:
        return ""
    words = ", ".join(f"{name} is {_times(mean)}" for name, mean in found.items())
    if not any(mean["low"] < mean["high"] for mean in found.values()):
        return words
    level = 100 * next(iter(gains.values()))["confidence"]
    return f"{words} in the geometric mean, with {level:g}\xa0% bootstrap intervals"


def _times(mean: Mapping[str, float]) -> str:
    """With its interval, unless that is a point: one task, or none that differs."""
    ends = f" ({mean['low']:.3f} to {mean['high']:.3f})" if mean["low"] < mean["high"] else ""
    return f"{mean['value']:.3f} times as large{ends}"
