"""What a run folder says, read once: arrays and plain values, None where a stage has not run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codeact.errors import InputError
from codeact.files import read_json, read_jsonl, read_parquet
from codeact.pipeline.recipe import Recipe, load_recipe
from codeact.pipeline.report_words import arm_names
from codeact.pipeline.run_folder import MANIFEST, Manifest, RunFolder
from codeact.pipeline.score_words import ScoreWords, score_words

Array = np.ndarray[Any, Any]
Columns = Mapping[str, Array]

TRAINED_ARMS = ("selected", "random")
_SCORES = ("id", "status", "num_response_tokens")
_SELECTION = ("id", "cluster", "kept", "reason", "kept_random")
_HELD_OUT = ("id", "num_response_tokens", "nll_base", "nll_selected", "nll_random")


@dataclass(frozen=True)
class RunFacts:
    """One attribute a file of the run folder; tables are columns by name, null floats are NaN.

    ``scores`` has the preset's own score as ``score``; ``selection`` has all of ``scores`` as well.
    """

    path: Path
    recipe: Recipe
    manifest: Manifest
    scores: Columns | None
    selection: Columns | None
    packing: Mapping[str, Any] | None
    logs: Mapping[str, list[dict[str, Any]]]
    summaries: Mapping[str, Mapping[str, Any]]
    held_out: Columns | None
    comparison: Mapping[str, Any] | None
    decontamination: Mapping[str, Any] | None
    benchmarks: Mapping[str, Any] | None

    @property
    def arm_names(self) -> Mapping[str, str]:
        """What the arms are called, for a reader."""
        return arm_names(self.recipe)

    @property
    def words(self) -> ScoreWords:
        """How to speak of the score."""
        return score_words(self.recipe)


def read_run(path: Path) -> RunFacts:
    """Reads what a run has written so far.

    Raises:
        InputError: ``path`` is no run folder, or one of its files is broken; the text names it.
    """
    if not path.is_dir():
        raise InputError(f"run must be a run folder, got {path}, which is no folder")
    if not any((path / name).is_file() for name in ("recipe.yaml", MANIFEST)):
        raise InputError(f"run must be a run folder, got {path} without recipe.yaml or {MANIFEST}")
    recipe = load_recipe(path / "recipe.yaml") if (path / "recipe.yaml").exists() else Recipe()
    column = score_words(recipe).column
    scores = _columns(path / "scores.parquet", (*_SCORES, column))
    if scores is not None:
        scores = {**scores, "score": scores[column]}
    train = path / "train"
    logs = {arm: list(read_jsonl(train / arm / "log.jsonl")) for arm in _arms(train, "log.jsonl")}
    return RunFacts(
        path=path,
        recipe=recipe,
        manifest=RunFolder(path).manifest,
        scores=scores,
        selection=_selection(path / "selection.parquet", scores),
        packing=_optional_json(path / "packing.json"),
        logs={arm: log for arm, log in logs.items() if log},
        summaries={
            arm: read_json(train / arm / "summary.json") for arm in _arms(train, "summary.json")
        },
        held_out=_columns(path / "evaluation" / "held_out.parquet", _HELD_OUT),
        comparison=_optional_json(path / "evaluation" / "comparison.json"),
        decontamination=_optional_json(path / "decontamination.json"),
        benchmarks=_optional_json(path / "evaluation" / "benchmarks" / "comparison.json"),
    )


def main_pair_first(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pairs of comparison.json, the one of the selection and its control in front."""
    return sorted(pairs, key=lambda pair: {pair["a"], pair["b"]} != set(TRAINED_ARMS))


def mean_interval(
    values: Array, weights: Array, *, confidence: float, seed: int
) -> tuple[float, float]:
    """Percentile bootstrap interval of a weighted mean over rows, 2,000 resamples.

    Args:
        values: (num_rows,) means of each row, such as nats per token.
        weights: (num_rows,) what each row counts, such as its tokens.
        confidence: In (0, 1).
        seed: Of the resampling.
    """
    random = np.random.default_rng(seed)
    means = []
    for _ in range(2000):
        rows = random.integers(0, len(values), len(values))
        means.append(np.average(values[rows], weights=weights[rows]))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _arms(train: Path, name: str) -> list[str]:
    return [arm for arm in TRAINED_ARMS if (train / arm / name).is_file()]


def _selection(path: Path, scores: Columns | None) -> Columns | None:
    """Scores and selection in one table; both have a row an example, in the same order."""
    chosen = _columns(path, _SELECTION)
    if chosen is None or scores is None:
        return None
    if not np.array_equal(chosen["id"], scores["id"]):
        raise InputError(f"{path} must hold the rows of scores.parquet in their order, got others")
    return {**scores, **chosen}


def _columns(path: Path, names: tuple[str, ...]) -> Columns | None:
    if not path.is_file():
        return None
    table = read_parquet(path, names)
    columns = {name: table[name].to_numpy() for name in names}
    if not len(table):
        raise InputError(f"{path} must hold at least one row, got none")
    return columns


def _optional_json(path: Path) -> Any:
    return read_json(path) if path.is_file() else None
