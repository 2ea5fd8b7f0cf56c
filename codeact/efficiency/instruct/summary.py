"""The figures of an EffiInstruct build: how much there is, and what choosing gained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from codeact.efficiency.comparing.metrics import normalised
from codeact.efficiency.comparing.net_samples import Metrics, metrics_of_rounds, shared_rounds
from codeact.efficiency.instruct.choose import Choice
from codeact.efficiency.instruct.effi_instruct import Dropped
from codeact.efficiency.racing.measurements import MeasuredCandidate, Measurements

Row = Mapping[str, Any]
_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def summarise(
    measurements: Measurements,
    choices: Sequence[Choice],
    drawn: Sequence[tuple[MeasuredCandidate, MeasuredCandidate]],
    pairs: Sequence[Row],
    dropped: Sequence[Dropped],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Plain values for ``summary.json``.

    ``drawn`` holds each chosen answer and its twin's. ``chosen_over_twin`` sets one against the
    other, metric by metric and over the rounds that both ran (``normalised``): below 1 is what
    the choice gained. ``speedup_over_reference`` and the pairs' gaps are quantiles from 0 to 1.
    """
    stages = {stage: [one for one in dropped if one.stage == stage] for stage in ("task", "pair")}
    speedups = [c.speedup_over_reference for c in choices if c.speedup_over_reference is not None]
    gaps = {name: [float(row[name]) for row in pairs] for name in ("race_gap", "gap")}
    return {
        "format": 1,
        "options": dict(options),
        "num_races": len(measurements.tasks),
        "num_candidates": len(measurements.records),
        "num_correct": sum(record.passed for record in measurements.records),
        "num_instructions": len(choices),
        "num_pairs": len(pairs),
        "dropped_tasks": _counts(one.reason for one in stages["task"]),
        "dropped_pairs": _counts(one.reason for one in stages["pair"]),
        "chosen_origins": _counts(choice.origin for choice in choices),
        "decided_by": _counts(choice.decided_by for choice in choices),
        "chosen_over_twin": _relative(drawn),
        "speedup_over_reference": _quantiles(speedups),
        "pair_gaps": {name: _quantiles(values) for name, values in gaps.items()},
        "host": asdict(measurements.host),
    }


def _counts(names: Any) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _relative(drawn: Sequence[tuple[MeasuredCandidate, MeasuredCandidate]]) -> dict[str, Any]:
    """By metric, chosen over drawn; empty without a task."""
    rows = []
    for both in drawn:
        rounds = shared_rounds(both)
        rows.append([metrics_of_rounds(record, rounds) for record in both])
    found = {}
    for index, name in enumerate(Metrics._fields if rows else ()):
        chosen, twin = zip(*((best[index], other[index]) for best, other in rows), strict=True)
        found[name] = asdict(normalised(chosen, twin))
    return found


def _quantiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    found = np.quantile(np.asarray(values), _QUANTILES)
    return {f"{at:g}": float(value) for at, value in zip(_QUANTILES, found, strict=True)}
