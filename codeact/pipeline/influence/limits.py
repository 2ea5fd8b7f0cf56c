"""Sections of the influence report about its limits: the exact check, the predictor, words."""

from __future__ import annotations

import numpy as np

from codeact.evaluation import spearman
from codeact.pipeline.influence.facts import InfluenceFacts
from codeact.pipeline.influence.figures import check_scatter
from codeact.pipeline.influence.sections import beside
from codeact.pipeline.influence.words import correlation_cell, listed, number, rho, rho_interval
from codeact.pipeline.report_parts import Section, Table, as_figure
from codeact.pipeline.report_words import count, percent, sentence

_MOST_FIGURES = 4


def oracle_section(facts: InfluenceFacts) -> Section:
    """Fast influence against the exact change of the loss after one step."""
    title = "Fast against exact"
    if not facts.oracle:
        return Section(
            "oracle",
            title,
            "No row was checked with an exact step of the optimizer (--oracle).",
        )
    found = {task: spearman(fast, exact) for task, (fast, exact) in facts.oracle.items()}
    lines = []
    for task, (fast, exact) in facts.oracle.items():
        both = np.isfinite(fast) & np.isfinite(exact)
        moving = both & (fast != 0)
        ratio = np.median(exact[moving] / fast[moving]) if moving.any() else np.nan
        same = ((fast > 0) == (exact > 0))[both].mean() if both.any() else np.nan
        lines.append(
            [
                task,
                count(found[task].num_pairs),
                correlation_cell(found[task], digits=3),
                percent(same) if np.isfinite(same) else "—",
                number(ratio),
            ]
        )
    parts = [f"{rho(one.rho, 3)} on {task}" for task, one in found.items()]
    caption = f"Rank correlation of the fast influence with the exact one: {listed(parts)}."
    figures = [
        as_figure(f"oracle-{place}", "", check_scatter(*pair, task))
        for place, (task, pair) in enumerate(list(facts.oracle.items())[:_MOST_FIGURES])
    ]
    text = [
        "For these rows the optimizer took one real step on the row alone, the validation loss was "
        "measured again, and the weights were put back. The fall of the loss, per unit of learning "
        "rate, is what the fast influence approximates; on the dashed line they are equal. They "
        "part where a step is large enough to curve the loss, or where the optimizer's step is not "
        "the direction that the fast pass was given."
    ]
    head = ["", "rows", "Spearman ρ (95 % interval)", "same sign", "exact ÷ fast, median"]
    return Section(
        "oracle", title, text=text, figures=[beside(figures, caption)], tables=[Table(head, lines)]
    )


def predictor_section(facts: InfluenceFacts) -> Section:
    """Whether influence can be predicted from embeddings, and whether it was."""
    title = "Prediction"
    if not facts.predictors:
        return Section("predictor", title, "Every influence here was computed, none predicted.")
    lines = [
        [
            task or "mean over tasks",
            rho_interval(found.spearman_, *found.interval_),
            rho(_or_nan(getattr(found, "length_spearman_", None))),
            "passed" if found.passes_ else "not passed",
        ]
        for task, found in facts.predictors.items()
    ]
    text = [
        *(
            f"{task}: {sentence(found.verdict_)}" if task else sentence(found.verdict_)
            for task, found in facts.predictors.items()
        ),
        "Small predictors of influence are known to do no better than random rows "
        "(arXiv:2604.07769), so that one is used only where it ranks rows that it has not seen.",
    ]
    head = ["", "held-out Spearman ρ (95 % interval)", "by length alone", "gate"]
    return Section("predictor", title, text=text, tables=[Table(head, lines)])


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def limits_section(facts: InfluenceFacts) -> Section:
    """What the page does not say."""
    text = [
        "Influence is first order: it is the slope of the validation loss along one step, and says "
        "nothing of how far one can go. It looks at one row and one step, so that a row is rated "
        "alone: two copies of a helpful row are both rated helpful, though the second adds little.",
        "A falling loss on reference solutions is not yet a passed test. Whether a selection by "
        "influence trains a better model no page about scores can say: that takes training on it "
        "and on random rows of the same lengths, and a paired test of both on problems that chose "
        "nothing. A validation set that has chosen rows is used up as a test set.",
        "Long tails and length: the gradient of a short answer is a mean over few tokens and can "
        "be large in either direction. Read the rows at both ends before a selection is trusted.",
    ]
    if len(facts.tasks) > 1:
        text.append(
            "The mean over tasks adds tasks as they are. One whose gradients are larger weighs "
            "more; where that is not wanted, select by tasks in turn."
        )
    if len(facts.over_time.checkpoints) < 2:
        text.append("One checkpoint was looked at, and useful rows change as training goes on.")
    return Section("limits", "Limits", text=text)
