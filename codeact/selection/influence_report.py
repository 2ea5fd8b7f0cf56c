"""What a selection by influence says of itself: its report and its reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeact.selection.ranked import name_failures
from codeact.selection.selector import SelectionReport

Values = NDArray[np.float64]

_NEGATIVE = "; negative: a step on it raises the validation loss"


@dataclass(frozen=True, kw_only=True)
class InfluenceReport(SelectionReport):
    """What :class:`TopInfluence` reports besides. A scale is ``influence``, or a task by its name.

    Attributes:
        edges: Lowest and highest value that was eligible, by scale; NaN where no row was.
        thresholds: Lowest value among the rows that a scale brought in (of all kept rows where
            nobody picks), NaN where it brought in none.
        kept_by_task: Rows that each task brought in by its turns; empty without turns.
        helpful_by_task: Share of the kept rows with a value on a task where it is above 0; empty
            where the influence on single tasks is not known.
        num_negative: Rows of the set whose influence (mean over tasks) is below 0.
        share_negative: The same as a share of the kept rows. Above 0 the budget is larger than the
            rows that help, to first order: a smaller one would leave the harmful ones out.
    """

    edges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    kept_by_task: Mapping[str, int] = field(default_factory=dict)
    helpful_by_task: Mapping[str, float] = field(default_factory=dict)
    num_negative: int = 0
    share_negative: float = 0.0


def report_fields(
    selected: NDArray[np.int64],
    mean: Values,
    scales: Mapping[str, Values],
    tasks: Mapping[str, Values],
    eligible: Sequence[NDArray[np.int64]],
    pickers: NDArray[np.int32],
) -> dict[str, Any]:
    """The fields of :class:`InfluenceReport` beyond the counts.

    Args:
        selected: Kept rows.
        mean: (num_rows,) influence.
        scales: What rows were ranked by.
        tasks: Influence on single tasks, as far as known.
        eligible: Rows that each scale might keep.
        pickers: (num_rows,) the scale that picks a row, -1 for none.
    """
    edges, thresholds, brought = {}, {}, {}
    nobody_picks = bool((pickers < 0).all())
    for number, (name, values) in enumerate(scales.items()):
        edges[name] = _ends(values[eligible[number]])
        own = selected if nobody_picks else selected[pickers[selected] == number]
        thresholds[name] = _ends(values[own])[0]
        brought[name] = len(own)
    has_turns = len(tasks) > 0 and scales.keys() == tasks.keys() and not nobody_picks
    return {
        "edges": edges,
        "thresholds": thresholds,
        "kept_by_task": brought if has_turns else {},
        "helpful_by_task": {name: _share_above(values[selected]) for name, values in tasks.items()},
        "num_negative": int((mean < 0).sum()),
        "share_negative": float((mean[selected] < 0).mean()) if len(selected) else 0.0,
    }


def explain(
    reasons: Sequence[str],
    mean: Values,
    scales: Mapping[str, Values],
    pickers: NDArray[np.int32],
    ranks: NDArray[np.int32],
    keep: str,
) -> list[str]:
    """A reason for every row: its place, whose turn it was, its value, and whether it harms."""
    names, values = list(scales), np.stack(list(scales.values()))
    of_tasks = names != ["influence"]
    told = []
    for row, (reason, picker, rank) in enumerate(
        zip(reasons, pickers.tolist(), ranks.tolist(), strict=True)
    ):
        if rank < 0:
            told.append(f"dropped: {_outside(keep, of_tasks, mean[row])}")
            continue
        what = f"task {names[picker]}" if of_tasks and picker >= 0 else "influence"
        value = values[picker, row] if picker >= 0 else mean[row]
        harms = reason.startswith("kept") and mean[row] < 0
        told.append(f"{reason}, {what} {value:.4g}{_NEGATIVE if harms else ''}")
    return name_failures(told, mean, "influence")


def _outside(keep: str, of_tasks: bool, value: float) -> str:
    if keep == "band":
        where = "in the band of no task" if of_tasks else "outside the band"
        return f"influence {value:.4g} is {where}"
    if keep == "drop-bottom":
        where = "of the worst on a task" if of_tasks else "of the worst"
        return f"influence {value:.4g} is {where}"
    return "no influence on any task"


def _ends(values: Values) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    return (float(known.min()), float(known.max())) if len(known) else (np.nan, np.nan)


def _share_above(values: Values) -> float:
    known = values[~np.isnan(values)]
    return float((known > 0).mean()) if len(known) else np.nan
