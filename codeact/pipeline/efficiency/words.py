"""What a measurement found, in a few lines for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from codeact.efficiency.measurements import REFERENCE
from codeact.pipeline.efficiency.facts import EfficiencyFacts
from codeact.pipeline.report_words import count


def result_words(facts: EfficiencyFacts) -> Iterator[str]:
    """Statuses, races, records and comparisons, a line each."""
    records = [one for one in facts.measurements.records if one.origin != REFERENCE]
    statuses = Counter(one.status for one in records)
    words = ", ".join(f"{name} {count(number)}" for name, number in statuses.most_common())
    yield f"{count(len(records), 'candidate')}: {words}"
    references = [one for one in facts.measurements.records if one.origin == REFERENCE]
    failed = [one for one in references if not one.passed]
    if failed:
        first = failed[0]
        yield (
            f"{count(len(failed))} of {count(len(references), 'reference')} fail their own tests: "
            f"{first.task_id}: {first.status}, {first.reason}"
        )
    races = Counter(race.status for race in facts.measurements.tasks)
    words = ", ".join(f"{name.replace('_', ' ')} {count(n)}" for name, n in races.most_common())
    yield f"{count(len(facts.measurements.tasks), 'race')}: {words}"
    if facts.built is not None:
        dropped = Counter(one.reason for one in facts.built.dropped)
        words = ", ".join(f"{name.replace('_', ' ')} {count(n)}" for name, n in dropped.items())
        yield (
            f"{count(len(facts.built.sft), 'instruction')}, "
            f"{count(len(facts.built.pairs), 'pair')}; left out: {words or 'nothing'}"
        )
    for comparison in facts.comparisons:
        yield comparison.verdict()
