"""Sections about who wrote the answers: each origin's numbers, and two of them paired."""

from __future__ import annotations

import math
from collections.abc import Sequence

from codeact.efficiency.comparing.efficiency_comparison import EfficiencyComparison
from codeact.efficiency.comparing.metrics import Estimate, Normalised
from codeact.efficiency.comparing.net_samples import Metrics, shared_rounds
from codeact.efficiency.comparing.origin_metrics import OriginMetrics, origin_metrics
from codeact.efficiency.comparing.solved import author_of
from codeact.efficiency.racing.measurements import REFERENCE
from codeact.errors import InputError
from codeact.pipeline.efficiency.facts import EfficiencyFacts
from codeact.pipeline.report_parts import Section, Table
from codeact.pipeline.report_words import count, p_value, percent

_MIB = 2**20
_RESAMPLES = 2000  # three digits of an interval's ends do not show more


def origins_section(facts: EfficiencyFacts) -> Section:
    """ET, MU, TMU of each origin; relative to the references; by the benchmarks' metrics."""
    absolute = _absolute(facts)
    if absolute is None:
        return Section("origins", "Origins", absent="No right answer could be ranked.")
    found = [one for name in facts.origins if (one := _metrics(facts, name)) is not None]
    tables = [absolute, *_relative(facts, found), *_benchmarks(facts, found)]
    return Section("origins", "Origins", tables=tables)


def comparison_section(facts: EfficiencyFacts) -> Section:
    """Paired comparisons of two origins."""
    title = "Compared on shared tasks"
    if not facts.comparisons:
        why = facts.not_compared or "two origins are compared when --compare names them"
        return Section("compared", title, absent=f"There is no comparison: {why}.")
    text = [_capital(one.verdict()) + "." for one in facts.comparisons]
    tables = [_compared(one) for one in facts.comparisons]
    return Section("compared", title, text=text, tables=tables)


def _absolute(facts: EfficiencyFacts) -> Table | None:
    """Means over the tasks that an origin solves; None where nothing is ranked."""
    rows = []
    for origin in facts.origins:
        author = author_of(facts.measurements, origin, facts.candidates)
        means: list[Metrics] = []
        for records in facts.races.values():
            own = [one for one in records if one.origin == origin]
            if own:
                means.append(author.metrics(own, shared_rounds(own)))
        columns = [sum(column) / len(means) for column in zip(*means, strict=True)]
        rows.append(
            [
                origin,
                count(len(author.answers)),
                percent(author.pass_at_1(author.answers)),
                count(len(means)),
                *_absolute_cells(columns),
            ]
        )
    if all(row[3] == "0" for row in rows):
        return None
    unit = facts.unit + "s"
    caption = (
        f"ET, MU and TMU: mean over the ranked {unit} of an origin; its several right answers to "
        "one count as their geometric mean. Origins solve different ones, and the longest decide "
        "a mean: these columns do not compare origins."
    )
    head = ["origin", f"{unit} answered", "pass@1", "ranked", "ET ms", "MU MiB", "TMU MiB·s"]
    return Table(head, rows, caption)


def _absolute_cells(columns: Sequence[float]) -> list[str]:
    if not columns:
        return ["—"] * 3
    et, mu, tmu = columns
    return [f"{et * 1e3:.3g}", f"{mu / _MIB:.1f}", f"{tmu / _MIB:.3g}"]


def _metrics(facts: EfficiencyFacts, origin: str) -> OriginMetrics | None:
    """None for the references, and for an origin with no task to set it against."""
    if origin == REFERENCE:
        return None
    try:
        return origin_metrics(
            facts.measurements, origin, candidates=facts.candidates, num_resamples=_RESAMPLES
        )
    except InputError:
        return None


def _relative(facts: EfficiencyFacts, found: Sequence[OriginMetrics]) -> list[Table]:
    """NET, NMU, NTMU, the first in three ways."""
    rows = [
        [
            one.origin,
            count(one.num_solved),
            *(_estimate(each.geometric_mean) for each in (one.net, one.nmu, one.ntmu)),
            _plain(one.net.ratio_of_sums),
            _plain(one.net.mean_of_ratios),
        ]
        for one in found
        if one.net and one.nmu and one.ntmu
    ]
    if not rows:
        return []
    head = ["origin", facts.unit + "s", "NET", "NMU", "NTMU", "NET, sums", "NET, mean"]
    caption = (
        f"Beside the reference of each {facts.unit} with a ranked one, below 1 is better: "
        f"geometric mean over {facts.unit}s with a {_confidence(found)} bootstrap interval. "
        "“Sums” is the sum of all times over the references’, “mean” the mean of ratios, as "
        "earlier papers have them."
    )
    return [Table(head, rows, caption)]


def _benchmarks(facts: EfficiencyFacts, found: Sequence[OriginMetrics]) -> list[Table]:
    """Scores in which a wrong answer counts."""
    rows = [
        [
            one.origin,
            count(one.num_tasks),
            _plain(one.beyond),
            _plain(one.eff_at_k[1]),
            "—" if one.dps is None else f"{one.dps.value:.1f}",
            percent(one.optimised.value),
            f"{one.speedup.value:.2f}×",
        ]
        for one in found
    ]
    if not rows:
        return []
    head = ["origin", facts.unit + "s", "Beyond", "eff@1", "DPS", "%Opt", "speed-up"]
    caption = (
        "More is better; a wrong answer scores 0 (1 as a speed-up) but is left out of DPS. Beyond "
        "(Mercury), eff@1 (ENAMEL), DPS in percent (EvalPerf), share of answers beside which the "
        "reference needs at least 1.1 times the CPU time (PIE’s %Opt) and mean speed-up over it, "
        "where slower is 1."
    )
    return [Table(head, rows, caption)]


def _compared(one: EfficiencyComparison) -> Table:
    head = ["", f"{one.name_a} / {one.name_b}", "better", "worse", "sign test", "Wilcoxon"]
    rows = [
        [
            name,
            _estimate(part.ratio),
            count(part.num_better),
            count(part.num_worse),
            p_value(part.sign_p_value),
            p_value(part.wilcoxon_p_value),
        ]
        for name, part in (("CPU time", one.et), ("peak memory", one.mu), ("TMU", one.tmu))
    ]
    caption = (
        f"Geometric mean of ratios over {count(one.num_compared, 'task')}, "
        f"{100 * one.et.confidence:g}\xa0% bootstrap interval. Both answer "
        f"{count(one.num_tasks, 'task')} and solve {count(one.num_both_solved)} of these, of which "
        f"{count(one.num_compared)} could be ranked; pass@1 is {percent(one.pass_at_1_a)} and "
        f"{percent(one.pass_at_1_b)}."
    )
    return Table(head, rows, caption)


def _estimate(value: Estimate) -> str:
    """With its interval, unless that is a point: one task, or none that differs."""
    if value.low == value.high:
        return f"{value.value:.3f}"
    return f"{value.value:.3f} ({value.low:.3f}–{value.high:.3f})"


def _plain(value: Estimate) -> str:
    return f"{value.value:.3f}"


def _confidence(found: Sequence[OriginMetrics]) -> str:
    net: Normalised | None = next((one.net for one in found if one.net), None)
    return percent(net.confidence if net else math.nan)


def _capital(verdict: str) -> str:
    """A verdict may begin with an origin, whose name stays as it is."""
    if verdict.startswith("no significant"):
        verdict = "N" + verdict[1:]
    return verdict.replace(" % ", "\xa0% ")
