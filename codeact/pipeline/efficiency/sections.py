"""Sections about the measurement: what was asked, which answers are right, what they cost."""

from __future__ import annotations

import statistics
from collections import Counter

from codeact.efficiency.measurements import REFERENCE, MeasuredCandidate
from codeact.efficiency.metrics import Estimate, Normalised, normalised
from codeact.efficiency.solved import author_of
from codeact.pipeline.efficiency.facts import EfficiencyFacts
from codeact.pipeline.efficiency.figures import ratio_histogram, time_memory_scatter
from codeact.pipeline.report_parts import Section, Table, as_figure
from codeact.pipeline.report_words import count, percent

_MIB = 2**20


def asked_section(facts: EfficiencyFacts) -> Section:
    """The machine, the protocol, and how quiet it was."""
    measured, host = facts.measurements, facts.measurements.host
    options = measured.options
    tools = ", ".join(f"{name} {version}" for name, version in sorted(host.tools.items()))
    calibrations = ", ".join(
        f"{one.when} {one.cv:.1%} at load {one.load_average:g}" for one in measured.noise
    )
    lines = [
        ["tasks raced", count(len(measured.tasks))],
        ["candidates", count(len(measured.records))],
        ["processor", f"{host.cpu_model}, {host.num_cpus} CPUs, governor {host.governor}"],
        ["kernel", host.kernel],
        ["sandbox", f"{host.sandbox} (bubblewrap {host.bubblewrap or 'none'})"],
        ["compilers and interpreters", tools or "none"],
        ["rounds", f"{options.get('rounds')}, up to {options.get('max_rounds')} for close races"],
        ["scatter of one and the same loop", calibrations or "not calibrated"],
    ]
    text = [
        "A candidate first has to answer every test, in a sandbox that never holds an expected "
        "answer. The right ones of a task then race on one CPU in alternating order. Time is CPU "
        "time, the least of all rounds, less that of an empty program on the same inputs; memory "
        "is the least peak; TMU is memory integrated over CPU time. Numbers of two machines "
        "cannot be compared."
    ]
    return Section(
        "asked", "What was measured", text=text, tables=[Table(["", ""], lines, num_text_columns=2)]
    )


def correctness_section(facts: EfficiencyFacts) -> Section:
    """Statuses by origin, and a line for each kind of failure."""
    found = {origin: Counter[str]() for origin in facts.origins}
    for record in facts.measurements.records:
        found[record.origin][record.status] += 1
    totals = sum(found.values(), Counter[str]())
    statuses = sorted(totals, key=lambda status: (status != "passed", -totals[status], status))
    rows = [
        [origin, *(count(found[origin][status]) for status in statuses)] for origin in facts.origins
    ]
    examples = []
    for status in statuses:
        first = next(one for one in facts.measurements.records if one.status == status)
        if status != "passed":
            examples.append([status, first.task_id, first.origin, first.reason])
    tables = [Table(["origin", *statuses], rows)]
    if examples:
        caption = "The first of each kind that is not right."
        tables.append(Table(["status", "task", "origin", "reason"], examples, caption, 4))
    share = percent(totals["passed"] / max(1, totals.total()))
    text = [f"{share} of {count(totals.total(), 'candidate')} answer every test."]
    return Section("correct", "Which answers are right", text=text, tables=tables)


def cost_section(facts: EfficiencyFacts) -> Section:
    """Scatter of time and memory, the spread within tasks."""
    if not facts.points:
        absent = "No task has two right answers that could be ranked."
        return Section("cost", "Time and memory", absent=absent)
    beside = "the reference" if facts.has_references else "the fastest answer"
    scatter = as_figure(
        "time-memory",
        f"Every right answer beside {beside} of its task; left of 1 it is faster, below 1 smaller.",
        time_memory_scatter(facts.points, facts.origins, beside),
    )
    ratios = {"slowest / fastest right answer": _spreads(facts)}
    if facts.has_references:
        ratios["reference / fastest right answer"] = _over_reference(facts)
    speedups = as_figure(
        "speed-up",
        "What the choice of an answer is worth, task by task: ratios of CPU time.",
        ratio_histogram(ratios, "ratio of CPU times"),
    )
    rules = Counter(
        one.tie_rule for records in facts.races.values() for one in records[:1] if one.tie_rule
    )
    words = ", ".join(f"{rule} {count(number)}" for rule, number in rules.most_common())
    races = Counter(race.status for race in facts.measurements.tasks)
    text = [
        f"{count(races['ranked'], 'race')} ranked; "
        + "; ".join(f"{name} {count(n)}" for name, n in races.items() if name != "ranked")
        + f". What told first from second: {words or 'nothing, no task had two right answers'}."
    ]
    return Section("cost", "Time and memory", text=text, figures=[scatter, speedups])


def origins_section(facts: EfficiencyFacts) -> Section:
    """ET, MU, TMU of each origin, absolute and relative to the references."""
    head = ["origin", "pass@1", "tasks", "ET ms", "MU MiB", "TMU MiB·s", "NET", "NMU", "NTMU"]
    rows = []
    for origin in facts.origins:
        records = _ranked_of(facts, origin)
        if not records:
            continue
        author = author_of(facts.measurements, origin, facts.candidates)
        rows.append(
            [
                origin,
                percent(author.pass_at_1(list(author.answers))),
                count(len({(one.task_id, one.language) for one in records})),
                f"{statistics.mean(one.et_seconds or 0 for one in records) * 1e3:.3g}",
                f"{statistics.mean(one.mu_bytes or 0 for one in records) / _MIB:.1f}",
                f"{statistics.mean(one.tmu_byte_seconds or 0 for one in records) / _MIB:.3g}",
                *(_relative(facts, records, name) for name in ("et", "mu", "tmu")),
            ]
        )
    if not rows:
        return Section("origins", "Origins", absent="No right answer could be ranked.")
    caption = (
        "Means over right answers. NET, NMU and NTMU: geometric mean over tasks of the ratio to "
        "the reference, with a 95 % bootstrap interval over answers; below 1 is better. Each "
        "origin on its own solved tasks: origins are compared on shared tasks below, if asked for."
    )
    return Section("origins", "Origins", tables=[Table(head, rows, caption)])


def comparison_section(facts: EfficiencyFacts) -> Section:
    """Paired comparisons of two origins."""
    if not facts.comparisons:
        absent = "No two origins were compared; --compare A --compare B does."
        return Section("compared", "Compared on shared tasks", absent=absent)
    tables, text = [], []
    for one in facts.comparisons:
        text.append(one.verdict() + ".")
        head = ["", f"{one.name_a} / {one.name_b}", "better", "worse", "sign test p", "Wilcoxon p"]
        rows = [
            [
                name,
                _estimate(part.ratio),
                count(part.num_better),
                count(part.num_worse),
                f"{part.sign_p_value:.2g}",
                f"{part.wilcoxon_p_value:.2g}",
            ]
            for name, part in (("CPU time", one.et), ("peak memory", one.mu), ("TMU", one.tmu))
        ]
        caption = (
            f"{count(one.num_compared)} tasks that both solve, of {count(one.num_tasks)}. pass@1 "
            f"{percent(one.pass_at_1_a)} and {percent(one.pass_at_1_b)}."
        )
        tables.append(Table(head, rows, caption))
    return Section("compared", "Compared on shared tasks", text=text, tables=tables)


def _spreads(facts: EfficiencyFacts) -> list[float]:
    return [
        max(one.et_seconds or 0 for one in records) / (records[0].et_seconds or 1)
        for records in facts.races.values()
        if len(records) > 1
    ]


def _over_reference(facts: EfficiencyFacts) -> list[float]:
    return [
        (one.et_seconds or 0) / (records[0].et_seconds or 1)
        for records in facts.races.values()
        for one in records
        if one.origin == REFERENCE and len(records) > 1
    ]


def _ranked_of(facts: EfficiencyFacts, origin: str) -> list[MeasuredCandidate]:
    return [one for records in facts.races.values() for one in records if one.origin == origin]


def _relative(facts: EfficiencyFacts, records: list[MeasuredCandidate], metric: str) -> str:
    """Geometric mean over the answers whose task has a measured reference."""
    name = {"et": "et_seconds", "mu": "mu_bytes", "tmu": "tmu_byte_seconds"}[metric]
    references = {
        key: one for key, all_ in facts.races.items() for one in all_ if one.origin == REFERENCE
    }
    pairs = [
        (getattr(one, name), getattr(references[one.task_id, one.language], name))
        for one in records
        if (one.task_id, one.language) in references
    ]
    if not pairs:
        return "—"
    found: Normalised = normalised(*zip(*pairs, strict=True), num_resamples=2000)
    return _estimate(found.geometric_mean)


def _estimate(value: Estimate) -> str:
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
