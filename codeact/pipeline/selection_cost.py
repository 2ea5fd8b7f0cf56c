"""The section on cost: what selecting took, against the training that it saves."""

from __future__ import annotations

import numpy as np

from codeact.pipeline.report_parts import Section, Table, as_figure
from codeact.pipeline.report_words import count, duration, percent
from codeact.pipeline.score_cost import ScoreCost
from codeact.pipeline.selection_facts import SelectionFacts
from codeact.pipeline.selection_figures import cost_bars
from codeact.selection.candidates import is_column
from codeact.selection.registry import METHODS

# A backward pass is twice a forward one (Kaplan et al., arXiv:2001.08361).
_TRAINING = 3.0
_MISSING = (
    "The scores table does not say what it has cost. Tables that codeact score writes as Parquet "
    "say so; --scores with one of them shows here what training is saved for it."
)


def training_flops(facts: SelectionFacts, cost: ScoreCost, num_tokens: int) -> float:
    """Floating-point operations of training the scoring model itself on so many tokens.

    ``3 x forward FLOPs a token x tokens x epochs``; forward FLOPs a token are the mean over the
    scored set.
    """
    return _TRAINING * cost.forward_flops / max(1, cost.num_tokens) * num_tokens * facts.epochs


def saved_flops(facts: SelectionFacts, cost: ScoreCost) -> float:
    """:func:`training_flops` of the dropped tokens."""
    tokens = facts.candidates.num_tokens
    assert tokens is not None  # a table with a cost has token counts
    dropped = int(tokens.sum() - tokens[facts.main.selected].sum())
    return training_flops(facts, cost, dropped)


def cost_section(facts: SelectionFacts) -> Section:
    """Operations and seconds of scoring and choosing, and operations of training saved."""
    title, tokens = "Cost", facts.candidates.num_tokens
    choosing = [
        ["choosing", facts.main.name, "", "", duration(facts.main.seconds)],
    ]
    head = ["", "by", "parameters", "operations", "time"]
    if not facts.costs or tokens is None:
        table = Table(head, choosing, num_text_columns=2)
        return Section("cost", title, _MISSING, tables=[table])
    lines = [
        ["scoring", f"{cost.model} ({cost.preset}, {cost.device})", _short(cost.num_parameters),
         _short(cost.flops), duration(cost.seconds)]
        for cost in facts.costs
    ]  # fmt: skip
    # The largest scorer stands for the model that is trained: the authors train what they score by.
    trained = max(facts.costs, key=lambda cost: cost.num_parameters)
    spent, saved = sum(cost.flops for cost in facts.costs), saved_flops(facts, trained)
    kept = int(tokens[facts.main.selected].sum())
    bars = {
        "training on all rows": training_flops(facts, trained, int(tokens.sum())),
        "training on kept rows": training_flops(facts, trained, kept),
        "scoring": spent,
    }
    ratio = saved / spent if spent else np.inf
    caption = (
        f"Scoring took {_short(spent)} operations; training {_short(trained.num_parameters)} "
        f"parameters on the kept rows for {facts.epochs:g} epochs saves {_short(saved)}, "
        f"{ratio:.2g} times as many."
    )
    text = [
        f"The selection drops {count(tokens.sum() - kept, 'token')} of {count(tokens.sum())} "
        f"({percent(1 - kept / max(1, tokens.sum()))}). Training a token is counted as three "
        "forward passes of the scoring model. A larger model that is trained on rows chosen by a "
        "smaller one saves more, in proportion to its parameters; the embeddings are not counted.",
        "What is saved is only worth something if the selection trains as good a model, and a "
        "random choice of the same size saves the same without any scoring.",
    ]
    if not any(is_column(name) for name in METHODS[facts.main.name].inputs):
        text.insert(0, f"{facts.main.name} reads no score: it would keep the same rows without.")
    figure = as_figure("cost", caption, cost_bars(bars, [_short(flops) for flops in bars.values()]))
    table = Table(head, [*lines, *choosing], num_text_columns=2)
    return Section("cost", title, text=text, figures=[figure], tables=[table])


def _short(number: float) -> str:
    """``135 M``, ``6.7 B``, and ``3.2 · 10¹⁵`` beyond; operations have no common unit there."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size <= number < 1000 * size:
            return f"{number / size:.3g}\xa0{unit}"
    if number < 1e3:
        return f"{number:.3g}"
    power = int(np.floor(np.log10(number)))
    digits = str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{number / 10**power:.1f}\xa0·\xa010{digits}"
