"""Sections of the influence report that compare rankings: of tasks, of checkpoints, their ends."""

from __future__ import annotations

import numpy as np

from codeact.pipeline.influence.facts import Floats, InfluenceFacts
from codeact.pipeline.influence.figures import (
    agreement_matrix,
    drift_lines,
    harm_lines,
    matrix,
)
from codeact.pipeline.influence.rows import row_table
from codeact.pipeline.influence.sections import beside
from codeact.pipeline.influence.words import by_chance, listed, rho, rho_interval
from codeact.pipeline.report_parts import Section, Table, as_figure
from codeact.pipeline.report_words import count, percent

SHARE = 0.1  # of the rows that is a top or a bottom
_MOST_MATRICES = 4  # tasks with a matrix of checkpoints
_PER_END = 6  # rows of a table
_FEWEST_ROWS = 10  # that comparing tops takes


def task_section(facts: InfluenceFacts) -> Section:
    """How far tasks rank alike, put the same rows at the top, and agree on what helps."""
    from codeact.scoring.influence.drift import rank_agreement  # loads PyTorch
    from codeact.scoring.influence.extremes import sign_agreement, top_overlap

    title, tasks, columns = "Tasks", facts.tasks, facts.by_task
    num_rows = int(np.isfinite(columns).all(axis=1).sum())
    if len(tasks) < 2:
        return Section("tasks", title, "There is one validation task, so nothing to compare.")
    if num_rows < _FEWEST_ROWS:
        return Section("tasks", title, f"Fewer than {_FEWEST_ROWS} rows have all tasks.")
    ranks, signs = rank_agreement(columns, tasks), sign_agreement(columns, tasks)
    top = top_overlap(columns, tasks, share=SHARE)
    pairs = np.triu_indices(len(tasks), 1)
    lines = [
        [
            f"{tasks[i]} and {tasks[j]}",
            rho_interval(ranks.rho[i, j], ranks.low[i, j], ranks.high[i, j]),
            percent(top.jaccard[i, j]),
            f"{percent(signs.agree[i, j])} (chance: {percent(signs.chance[i, j])})",
        ]
        for i, j in zip(*(ends.tolist() for ends in pairs), strict=True)
    ]
    low, high = np.nanmin(ranks.rho[pairs]), np.nanmax(ranks.rho[pairs])
    span = rho(low) if len(lines) == 1 else f"{rho(low)} to {rho(high)}"
    caption = (
        f"Rank correlation of tasks: {span}. Of the best tenths of two tasks, "
        f"{percent(top.jaccard[pairs].mean())} of the rows are in both; for two random tenths it "
        f"is {percent(top.chance)}, and at most {percent(top.chance_high)} in 97.5 % of cases."
    )
    text = [
        f"The {count(len(tasks))} rankings amount to {ranks.num_effective:.1f} different ones "
        "(participation ratio of their correlations: 1 if all tasks rank alike). "
        f"{percent(signs.always_helpful)} of the rows help every task and "
        f"{percent(signs.always_harmful)} harm every one; for the others it depends on the task."
    ]
    head = ["", "Spearman ρ (95 % interval)", "of the best tenths in both", "same sign"]
    figures = [
        as_figure("tasks-ranks", "", agreement_matrix(ranks, "Spearman ρ")),
        as_figure("tasks-tops", "", matrix(top.jaccard, tasks, "best tenths in both", middle=None)),
    ]
    return Section(
        "tasks", title, text=text, figures=[beside(figures, caption)], tables=[Table(head, lines)]
    )


def checkpoint_section(facts: InfluenceFacts) -> Section:
    """How far influence changes over training."""
    from codeact.scoring.influence.drift import between_checkpoints  # loads PyTorch

    title, history = "Checkpoints", facts.over_time
    if len(history.checkpoints) < 2:
        return Section(
            "checkpoints",
            title,
            "Influence was measured at one checkpoint. Useful rows change as training goes on: "
            "give several (--checkpoints) to see how much.",
        )
    agreements = between_checkpoints(history)
    first, last = history.checkpoints[0], history.checkpoints[-1]
    ends = [f"{rho(found.rho[0, -1])} on {task}" for task, found in agreements.items()]
    caption = f"Rank correlation of {first} with {last}: {listed(ends)}."
    harmful = {
        task: np.array([_harmful(values) for values in history.values[:, :, place]])
        for place, task in enumerate(history.tasks)
    }
    lines_figures = [
        as_figure("drift", "", drift_lines(agreements, "Agreement with the first checkpoint")),
        as_figure("harm", "", harm_lines(history.checkpoints, harmful, "Harmful rows")),
    ]
    matrices = [
        as_figure(f"checkpoints-{place}", "", agreement_matrix(found, task))
        for place, (task, found) in enumerate(list(agreements.items())[:_MOST_MATRICES])
    ]
    pairwise = f"Spearman ρ of every two checkpoints, on {listed(list(agreements))}."
    text = [
        "Influence belongs to a checkpoint. Where the agreement falls with distance, a selection "
        "made at one end of training is not the one that the other end asks for; the mean over "
        "checkpoints is a compromise between them."
    ]
    return Section(
        "checkpoints",
        title,
        text=text,
        figures=[beside(lines_figures, caption), beside(matrices, pairwise)],
        tables=[_checkpoint_table(facts)],
    )


def _checkpoint_table(facts: InfluenceFacts) -> Table:
    """Neighbours and ends of training, with the tops they share."""
    from codeact.scoring.influence.drift import rank_agreement
    from codeact.scoring.influence.extremes import top_overlap

    history = facts.over_time
    size = len(history.checkpoints)
    pairs = [(place, place + 1) for place in range(size - 1)]
    pairs += [(0, size - 1)] if size > 2 else []
    lines, chance = [], ""
    for place, task in enumerate(history.tasks):
        columns = history.values[:, :, place].T
        found = rank_agreement(columns, history.checkpoints)
        enough = np.isfinite(columns).all(axis=1).sum() >= _FEWEST_ROWS
        top = top_overlap(columns, history.checkpoints, share=SHARE) if enough else None
        chance = f"{percent(top.chance)} by chance" if top else chance
        lines += [
            [
                task,
                f"{history.checkpoints[i]} and {history.checkpoints[j]}",
                rho_interval(found.rho[i, j], found.low[i, j], found.high[i, j]),
                percent(top.jaccard[i, j]) if top else "—",
            ]
            for i, j in pairs
        ]
    head = ["task", "checkpoints", "Spearman ρ (95 % interval)", "of the best tenths in both"]
    note = f"Two random tenths share {chance}." if chance else ""
    return Table(head, lines, note, num_text_columns=2)


def _harmful(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float((known < 0).mean()) if len(known) else float("nan")


def extreme_section(facts: InfluenceFacts) -> Section:
    """Rows at the top, or at the bottom, of every ranking."""
    from codeact.scoring.influence.extremes import stable_extremes  # loads PyTorch

    title, history = "Stable extremes", facts.over_time
    columns = np.concatenate(list(history.values), axis=1)
    if columns.shape[1] < 2:
        words = "There is one ranking: one task at one checkpoint."
        return Section("extremes", title, words)
    if np.isfinite(columns).all(axis=1).sum() < _FEWEST_ROWS:
        words = f"Fewer than {_FEWEST_ROWS} rows have a value everywhere."
        return Section("extremes", title, words)
    subsets = {"every task and checkpoint": columns}
    if len(history.checkpoints) > 1 and len(history.tasks) > 1:
        for place, task in enumerate(history.tasks):
            subsets[f"{task}, every checkpoint"] = history.values[:, :, place].T
    found = {name: stable_extremes(part, share=SHARE) for name, part in subsets.items()}
    lines = [
        [name, *(count(n) for n in (one.num_columns, len(one.top), len(one.bottom))),
         by_chance(one.expected)]
        for name, one in found.items()
    ]  # fmt: skip
    everywhere = found["every task and checkpoint"]
    text = [
        f"Of {count(everywhere.num_rows, 'row')}, {count(len(everywhere.top))} are in the best "
        f"tenth and {count(len(everywhere.bottom))} in the worst tenth of all "
        f"{count(everywhere.num_columns)} rankings; independent rankings would give "
        f"{by_chance(everywhere.expected)} of each. Of all other rows it depends on the task or "
        "the checkpoint whether they stand at an end."
    ]
    head = ["in all rankings of", "rankings", "best tenth", "worst tenth", "by chance, each"]
    tables = [Table(head, lines)]
    for rows, words in ((everywhere.top, "best"), (everywhere.bottom, "worst")):
        if len(rows):
            tables.append(row_table(facts, rows[:_PER_END], f"Always among the {words}."))
    return Section("extremes", title, text=text, tables=tables)
