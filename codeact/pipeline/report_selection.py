"""Sections of the report on the data: scores, lengths, clusters, examples, decontamination."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from codeact.evaluation import spearman
from codeact.pipeline.figures import (
    SHOWN_CAPS,
    Array,
    cluster_bars,
    length_scatter,
    score_histogram,
)
from codeact.pipeline.report_facts import Columns, RunFacts
from codeact.pipeline.report_parts import Card, CardGroup, Section, Table, as_figure
from codeact.pipeline.report_words import clipped, count, percent, sentence
from codeact.pipeline.rows import read_examples

_PER_GROUP = 3  # examples of a kind: enough to get the idea, few enough to be read
_REMOVED_SHOWN = 20


def score_section(facts: RunFacts) -> Section:
    """How the score is spread, and which part of it was kept."""
    words = facts.words
    title, name = words.title, words.name
    if facts.scores is None:
        return Section("score", title, "No row has been scored yet (scores.parquet is not there).")
    scores, kept, rows = _scored(facts)
    if not len(scores):
        return Section(
            "score", title, "Every row failed to score; the statuses are in the examples."
        )
    num_failed = len(rows["id"]) - len(scores)
    if kept is None:
        caption = f"Median {name} over {count(len(scores), 'scored row')} is {_median(scores)}."
    else:
        caption = (
            f"Median {name} is {_median(scores[kept])} among kept rows and "
            f"{_median(scores[~kept])} among dropped ones{_at_cap(scores, kept, words.cap)}."
        )
    text = [words.meaning]
    if num_failed:
        stay = "stays" if num_failed == 1 else "stay"
        text.append(
            f"{count(num_failed, 'row')} could not be scored and {stay} out of the figures."
        )
    end = SHOWN_CAPS * words.cap if words.cap is not None else np.inf
    num_far = int((scores > end).sum())
    if num_far:
        text.append(f"The last bin also holds {count(num_far, 'row')} above {end}.")
    figure = as_figure("score", caption, score_histogram(scores, kept, words))
    return Section("score", title, text=text, figures=[figure])


def length_section(facts: RunFacts) -> Section:
    """How closely the score follows answer length, and what that means for the baseline."""
    name = facts.words.name
    title = f"{name} and answer length"
    scores, kept, rows = _scored(facts)
    if not len(scores):
        return Section("length", title, "There are no scores to compare with lengths yet.")
    scored = np.isfinite(rows["score"])
    num_tokens = rows["num_response_tokens"][scored]
    found = spearman(num_tokens, scores)
    low, high = (f"{end:.2f}".replace("-", "−") for end in found.interval)
    rho = f"{found.rho:.2f}".replace("-", "−")
    caption = (
        f"{_rank_sentence(name, found.rho)} (Spearman ρ = {rho}, "
        f"{percent(found.confidence)} interval {low} to {high})."
    )
    if math.isnan(found.rho):
        caption = "Lengths or scores do not vary here, so no rank correlation can be given."
    figure = length_scatter(
        num_tokens, scores, kept, [str(row) for row in rows["id"][scored]], facts.words
    )
    text = [
        "Whatever follows length also chooses by length, and length alone changes what a model "
        "learns. So the baseline is a random choice of the same number of rows with the same "
        "length profile: a plain random choice would mix the two effects."
    ]
    tables = [_arms_table(facts, facts.selection)] if facts.selection is not None else []
    return Section(
        "length",
        title,
        figures=[as_figure("length", caption, figure)],
        text=text,
        tables=tables,
    )


def cluster_section(facts: RunFacts) -> Section:
    """What each cluster gave."""
    title = "Clusters"
    if facts.selection is None:
        return Section("clusters", title, "Nothing has been selected yet.")
    cluster, kept = facts.selection["cluster"], facts.selection["kept"]
    labels, sizes = np.unique(cluster, return_counts=True)
    shares = [kept[cluster == label].mean() for label in labels]
    caption = (
        f"{count(len(labels), 'cluster')} of {_span(count(sizes.min()), count(sizes.max()))} rows; "
        f"each gives {_span(percent(min(shares)), percent(max(shares)))} of its rows."
    )
    text = [
        "Rows are clustered by their embeddings, and CDAS keeps the highest score below its cap "
        "inside each cluster, so that no topic is lost to another one with harder answers."
        if facts.recipe.select.method == "cdas"
        else "Rows are clustered by their embeddings, to show which topics the selection favours."
    ]
    figure = as_figure("clusters", caption, cluster_bars(cluster, kept))
    return Section("clusters", title, figures=[figure], text=text)


def example_section(facts: RunFacts) -> Section:
    """Kept, dropped and failed rows a person can read."""
    title = "Examples"
    path = facts.path / "examples.jsonl"
    if facts.selection is None or not path.is_file():
        return Section("examples", title, "Nothing has been selected yet, so nothing to show.")
    rows = facts.selection
    scores, kept = rows["score"], rows["kept"]
    name, cap = facts.words.name, facts.words.cap
    order = np.argsort(scores, kind="stable")  # NaN last
    order = order[np.isfinite(scores[order])]
    failed = np.flatnonzero(~np.isfinite(scores))
    high = scores[order] >= (np.inf if cap is None else cap)
    chosen = [
        (f"Kept: the highest {name}", "", order[kept[order]][::-1]),
        (f"Dropped: the lowest {name}", "", order[~kept[order] & ~high]),
        (f"{name} of {cap or 0:g} or more", "The instruction does not help.", order[high]),
        ("Not scored", "These rows keep a status in place of a score.", failed),
    ]
    picked = [(title_, note, indices[:_PER_GROUP]) for title_, note, indices in chosen]
    texts = _texts(facts, {str(rows["id"][row]) for *_, part in picked for row in part})
    groups = [
        CardGroup(title_, note, [_card(rows, row, texts, name) for row in indices])
        for title_, note, indices in picked
        if len(indices)
    ]
    return Section("examples", title, groups=groups)


def decontamination_section(facts: RunFacts) -> Section:
    """What was removed because a benchmark holds it."""
    title = "Decontamination"
    found = facts.decontamination
    if found is None:
        return Section("decontamination", title, "Rows have not been compared with benchmarks.")
    removed, benchmarks = found["removed"], found["benchmarks"]
    text = [sentence(found["note"])] if found.get("note") else []
    if benchmarks:
        num_rows = count(found["num_examples"])
        num_removed = len({row["id"] for row in removed})  # a row may hit several benchmarks
        text.append(f"{count(num_removed, 'row')} of {num_rows} removed before scoring.")
    tables = []
    if benchmarks:
        lines = [
            [item["name"], count(item["num_tasks"]), _hits(removed, item["name"])]
            for item in benchmarks
        ]
        tables.append(Table(["benchmark", "tasks", "rows removed"], lines))
    if removed:
        tables.append(
            Table(
                ["row", "benchmark", "task", "rule", "match"],
                [
                    [str(row[key])[:90] for key in ("id", "benchmark", "task_id", "rule", "match")]
                    for row in removed[:_REMOVED_SHOWN]
                ],
                caption=f"The first {_REMOVED_SHOWN}." if len(removed) > _REMOVED_SHOWN else "",
                num_text_columns=5,
            )
        )
    return Section("decontamination", title, text=text, tables=tables)


def _scored(facts: RunFacts) -> tuple[Array, Array | None, Columns]:
    """Scores of the rows that have one, whether they were kept, and the table they came from."""
    rows = facts.selection if facts.selection is not None else facts.scores
    if rows is None:
        return np.empty(0), None, {"id": np.empty(0), "score": np.empty(0)}
    finite = np.isfinite(rows["score"])
    kept = rows["kept"][finite] if "kept" in rows else None
    return rows["score"][finite], kept, rows


def _arms_table(facts: RunFacts, rows: Columns) -> Table:
    """Numbers and lengths of all, kept and random rows: the same profile, or the test is void."""
    everything = np.ones(len(rows["id"]), dtype=bool)
    arms = (
        ("all rows", everything),
        (facts.arm_names["selected"], rows["kept"]),
        ("length-matched random", rows["kept_random"]),
    )
    lines = []
    for name, mask in arms:
        tokens, scores = rows["num_response_tokens"][mask], rows["score"][mask]
        quartiles = np.quantile(tokens, [0.25, 0.5, 0.75]) if len(tokens) else [0, 0, 0]
        lines.append(
            [
                name,
                count(len(tokens)),
                count(tokens.sum()),
                *(count(quartile) for quartile in quartiles),
                _median(scores[np.isfinite(scores)]),
            ]
        )
    head = ["", "rows", "answer tokens", "lower quartile", "median", "upper quartile"]
    head.append(f"median {facts.words.name}")
    return Table(head, lines, caption="Answer lengths of the arms, in tokens.")


def _texts(facts: RunFacts, ids: set[str]) -> dict[str, tuple[str, str]]:
    """Instruction and response of these ids, read from examples.jsonl."""
    examples = read_examples(facts.path / "examples.jsonl", ids)
    return {example.id: (example.instruction, example.response) for example in examples}


def _card(rows: Columns, row: int, texts: Mapping[str, tuple[str, str]], score_name: str) -> Card:
    name = str(rows["id"][row])
    instruction, response = texts.get(name, ("(not in examples.jsonl)", ""))
    value, cluster = rows["score"][row], rows["cluster"][row]
    score = (
        f"{score_name} {value:.3f}"
        if np.isfinite(value)
        else f"not scored: {str(rows['status'][row]).replace('_', ' ')}"
    )
    facts = [score, count(rows["num_response_tokens"][row], "answer token")]
    facts += [f"cluster {cluster}"] if cluster >= 0 else []
    return Card(
        name,
        " · ".join(facts),
        str(rows["reason"][row] or ""),
        *clipped(instruction),
        *clipped(response),
    )


def _rank_sentence(name: str, rho: float) -> str:
    strength = "closely" if abs(rho) >= 0.6 else "loosely" if abs(rho) >= 0.3 else "hardly"
    if strength == "hardly":
        return f"{name} hardly follows answer length"
    which = "longer" if rho > 0 else "shorter"
    return f"{name} {strength} follows answer length: {which} answers score higher"


def _at_cap(scores: Array, kept: Array, cap: float | None) -> str:
    if cap is None:
        return ""
    high = scores >= cap
    if not high.any():
        return f"; no row reaches {cap:g}"
    verb = f"{count((high & kept).sum())} kept" if (high & kept).any() else "all dropped"
    return f"; of {count(high.sum(), 'row')} at or above {cap:g} {verb}"


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _median(values: Array) -> str:
    return f"{np.median(values):.2f}" if len(values) else "—"


def _hits(removed: Sequence[dict[str, Any]], benchmark: str) -> str:
    return count(sum(row["benchmark"] == benchmark for row in removed))
