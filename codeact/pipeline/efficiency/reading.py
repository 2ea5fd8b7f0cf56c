"""Sections for a reader's own judgement: programs side by side, and what no number here says."""

from __future__ import annotations

import textwrap

from codeact.efficiency.instruct.choose import Beaten, Choice
from codeact.pipeline.efficiency.facts import EfficiencyFacts
from codeact.pipeline.report_parts import Card, CardGroup, Section
from codeact.pipeline.report_words import clipped

_CARDS = 4
_INSTRUCTION_CHARS = 160
_LINES = 24
_LIMITS = (
    "Tests decide what is right, on the inputs they have; a program may be right on all of them "
    "and wrong elsewhere. Small inputs say little about growth: a slower algorithm can win on "
    "them.",
    "Risky and non-algorithmic programs are found by rules, which miss some and mark some that "
    "are neither. What keeps a program from doing harm is the sandbox.",
    "A measured run repeats short work until it lasts. What a program keeps between repetitions "
    "outside its own module makes it look faster.",
    "Whether training on these answers makes a model’s code faster is not measured here. It takes "
    "a training run on them, one on the unoptimised twin, and a paired comparison.",
)


def reading_section(facts: EfficiencyFacts) -> Section:
    """The tasks whose right answers differ most, chosen and slowest side by side."""
    if facts.built is None or not facts.built.choices:
        return Section("reading", "Answers", absent="No task has a chosen answer.")
    both = [(one, max(one.beaten, key=_slowness)) for one in facts.built.choices if one.beaten]
    both.sort(key=lambda pair: -_slowness(pair[1]))  # stable: ties stay in the order of tasks
    cards = [_card(facts, choice, slowest) for choice, slowest in both[:_CARDS]]
    note = (
        "The tasks whose chosen and slowest right answers lie furthest apart in CPU time. A time "
        "is the least of all rounds, a ratio is over the rounds that both ran."
    )
    return Section("reading", "Answers", groups=[CardGroup("Furthest apart", note, cards)])


def limits_section() -> Section:
    """What the numbers do not say."""
    return Section("limits", "What this does not show", text=_LIMITS)


def _slowness(other: Beaten) -> float:
    return other.et_ratio


def _card(facts: EfficiencyFacts, choice: Choice, slowest: Beaten) -> Card:
    best = facts.sources.get((choice.task_id, choice.candidate_id), "")
    worst = facts.sources.get((choice.task_id, slowest.candidate_id), "")
    instruction = next(task.instruction for task in facts.tasks if task.id == choice.task_id)
    return Card(
        choice.task_id,
        textwrap.shorten(instruction, _INSTRUCTION_CHARS, placeholder=" …"),
        f"The slowest needs {slowest.et_ratio:.2f} times the CPU time and "
        f"{slowest.mu_ratio:.2f} times the memory.",
        *clipped(best, max_lines=_LINES),
        *clipped(worst, max_lines=_LINES),
        labels=(
            f"Chosen: {choice.origin}, {choice.et_seconds * 1e3:.3g} ms",
            f"Slowest right: {slowest.origin}, {slowest.et_seconds * 1e3:.3g} ms",
        ),
        even=True,
    )
