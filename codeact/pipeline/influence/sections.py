"""Sections of the influence report about one table: what was asked, values, relations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from markupsafe import Markup

from codeact.evaluation import Correlation, spearman
from codeact.pipeline.influence.facts import Floats, InfluenceFacts
from codeact.pipeline.influence.figures import against, influence_histogram
from codeact.pipeline.influence.words import (
    correlation_cell,
    explained_share,
    listed,
    number,
    rho,
    strength,
    without_unit,
)
from codeact.pipeline.report_parts import Figure, Section, Table, as_figure
from codeact.pipeline.report_words import count, duration, percent

_MOST_FIGURES = 6  # tasks with a histogram; the table has all
_STRONG = 0.5  # |rho| from which length explains the ranking


def beside(figures: list[Figure], caption: str) -> Figure:
    """Figures side by side under one caption."""
    if len(figures) == 1:
        return Figure(caption, figures[0].html)
    parts = Markup("").join(figure.html for figure in figures)
    return Figure(caption, Markup('<div class="beside">{}</div>').format(parts))


def asked_section(facts: InfluenceFacts) -> Section:
    """Settings, statuses, cost and the canary."""
    lines = [[name, value] for name, value in facts.settings.items()]
    lines.append(["rows", count(facts.num_rows)])
    statuses = facts.table["status"].to_pylist() if "status" in facts.table.column_names else []
    if statuses:
        found = sorted({*statuses}, key=lambda status: (-statuses.count(status), status))
        lines.append(
            ["statuses", ", ".join(f"{status} {count(statuses.count(status))}" for status in found)]
        )
    history = facts.over_time
    if len(history.checkpoints) > 1:
        shares = history.weights / history.weights.sum()
        parts = zip(history.checkpoints, shares.tolist(), strict=True)
        words = ", ".join(f"{name} ({percent(share)})" for name, share in parts)
        lines.append(["weight in the mean", words])
    if facts.seconds is not None:
        lines.append(["time", _cost(facts)])
    if "influence_source" in facts.table.column_names:
        sources = facts.table["influence_source"].to_pylist()
        kinds = sorted({source for source in sources if source})
        words = ", ".join(f"{kind} {count(sources.count(kind))}" for kind in kinds)
        lines.append(["influence is", words])
    if facts.canary:
        lines.append(["check at the start", facts.canary])
    text = [
        "The influence of a row on a task is how fast the task's validation loss falls when the "
        "model takes a training step on that row alone: nats per token of the reference solutions, "
        "per unit of learning rate. Above 0 a step on the row helps, below 0 it harms. Nothing is "
        "trained: at a checkpoint all rows are measured at its weights."
    ]
    table = Table(["", ""], lines, num_text_columns=2)
    return Section("asked", "What was asked", text=text, tables=[table])


def _cost(facts: InfluenceFacts) -> str:
    seconds = facts.seconds or 0.0
    words = duration(seconds)
    if facts.scoring_seconds:
        ratio = seconds / facts.scoring_seconds
        words += f", {ratio:.1f} times a plain scoring pass ({duration(facts.scoring_seconds)})"
    return words


def distribution_section(facts: InfluenceFacts) -> Section:
    """Histograms and shares of harmful rows."""
    title = "Values"
    columns = {task: facts.by_task[:, place] for place, task in enumerate(facts.tasks)}
    known = {task: values[np.isfinite(values)] for task, values in columns.items()}
    known = {task: values for task, values in known.items() if len(values)}
    if not known:
        return Section("values", title, "No row has an influence.")
    figures = [
        as_figure(f"values-{place}", "", influence_histogram(values, task))
        for place, (task, values) in enumerate(list(known.items())[:_MOST_FIGURES])
    ]
    shares = [f"{percent((values < 0).mean())} on {task}" for task, values in known.items()]
    caption = f"Rows with an influence below 0, which harm: {listed(shares)}."
    if len(known) > 1 and len(facts.tasks) > 1:
        mean = facts.influence[np.isfinite(facts.influence)]
        known = {"mean over tasks": mean, **known} if len(mean) else known
    head = ["", "rows", "harmful", "median", "mean", "5 %", "95 %", "held by the top 1 %"]
    lines = [
        [
            name,
            count(len(values)),
            percent((values < 0).mean()),
            *(number(v) for v in (np.median(values), values.mean())),
            *(number(v) for v in np.quantile(values, (0.05, 0.95))),
            percent(_held_by_top(values)),
        ]
        for name, values in known.items()
    ]
    text = [
        "The outermost rows are in the end bins. The last column of the table is how much of all "
        "positive influence the best hundredth of the rows holds: a long tail means that a few "
        "rows, often short ones with a high loss, decide the mean."
    ]
    return Section(
        "values", title, text=text, figures=[beside(figures, caption)], tables=[Table(head, lines)]
    )


def _held_by_top(values: Floats) -> float:
    positive = np.sort(values[values > 0])[::-1]
    top = max(1, round(0.01 * len(values)))
    return float(positive[:top].sum() / positive.sum()) if len(positive) else 0.0


def relation_section(facts: InfluenceFacts) -> Section:
    """Rank correlations with length, loss and other scores, with a warning where they explain."""
    title = "Length, loss and other scores"
    values = facts.influence
    others = {
        name: column
        for name, column in facts.others.items()
        if (np.isfinite(column) & np.isfinite(values)).sum() > 1
    }
    if not others:
        return Section("relations", title, "The table has no other number of the rows.")
    found = {name: spearman(column, values) for name, column in others.items()}
    sizes = {name: spearman(column, np.abs(values)) for name, column in others.items()}
    lines = [
        [name, correlation_cell(found[name]), correlation_cell(sizes[name])]
        + [rho(spearman(column, task).rho) for task in facts.by_task.T if len(facts.tasks) > 1]
        for name, column in others.items()
    ]
    head = ["", "influence", "size, whichever sign"]
    head += [f"on {task}" for task in facts.tasks if len(facts.tasks) > 1]
    table = Table(head, lines, "Spearman ρ with its 95 % interval.")
    figures = [
        _against(facts, name, column, place)
        for place, (name, column) in enumerate(list(others.items())[:2])
    ]
    first, *_ = others
    value = rho(found[first].rho)
    caption = f"Influence {strength(found[first].rho)} {without_unit(first)} (ρ = {value})."
    share = explained_share(values, list(others.values()))
    text = [_explained(share, list(others))] if np.isfinite(share) and len(others) > 1 else []
    text += _length_warnings(found, sizes)
    return Section(
        "relations", title, text=text, figures=[beside(figures, caption)], tables=[table]
    )


def _against(facts: InfluenceFacts, name: str, column: Floats, place: int) -> Figure:
    both = np.isfinite(column) & np.isfinite(facts.influence)
    ids = [facts.examples[row].id for row in np.flatnonzero(both).tolist()]
    log = "tokens)" in name and bool((column[both] > 0).all())
    figure = against(column[both], facts.influence[both], ids, name, log=log)
    return as_figure(f"relation-{place}", "", figure)


def _explained(share: float, names: list[str]) -> str:
    what = listed([without_unit(name) for name in names], len(names))
    return (
        f"Together, {what} explain {percent(share)} of the variance of the ranks of influence "
        "(linear regression on ranks); the rest is not in them."
    )


def _length_warnings(
    found: Mapping[str, Correlation], sizes: Mapping[str, Correlation]
) -> Iterator[str]:
    """Where the ranking, or the size of the values, is one of length."""
    length = next((name for name in found if name.startswith("answer length")), None)
    if length is None:
        return
    value, size = found[length].rho, sizes[length].rho
    if abs(value) >= _STRONG:
        yield (
            f"Warning: the ranking is largely one of length (ρ = {rho(value)}): choosing by "
            f"influence chooses {_kind(value)} answers. Only random rows of the same lengths are a "
            "fair control, and lengths alone would give much of this selection for nothing."
        )
    elif abs(size) >= _STRONG:  # not both: nearly all values of one sign have one ranking
        yield (
            f"Warning: the size of influence follows length (ρ = {rho(size)}), whichever its sign: "
            f"both ends of the ranking are {_kind(size)} answers. A band, or dropping only the "
            "worst, depends less on them than the top does."
        )


def _kind(value: float) -> str:
    return "long" if value > 0 else "short"
