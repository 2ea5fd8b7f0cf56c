"""Sections about the measurement: what was asked, which answers are right, what they cost."""

from __future__ import annotations

import statistics
from collections import Counter

from codeact.efficiency.racing.measurements import MeasuredCandidate
from codeact.efficiency.racing.noise import MAX_CV, Noise
from codeact.pipeline.efficiency.facts import EfficiencyFacts
from codeact.pipeline.efficiency.figures import MAX_POINTS, ratio_histogram, time_memory_scatter
from codeact.pipeline.efficiency.labels import DECIDED_BY, OUTCOMES, RACES, outcome_of, words
from codeact.pipeline.report_parts import Section, Table, as_figure
from codeact.pipeline.report_words import count, percent

_SHOWN_CALIBRATIONS = 4


def asked_section(facts: EfficiencyFacts) -> Section:
    """The machine, the protocol, and how quiet it was."""
    measured, host = facts.measurements, facts.measurements.host
    options = measured.options
    tools = "; ".join(f"{name}: {version}" for name, version in sorted(host.tools.items()))
    rounds = f"{options.get('rounds')}, up to {options.get('max_rounds')} in close races"
    lines = [
        ["tasks", count(len({race.task_id for race in measured.tasks}))],
        ["candidates", f"{count(len(facts.answers))}, copies of one origin counted once"],
        ["tasks with a solution of their own", count(len(facts.references))],
        ["processor", f"{host.cpu_model}, {count(host.num_cpus, 'CPU')}"],
        ["frequency governor", host.governor],
        ["kernel", host.kernel],
        ["sandbox", f"{host.sandbox}, bubblewrap {host.bubblewrap or 'not used'}"],
        ["compilers and interpreters", tools or "—"],
        ["measured runs of an answer", rounds if "rounds" in options else "—"],
        ["scatter of one and the same loop", _calibrations(measured.noise)],
    ]
    text = [
        "A candidate first has to answer every test, in a sandbox that never holds an expected "
        "answer. The right answers of a task in one language, its own solution among them, then "
        "race on one CPU in alternating order. Time (ET) is CPU time, the least of all rounds, "
        "less that of an empty program on the same inputs; memory (MU) is the least peak; TMU is "
        "memory integrated over CPU time, less that of the empty program. All three are for all "
        "tests of the task once. Numbers of two machines cannot be compared."
    ]
    if any(not one.quiet for one in measured.noise):
        text.append(
            f"The machine was busy: CPU time of one and the same loop scatters by more than "
            f"{percent(MAX_CV)}. Small differences on this page may be noise."
        )
    return Section(
        "asked", "What was measured", text=text, tables=[Table(["", ""], lines, num_text_columns=2)]
    )


def correctness_section(facts: EfficiencyFacts) -> Section:
    """Outcomes by origin, and a line for each status that is not right."""
    rows = []
    for origin, records in sorted(
        facts.measurements.by_origin().items(), key=lambda item: facts.origins.index(item[0])
    ):
        found = Counter(outcome_of(record.status) for record in records)
        rows.append([origin, count(len(records)), *(count(found[outcome]) for outcome in OUTCOMES)])
    right = sum(record.passed for record in facts.answers)
    text = [
        f"{count(right)} of {count(len(facts.answers), 'candidate')} "
        f"({percent(right / max(1, len(facts.answers)))}) "
        f"{'answers' if right == 1 else 'answer'} every test."
    ]
    if facts.references:
        right = sum(record.passed for record in facts.references)
        text.append(
            f"Of {count(len(facts.references), 'solution')} that came with the tasks, "
            f"{count(right)} {'does' if right == 1 else 'do'}."
        )
    caption = "Candidates by what became of them; the status of each is in the table below."
    tables = [Table(["origin", "candidates", *OUTCOMES], rows, caption if _failed(facts) else "")]
    if lines := _failed(facts):
        head = ["status", "number", "task of the first", "its origin", "its reason"]
        tables.append(Table(head, lines, num_text_columns=5))
    return Section("correct", "Which answers are right", text=[" ".join(text)], tables=tables)


def cost_section(facts: EfficiencyFacts) -> Section:
    """Scatter of time and memory, the spread within tasks."""
    races = Counter(race.status for race in facts.measurements.tasks)
    others = [f"{RACES[name]} {count(n)}" for name, n in races.items() if name != "ranked"]
    total = count(len(facts.measurements.tasks), facts.unit)
    note = f" ({', '.join(others)})" if others else ""
    text = [f"Of {total}, {count(races['ranked'])} could be ranked{note}."]
    if not facts.points:
        absent = "No task has two right answers that could be ranked."
        return Section("cost", "Time and memory", absent=absent, text=text)
    text += [_told_apart(facts), _spread_words(facts)]
    beside = _yardstick(facts)
    caption = f"Right answers beside {beside}; left of 1 is faster, below 1 smaller."
    if len(facts.points) > MAX_POINTS:
        caption += f" {count(MAX_POINTS)} of {count(len(facts.points))}, drawn at random."
    genitive = "the reference’s" if beside.startswith("the reference") else "the fastest’s"
    scatter = time_memory_scatter(facts.points, facts.origins, genitive)
    ratios = {"slowest / fastest right answer": [span.slowest for span in facts.spans]}
    known = [span.reference for span in facts.spans if span.reference is not None]
    if known:
        ratios["reference / fastest right answer"] = known
    speedups = ratio_histogram(ratios, "ratio of CPU times", facts.unit + "s")
    figures = [
        as_figure("time-memory", caption, scatter),
        as_figure(
            "speed-up",
            f"How far the right answers to one {facts.unit} lie apart in CPU time.",
            speedups,
        ),
    ]
    return Section("cost", "Time and memory", text=text, figures=figures)


def _calibrations(noise: tuple[Noise, ...]) -> str:
    """Coefficients of variation with their loads; only the range of many."""
    if not noise:
        return "not calibrated"
    if len(noise) > _SHOWN_CALIBRATIONS:
        ends = percent(min(one.cv for one in noise)), percent(max(one.cv for one in noise))
        return f"{ends[0]} to {ends[1]} in {count(len(noise))} calibrations"
    return ", ".join(
        f"{percent(one.cv)} {one.when} the races (load {one.load_average:.3g})" for one in noise
    )


def _failed(facts: EfficiencyFacts) -> list[list[str]]:
    """Status, number and first candidate of each kind of failure, most frequent first."""
    groups: dict[str, list[MeasuredCandidate]] = {}
    for record in facts.measurements.records:
        if not record.passed:
            groups.setdefault(record.status, []).append(record)
    return [
        [words(status), count(len(found)), found[0].task_id, found[0].origin, found[0].reason]
        for status, found in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _yardstick(facts: EfficiencyFacts) -> str:
    """What points are set against."""
    keys = {(point.record.task_id, point.record.language) for point in facts.points}
    known = keys & facts.ranked_references.keys()
    if not known:
        return f"the fastest of their {facts.unit}"
    if len(known) < len(keys):
        return f"the reference of their {facts.unit}, or beside the fastest where there is none"
    return f"the reference of their {facts.unit}"


def _told_apart(facts: EfficiencyFacts) -> str:
    """By what first places were decided."""
    rules = Counter(
        records[0].tie_rule or "cpu" for records in facts.races.values() if len(records) > 1
    )
    parts = [f"{DECIDED_BY.get(rule, rule)} {count(n)}" for rule, n in rules.most_common()]
    return f"What put the first before the second: {', '.join(parts)}."


def _spread_words(facts: EfficiencyFacts) -> str:
    """The median spread, and the reference's place."""
    slowest = statistics.median(span.slowest for span in facts.spans)
    text = (
        f"The slowest right answer needs {slowest:.2f} times the CPU time of the fastest "
        f"(median of {count(len(facts.spans), facts.unit)} with two or more)"
    )
    known = [span.reference for span in facts.spans if span.reference is not None]
    if known:
        middle = statistics.median(known)
        text += f", the reference {middle:.2f} times (median of {count(len(known))})"
    return text + "."
