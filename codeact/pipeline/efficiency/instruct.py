"""Sections about the training records: what was kept and dropped, pairs, answers for reading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from codeact.efficiency.choose import Choice
from codeact.efficiency.effi_instruct import EffiInstruct
from codeact.pipeline.efficiency.facts import EfficiencyFacts
from codeact.pipeline.efficiency.figures import again_scatter
from codeact.pipeline.report_parts import Card, CardGroup, Section, Table, as_figure
from codeact.pipeline.report_words import clipped, count

_CARDS = 4
_REASONS = {
    "all_fail": "no right answer",
    "unsafe": "only answers with risky operations",
    "not_algorithmic": "not a question of algorithms",
    "no_spread": "all right answers alike",
    "too_short": "too little work to measure",
    "not_measured": "not measured",
    "no_slower_answer": "no slower right answer",
    "gap_too_small": "gap too small",
    "runs_overlap": "runs of the two overlap",
    "not_confirmed": "gap not confirmed when measured again",
}


def kept_section(facts: EfficiencyFacts) -> Section:
    """Instructions: how many, from whom, what the choice gained over a random right answer."""
    built = facts.built
    if built is None:
        return Section("kept", "Instructions", absent="No instructions were asked for.")
    chosen = Counter(choice.origin for choice in built.choices)
    decided = Counter(choice.decided_by for choice in built.choices)
    tables = [
        Table(
            ["chosen answer by", "tasks"], [[name, count(n)] for name, n in chosen.most_common()]
        ),
        Table(["decided by", "tasks"], [[name, count(n)] for name, n in decided.most_common()]),
        _dropped(built, "task", "tasks"),
    ]
    text = [f"{count(len(built.sft), 'instruction')} with the most efficient right answer."]
    gains = built.summary.get("chosen_over_twin") or {}
    if words := _gain(gains):
        text.append(
            f"Beside a right answer drawn at random for each of these tasks, which is the "
            f"unoptimised twin, {words}. Train on both: only the difference between the two is "
            "what efficiency gave."
        )
    return Section("kept", "Instructions", text=text, tables=[one for one in tables if one.rows])


def pairs_section(facts: EfficiencyFacts) -> Section:
    """Preference pairs and how their gap held when measured again."""
    built = facts.built
    if built is None or not built.pairs:
        return Section("pairs", "Preference pairs", absent="There are none.")
    tables = [_dropped(built, "pair", "tasks")]
    text = [f"{count(len(built.pairs), 'pair')} of the most and the least efficient right answer."]
    figures = []
    confirmed = [row for row in built.pairs if row.get("confirmed")]
    if confirmed:
        text.append(
            "Each was measured again, alone: the first gap of a pair that was chosen for its gap "
            "is too large on average. The published gap is the fresh one."
        )
        gaps = [[float(row[name]) for row in confirmed] for name in ("race_gap", "gap")]
        caption = "Points on the line kept their gap."
        figures.append(as_figure("again", caption, again_scatter(gaps[0], gaps[1])))
    return Section(
        "pairs",
        "Preference pairs",
        text=text,
        figures=figures,
        tables=[one for one in tables if one.rows],
    )


def reading_section(facts: EfficiencyFacts) -> Section:
    """The tasks whose right answers differ most, chosen and slowest side by side."""
    built = facts.built
    if built is None or not built.choices:
        return Section("reading", "Answers", absent="No task has a chosen answer.")
    apart = sorted(built.choices, key=lambda one: -one.beaten[-1].et_ratio if one.beaten else 0)
    cards = [_card(facts, choice) for choice in apart[:_CARDS] if choice.beaten]
    note = "The chosen answer above, the slowest right one below."
    return Section("reading", "Answers", groups=[CardGroup("Furthest apart", note, cards)])


def limits_section() -> Section:
    """What the numbers do not say."""
    text = [
        "Tests decide what is right, on the inputs they have; a program may be right on all of "
        "them and wrong elsewhere. Small inputs say little about growth: a slower algorithm can "
        "win on them.",
        "A measured run repeats short work until it lasts. What a program keeps between "
        "repetitions outside its own module would make it look faster.",
        "Whether training on these answers makes a model's code faster is not measured here. It "
        "takes a training run on them, one on the unoptimised twin, and a paired comparison.",
    ]
    return Section("limits", "What this does not show", text=text)


def _dropped(built: EffiInstruct, stage: str, noun: str) -> Table:
    reasons = Counter(one.reason for one in built.dropped if one.stage == stage)
    rows = [[_REASONS.get(name, name), count(n)] for name, n in reasons.most_common()]
    return Table(["left out because", noun], rows)


def _gain(gains: Mapping[str, Any]) -> str:
    """Less CPU time and memory, in words; empty without numbers."""
    names = {"et_seconds": "CPU time", "mu_bytes": "peak memory", "tmu_byte_seconds": "TMU"}
    parts = []
    for key, name in names.items():
        if found := gains.get(key):
            mean = found["geometric_mean"]
            parts.append(
                f"{name} is {mean['value']:.2f} times as large ({mean['low']:.2f} to "
                f"{mean['high']:.2f})"
            )
    return ", ".join(parts)


def _card(facts: EfficiencyFacts, choice: Choice) -> Card:
    slowest = choice.beaten[-1]
    sources = facts.sources
    best = sources.get((choice.task_id, choice.candidate_id), "")
    worst = sources.get((choice.task_id, slowest.candidate_id), "")
    return Card(
        choice.task_id,
        f"{choice.origin}: {choice.et_seconds * 1e3:.3g} ms · {slowest.origin}: "
        f"{slowest.et_seconds * 1e3:.3g} ms",
        f"{slowest.et_ratio:.1f} times the CPU time, {slowest.mu_ratio:.2f} times the memory.",
        *clipped(best),
        *clipped(worst),
    )
