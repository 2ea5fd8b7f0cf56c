"""Sections of the report on the data: scores, lengths, clusters, examples, decontamination."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from codeact.evaluation import spearman
from codeact.pipeline.figures import IFD_SHOWN, Array, cluster_bars, ifd_histogram, length_scatter
from codeact.pipeline.report_facts import Columns, RunFacts
from codeact.pipeline.report_parts import Card, CardGroup, Section, Table, as_figure
from codeact.pipeline.report_words import clipped, count, percent, sentence
from codeact.pipeline.rows import read_examples

_PER_GROUP = 3  # examples of a kind: enough to get the idea, few enough to be read
_REMOVED_SHOWN = 20


def score_section(facts: RunFacts) -> Section:
    """How IFD is spread, and which part of it was kept."""
    title = "Instruction-following difficulty"
    if facts.scores is None:
        return Section("ifd", title, "No row has been scored yet (scores.parquet is not there).")
    ifd, kept, rows = _scored(facts)
    if not len(ifd):
        return Section("ifd", title, "Every row failed to score; the statuses are in the examples.")
    num_failed = len(rows["id"]) - len(ifd)
    if kept is None:
        caption = f"Median IFD over {count(len(ifd), 'scored row')} is {np.median(ifd):.2f}."
    else:
        caption = (
            f"Median IFD is {_median(ifd[kept])} among kept rows and {_median(ifd[~kept])} among "
            f"dropped ones; {_at_least_one(ifd, kept)}."
        )
    measure = "mean loss" if facts.recipe.score.preset == "cherry" else "perplexity"
    text = [
        f"IFD is the {measure} of the answer given its instruction, divided by the {measure} of "
        "the answer alone. Near 0 the instruction gives the answer away; at 1 or above it does "
        "not help at all, which usually means that the two do not belong together."
    ]
    if num_failed:
        stay = "stays" if num_failed == 1 else "stay"
        text.append(
            f"{count(num_failed, 'row')} could not be scored and {stay} out of the figures."
        )
    num_far = int((ifd > IFD_SHOWN).sum())
    if num_far:
        text.append(f"The last bin also holds {count(num_far, 'row')} above {IFD_SHOWN}.")
    return Section(
        "ifd", title, text=text, figures=[as_figure("ifd", caption, ifd_histogram(ifd, kept))]
    )


def length_section(facts: RunFacts) -> Section:
    """How closely IFD follows answer length, and what that means for the baseline."""
    title = "IFD and answer length"
    ifd, kept, rows = _scored(facts)
    if not len(ifd):
        return Section("length", title, "There are no scores to compare with lengths yet.")
    scored = np.isfinite(rows["ifd"])
    num_tokens = rows["num_response_tokens"][scored]
    found = spearman(num_tokens, ifd)
    low, high = (f"{end:.2f}".replace("-", "−") for end in found.interval)
    rho = f"{found.rho:.2f}".replace("-", "−")
    caption = (
        f"{_rank_sentence(found.rho)} (Spearman ρ = {rho}, "
        f"{percent(found.confidence)} interval {low} to {high})."
    )
    if math.isnan(found.rho):
        caption = "Lengths or scores do not vary here, so no rank correlation can be given."
    figure = length_scatter(num_tokens, ifd, kept, [str(row) for row in rows["id"][scored]])
    text = [
        "Whatever follows length also chooses by length, and length alone changes what a model "
        "learns. So the baseline is a random choice of the same number of rows with the same "
        "length profile: a plain random choice would mix the two effects."
    ]
    tables = [_arms_table(facts.selection)] if facts.selection is not None else []
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
        "Rows are clustered by their embeddings, and the highest IFD below 1 is kept inside each "
        "cluster, so that no topic is lost to another one with harder answers."
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
    ifd, kept = rows["ifd"], rows["kept"]
    order = np.argsort(ifd, kind="stable")  # NaN last
    order = order[np.isfinite(ifd[order])]
    failed = np.flatnonzero(~np.isfinite(ifd))
    chosen = [
        ("Kept: the highest IFD", "", order[kept[order]][::-1]),
        ("Dropped: the lowest IFD", "", order[~kept[order] & (ifd[order] < 1)]),
        ("IFD of 1 or more", "Never kept: the instruction does not help.", order[ifd[order] >= 1]),
        ("Not scored", "These rows keep a status in place of a score.", failed),
    ]
    picked = [(name, note, indices[:_PER_GROUP]) for name, note, indices in chosen]
    texts = _texts(facts, {str(rows["id"][row]) for *_, part in picked for row in part})
    groups = [
        CardGroup(name, note, [_card(rows, row, texts) for row in indices])
        for name, note, indices in picked
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
    """IFD of the rows that have one, whether they were kept, and the table they came from."""
    rows = facts.selection if facts.selection is not None else facts.scores
    if rows is None:
        return np.empty(0), None, {"id": np.empty(0), "ifd": np.empty(0)}
    finite = np.isfinite(rows["ifd"])
    kept = rows["kept"][finite] if "kept" in rows else None
    return rows["ifd"][finite], kept, rows


def _arms_table(rows: Columns) -> Table:
    """Numbers and lengths of all, CDAS and random rows: the same profile, or the test is void."""
    everything = np.ones(len(rows["id"]), dtype=bool)
    arms = (
        ("all rows", everything),
        ("CDAS", rows["kept"]),
        ("length-matched random", rows["kept_random"]),
    )
    lines = []
    for name, mask in arms:
        tokens, ifd = rows["num_response_tokens"][mask], rows["ifd"][mask]
        quartiles = np.quantile(tokens, [0.25, 0.5, 0.75]) if len(tokens) else [0, 0, 0]
        lines.append(
            [
                name,
                count(len(tokens)),
                count(tokens.sum()),
                *(count(quartile) for quartile in quartiles),
                _median(ifd[np.isfinite(ifd)]),
            ]
        )
    head = ["", "rows", "answer tokens", "lower quartile", "median", "upper quartile", "median IFD"]
    return Table(head, lines, caption="Answer lengths of the arms, in tokens.")


def _texts(facts: RunFacts, ids: set[str]) -> dict[str, tuple[str, str]]:
    """Instruction and response of these ids, read from examples.jsonl."""
    examples = read_examples(facts.path / "examples.jsonl", ids)
    return {example.id: (example.instruction, example.response) for example in examples}


def _card(rows: Columns, row: int, texts: Mapping[str, tuple[str, str]]) -> Card:
    name = str(rows["id"][row])
    instruction, response = texts.get(name, ("(not in examples.jsonl)", ""))
    ifd, cluster = rows["ifd"][row], rows["cluster"][row]
    score = (
        f"IFD {ifd:.3f}"
        if np.isfinite(ifd)
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


def _rank_sentence(rho: float) -> str:
    strength = "closely" if abs(rho) >= 0.6 else "loosely" if abs(rho) >= 0.3 else "hardly"
    if strength == "hardly":
        return "IFD hardly follows answer length"
    which = "longer" if rho > 0 else "shorter"
    return f"IFD {strength} follows answer length: {which} answers score higher"


def _at_least_one(ifd: Array, kept: Array) -> str:
    high = ifd >= 1
    if not high.any():
        return "no row reaches 1"
    verb = "kept" if (high & kept).any() else "dropped"
    return f"{count(high.sum(), 'row')} at or above 1 {'is' if high.sum() == 1 else 'are'} {verb}"


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _median(values: Array) -> str:
    return f"{np.median(values):.2f}" if len(values) else "—"


def _hits(removed: Sequence[dict[str, Any]], benchmark: str) -> str:
    return count(sum(row["benchmark"] == benchmark for row in removed))
