"""What a measurement found, in a few lines for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from codeact.pipeline.efficiency.facts import EfficiencyFacts
from codeact.pipeline.efficiency.labels import RACES, REASONS, words
from codeact.pipeline.report_words import count


def result_words(facts: EfficiencyFacts) -> Iterator[str]:
    """Statuses, races, records and comparisons, a line each."""
    yield f"{count(len(facts.answers), 'candidate')}: " + _counts(
        Counter(words(one.status) for one in facts.answers)
    )
    failed = [one for one in facts.references if not one.passed]
    if failed:
        first = failed[0]
        verb = "fails its" if len(failed) == 1 else "fail their"
        yield (
            f"{count(len(failed))} of {count(len(facts.references), 'reference')} {verb} own "
            f"tests: {first.task_id}: {words(first.status)}, {first.reason}"
        )
    races = facts.measurements.tasks
    yield f"{count(len(races), 'race')}: " + _counts(Counter(RACES[one.status] for one in races))
    if facts.built is not None:
        for stage, number, noun in (
            ("task", len(facts.built.sft), "instruction"),
            ("pair", len(facts.built.pairs), "pair"),
        ):
            dropped = Counter(one.reason for one in facts.built.dropped if one.stage == stage)
            reasons = Counter({REASONS.get(name, name): n for name, n in dropped.items()})
            yield f"{count(number, noun)}; left out: {_counts(reasons)}"
    for comparison in facts.comparisons:
        yield comparison.verdict()
    if facts.not_compared:
        yield f"not compared: {facts.not_compared}"


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{name} {count(n)}" for name, n in found.most_common()) or "nothing"
