"""Section of the influence report about languages: where their rows stand, how far ranks agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from codeact.pipeline.influence.facts import InfluenceFacts
from codeact.pipeline.influence.figures import matrix
from codeact.pipeline.influence.words import rho
from codeact.pipeline.report_parts import Section, Table, as_figure
from codeact.pipeline.report_words import count, percent

if TYPE_CHECKING:
    from codeact.scoring.influence.drift import GroupPlaces

_MOST_GROUPS = 12
_FEWEST = 10  # rows of a group that a mean is given for


def language_section(facts: InfluenceFacts) -> Section:
    """Where the rows of each language stand in each task's ranking."""
    from codeact.scoring.influence.drift import group_places  # loads PyTorch

    title = "Languages"
    found = group_places(facts.by_task, facts.languages)
    shown = [
        place
        for place, size in enumerate(found.sizes.tolist())
        if size >= _FEWEST and np.isfinite(found.mean_place[place]).all()
    ][:_MOST_GROUPS]
    if len(shown) < 2:
        words = f"There are no two languages with {_FEWEST} rows each to compare."
        return Section("languages", title, words)
    places, reach = found.mean_place[shown], found.reach[shown]
    names = [f"{found.groups[place]} ({count(found.sizes[place])})" for place in shown]
    hover = [
        [f"{p:.3f}; random rows stay within 0.5 ± {r:.3f}" for p, r in zip(*row, strict=True)]
        for row in zip(places.tolist(), reach.tolist(), strict=True)
    ]
    far = np.abs(places - 0.5) > reach
    row, column = np.unravel_index(int(np.argmax(np.abs(places - 0.5))), places.shape)
    caption = (
        f"Rows in {found.groups[shown[row]]} stand at {places[row, column]:.2f} on average for "
        f"{facts.tasks[column]}, where 0.5 is the middle and 1 the most helpful row; "
        f"{count(far.sum())} of {count(far.size)} means lie outside what random rows give in 95 % "
        "of cases."
    )
    figure = matrix(places, names, "", columns=facts.tasks, hover=hover, middle=0.5)
    text = [
        "Mean place of the rows of a language in the ranking of each task. The language is what a "
        "row says of itself, else what its code looks like. Agreement within a language is free of "
        "what sets languages apart."
    ]
    return Section(
        "languages",
        title,
        text=text,
        figures=[as_figure("languages", caption, figure)],
        tables=[_table(facts, found, shown)],
    )


def _table(facts: InfluenceFacts, found: GroupPlaces, shown: list[int]) -> Table:
    """Rows, harm and agreement of each language."""
    from codeact.scoring.influence.drift import within_groups

    history, languages = facts.over_time, np.asarray(facts.languages)
    between = within_groups(facts.by_task, facts.tasks, facts.languages, fewest=_FEWEST)
    ends = [
        within_groups(
            history.values[[0, -1], :, task].T, ("first", "last"), facts.languages, fewest=_FEWEST
        )
        for task in range(len(history.tasks))
    ]
    many_tasks, many_times = len(facts.tasks) > 1, len(history.checkpoints) > 1
    head = ["", "rows", "harmful"]
    head += ["tasks agree (mean ρ)"] if many_tasks else []
    head += ["first and last checkpoint (mean ρ)"] if many_times else []
    lines = []
    for place in shown:
        name = found.groups[place]
        values = facts.influence[languages == name]
        values = values[np.isfinite(values)]
        line = [name, count(found.sizes[place])]
        line.append(percent((values < 0).mean()) if len(values) else "—")
        line += [rho(between[name].mean)] if many_tasks else []
        line += [rho(float(np.mean([one[name].mean for one in ends])))] if many_times else []
        lines.append(line)
    return Table(head, lines)
