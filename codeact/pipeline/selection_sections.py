"""Sections of the selection report: where the kept rows come from, and what arms share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from codeact.pipeline.report_parts import Card, CardGroup, Figure, Section, Table, as_figure
from codeact.pipeline.report_words import clipped, count, duration, percent
from codeact.pipeline.score_words import column_meaning, score_text
from codeact.pipeline.selection_facts import SelectionFacts
from codeact.pipeline.selection_figures import (
    arm_colours,
    hover_text,
    overlap_heat,
    row_map,
    share_bars,
)
from codeact.pipeline.selection_map import map_rows
from codeact.selection.rows import Rows
from codeact.selection.summary import (
    GroupCounts,
    count_by_group,
    decile_bands,
    expected_jaccard,
    jaccard,
)

_MOST_GROUPS = 12  # side by side; the rest are one
_PER_GROUP = 3  # cards of a kind
_NO_CLUSTER, _NO_SCORE = "none", "no score"


def arms_section(facts: SelectionFacts) -> Section:
    """What every arm kept, in numbers."""
    lengths, unit = facts.lengths
    score = facts.candidates.columns[facts.score] if facts.score else None
    head = ["", "rows", f"{unit} of answers", "share", f"median {unit}", "time", "source"]
    if score is not None:
        head.insert(5, f"median {facts.score}")
    everything = np.arange(facts.num_rows)
    lines = []
    for name, rows in {"all rows": everything, **facts.selections}.items():
        line = [
            name,
            count(len(rows)),
            count(lengths[rows].sum()),
            percent(lengths[rows].sum() / max(1, lengths.sum())),
            count(np.median(lengths[rows])),
            duration(facts.arms[name].seconds) if name in facts.arms else "",
            (facts.arms[name].source or "—") if name in facts.arms else "",
        ]
        if score is not None:
            known = score[rows][np.isfinite(score[rows])]
            line.insert(5, score_text(float(np.median(known))) if len(known) else "—")
        lines.append(line)
    text = [
        "Random rows stand beside every figure, because a selection has to beat them. "
        "The length-matched ones are as many as the selection keeps, at its response lengths: what "
        "differs from them is not a matter of length. Which rows train the better model no page "
        "about a selection can say; that takes a training run and a paired test."
    ]
    return Section("arms", "What is compared", text=text, tables=[Table(head, lines)])


def map_section(facts: SelectionFacts) -> Section:
    """Kept rows among all rows, beside random ones."""
    title, embeddings = "Map", facts.candidates.embeddings
    if embeddings is None:
        return Section("map", title, "There are no embeddings (--embeddings) to draw a map of.")
    layout = map_rows(embeddings, facts.examples.ids, seed=facts.seed)
    reasons = facts.main.selector.reasons_
    texts = [
        hover_text(facts.examples[row].id, facts.examples[row].instruction[:600], reasons[row])
        for row in layout.rows.tolist()
    ]
    colours = arm_colours(list(facts.arms))
    plots = [
        as_figure(
            f"map-{place}",
            "",
            row_map(layout, facts.kept(arm.name)[layout.rows], arm.name, texts, colours[arm.name]),
        ).html
        for place, arm in enumerate((facts.main, facts.control))
    ]
    shown = "All" if len(layout.rows) == facts.num_rows else "Random"
    caption = (
        f"{shown} {count(len(layout.rows), 'row')} by {layout.method} of their embeddings: "
        f"{facts.main.name} beside {facts.control.name}."
    )
    text = [
        "Rows with similar embeddings stand together; distances between far rows and the size of "
        "a patch mean little. Point at a row to read it."
    ]
    both = Markup('<div class="beside">{}{}</div>').format(*plots)
    return Section("map", title, text=text, figures=[Figure(caption, both)])


def group_sections(facts: SelectionFacts) -> list[Section]:
    """Kept shares by cluster, language, length and score."""
    return [
        _cluster_section(facts),
        _section(facts, "languages", "Languages", facts.languages, (), "language", (
            "The language of a row is what it says of itself, else what its code looks like."
        )),
        _length_section(facts),
        _score_section(facts),
    ]  # fmt: skip


def _cluster_section(facts: SelectionFacts) -> Section:
    if facts.clusters is None:
        return Section("clusters", "Clusters", "There are no embeddings (--embeddings) to cluster.")
    labels, whose = facts.clusters
    names = [_NO_CLUSTER if label < 0 else str(label) for label in labels.tolist()]
    order = [str(label) for label in range(int(labels.max()) + 1)] if labels.max() >= 0 else []
    order = order if len(order) <= _MOST_GROUPS else []
    text = f"Clusters of the embeddings: {whose}."
    return _section(facts, "clusters", "Clusters", names, order, "cluster", text)


def _length_section(facts: SelectionFacts) -> Section:
    lengths, unit = facts.lengths
    bands = decile_bands(lengths, whole=True)
    text = (
        f"Tenths of the rows by the {unit} of their response, from short to long. The "
        "length-matched control keeps about as much of each as the selection does."
    )
    title = f"response length ({unit})"
    return _section(facts, "length", "Length", bands.labels, bands.order, title, text)


def _score_section(facts: SelectionFacts) -> Section:
    if facts.score is None:
        return Section("score", "Score", "No column of scores was given (--scores).")
    values = facts.candidates.columns[facts.score]
    bands = decile_bands(values, missing=_NO_SCORE)
    num_missing = int(np.isnan(values).sum())
    text = f"Tenths of the rows by {facts.score}, from low to high."
    if meaning := column_meaning(facts.score):
        text = f"{meaning} {text}"
    if num_missing:
        text += f" {count(num_missing, 'row')} without a score stand at the end."
    return _section(
        facts, "score", f"Score: {facts.score}", bands.labels, bands.order, facts.score, text
    )


def _section(
    facts: SelectionFacts,
    anchor: str,
    title: str,
    groups: Sequence[str],
    order: Sequence[str],
    x_title: str,
    text: str,
) -> Section:
    """A figure of kept shares and the numbers behind it."""
    groups, order = _largest(groups, order)
    counts = count_by_group(groups, facts.selections, order=order)
    shares = counts.shares(facts.main.name)
    low, high = int(np.argmin(shares)), int(np.argmax(shares))
    others = counts.shares(facts.control.name)
    least, most = (
        f"cluster {counts.groups[end]}" if x_title == "cluster" else f"“{counts.groups[end]}”"
        for end in (low, high)
    )
    caption = (
        f"Of {least}, {facts.main.name} keeps {percent(shares[low])} and "
        f"{facts.control.name} {percent(others[low])}; of {most}, "
        f"{percent(shares[high])} and {percent(others[high])}."
    )
    if len(counts.groups) == 1:
        caption = f"All rows are in one group: {counts.groups[0]}."
    figure = as_figure(anchor, caption, share_bars(counts, x_title))
    return Section(
        anchor, title, text=[text], figures=[figure], tables=[_count_table(counts, x_title)]
    )


def _largest(groups: Sequence[str], order: Sequence[str]) -> tuple[list[str], list[str]]:
    """The small groups under one name, the last one, where there are too many to be shown."""
    names, sizes = np.unique(np.asarray(groups, dtype=str), return_counts=True)
    if len(names) <= _MOST_GROUPS:
        return list(groups), list(order)
    by_size = [name for _, name in sorted(zip((-sizes).tolist(), names.tolist(), strict=True))]
    shown = dict.fromkeys(by_size[: _MOST_GROUPS - 1])
    rest = f"{len(names) - len(shown)} others"
    return [group if group in shown else rest for group in groups], [*shown, rest]


def _count_table(counts: GroupCounts, title: str) -> Table:
    lines = [
        [
            group,
            count(size),
            *(f"{count(kept[row])} ({percent(kept[row] / size)})" for kept in counts.kept.values()),
        ]
        for row, (group, size) in enumerate(zip(counts.groups, counts.sizes, strict=True))
    ]
    return Table([title, "rows", *counts.kept], lines)


def overlap_section(facts: SelectionFacts) -> Section:
    """How many rows the arms share, beside what chance would share."""
    names = list(facts.arms)
    overlap = jaccard(facts.selections, facts.num_rows)
    main, control = facts.main, facts.control
    shared = overlap[0, names.index(control.name)]
    chance = expected_jaccard(len(main.selected), len(control.selected), facts.num_rows)
    caption = (
        f"Of the rows that {main.name} or {control.name} keep, both keep {percent(shared)}; for "
        f"two random choices of these sizes it is about {percent(chance)}."
    )
    text = ["Rows that both of two arms keep, of those that at least one of them keeps (Jaccard)."]
    figure = as_figure("overlap", caption, overlap_heat(names, overlap))
    return Section("overlap", "Overlap", text=text, figures=[figure])


def decision_section(facts: SelectionFacts) -> Section:
    """Rows a person can read, with the reason of the method; some of them drawn at random."""
    ranks, kept = facts.main.selector.ranks_, facts.kept(facts.main.name)
    rows = Rows(facts.num_rows, facts.examples.ids)
    order = np.lexsort((rows.place, ranks))
    ranked = order[ranks[order] >= 0]
    chosen = (
        ("Kept, best placed", "", ranked[kept[ranked]]),
        ("Kept, last placed", "", ranked[kept[ranked]][_PER_GROUP:][::-1]),
        ("Dropped, best placed", "What a larger budget would add first.", ranked[~kept[ranked]]),
        ("Dropped without a place", "The method does not rank them.", order[ranks[order] < 0]),
        ("Random rows", "Whatever became of them.", np.argsort(rows.keys(facts.seed, "shown"))),
    )
    groups = [
        CardGroup(title, note, [_card(facts, int(row), bool(kept[row])) for row in part])
        for title, note, found in chosen
        if len(part := found[:_PER_GROUP])
    ]
    return Section("decisions", "Decisions", groups=groups)


def _card(facts: SelectionFacts, row: int, kept: bool) -> Card:
    example = facts.examples[row]
    lengths, unit = facts.lengths
    words = ["kept" if kept else "dropped"]
    if facts.score is not None:
        value = facts.candidates.columns[facts.score][row]
        known = np.isfinite(value)
        words.append(f"{facts.score} {score_text(value)}" if known else "not scored")
    words.append(count(lengths[row], f"answer {unit[:-1]}"))
    if facts.clusters is not None and facts.clusters[0][row] >= 0:
        words.append(f"cluster {facts.clusters[0][row]}")
    words.append(facts.languages[row])
    reason = facts.main.selector.reasons_[row]
    return Card(
        example.id,
        " · ".join(words),
        reason,
        *clipped(example.instruction),
        *clipped(example.response),
    )
