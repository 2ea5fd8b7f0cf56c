"""Can the numbers be trusted? Fast influence beside exact steps, and predictions behind a gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from codeact.data import Examples
from codeact.errors import InputError
from codeact.evaluation.comparing.correlation import Correlation, spearman
from codeact.files import write_parquet
from codeact.pipeline.influence.checkpoints import Checkpoint
from codeact.pipeline.influence.model import (
    InfluenceModel,
    InfluenceSettings,
    canary_words,
    spans_without_weights,
)
from codeact.pipeline.stage import count_statuses
from codeact.progress import OnProgress

if TYPE_CHECKING:
    from codeact.pipeline.influence.stage import InfluenceResult
    from codeact.scoring.influence.history import InfluenceHistory
    from codeact.scoring.influence.oracle import AdamWStep, SgdStep
    from codeact.scoring.influence.predictor import InfluencePredictor

Floats = NDArray[np.float64]

# Small enough for the loss to be nearly straight over it, large enough for float32 to see it: an
# Adam step moves every weight by about its rate, a plain one by the rate times the gradient.
DEFAULT_STEPS = {"sgd": 1e-3, "adamw": 1e-5}
_BLOCK = 4096  # rows whose tokens are held at once to count those of a pool


@dataclass(frozen=True)
class OracleCheck:
    """Influence of the same rows found twice.

    Attributes:
        ids: of the rows.
        step: learning rate of the step that was taken.
        where: label of the checkpoint that took it; "" if it is alone.
        fast: by task, (num_checked,) first-order influence.
        exact: by task, (num_checked,) fall of the validation loss after one step on the row,
            divided by the learning rate: under plain SGD it goes to ``fast`` as the step shrinks.
    """

    ids: tuple[str, ...]
    step: float
    where: str
    fast: Mapping[str, Floats]
    exact: Mapping[str, Floats]

    @property
    def pairs(self) -> dict[str, tuple[Floats, Floats]]:
        """(fast, exact) by task."""
        return {task: (values, self.exact[task]) for task, values in self.fast.items()}

    def agreement(self) -> dict[str, Correlation]:
        """Spearman's rank correlation of the two, by task."""
        return {task: spearman(fast, exact) for task, (fast, exact) in self.pairs.items()}


def check_with_oracle(
    model: InfluenceModel,
    table: pa.Table,
    num_rows: int,
    step: float | None,
    folder: Path,
    on_progress: OnProgress,
) -> OracleCheck:
    """Measure some rows of an influence table exactly, by one optimizer step each.

    The model is read in float32 whatever the table was made in, since half precision rounds a
    small step away. Finished work is kept in ``folder``.

    Args:
        model: the checkpoint of the table.
        table: the influence of ``model.pool``, or of some of its rows, at this checkpoint.
        num_rows: how many rows, drawn by the seed of the settings among those with a value.
        step: learning rate; None is 1e-3 of SGD and 1e-5 of AdamW.
        folder: where shards are kept.
        on_progress: called with rows done and rows in all.

    Raises:
        InputError: no row has a value.
    """
    settings = model.settings
    step = DEFAULT_STEPS[settings.optimizer] if step is None else step
    chosen = _draw(table, num_rows, settings.seed)
    tasks = list(model.validation)
    kept = folder / f"oracle-{num_rows}-{step!r}.parquet"
    if not kept.exists():
        exact = _one_step(model, [table["id"][row].as_py() for row in chosen], step, on_progress)
        write_parquet(kept, pa.table(dict(zip(tasks, exact.T, strict=True))))
    found = pq.read_table(kept)
    return OracleCheck(
        ids=tuple(table["id"][row].as_py() for row in chosen),
        step=step,
        where=model.checkpoint.label,
        fast={task: table[f"influence_{task}"].to_numpy()[chosen] for task in tasks},
        exact={task: found[task].to_numpy() / step for task in tasks},
    )


def _draw(table: pa.Table, num_rows: int, seed: int) -> NDArray[np.int64]:
    """Rows with a value, in order."""
    usable = np.flatnonzero(np.isfinite(table["influence"].to_numpy()))
    if len(usable) == 0:
        raise InputError("--oracle needs a row with an influence, got none")
    drawn = np.random.default_rng(seed).permutation(usable)[:num_rows]
    return np.sort(drawn)


def _one_step(
    model: InfluenceModel, ids: list[str], step: float, on_progress: OnProgress
) -> Floats:
    """(num_rows, num_tasks) float64 exact falls of the validation losses."""
    from codeact.models import parameter_names
    from codeact.scoring.influence.oracle import one_step_influence

    place = {id_: row for row, id_ in enumerate(model.pool.ids)}
    rows = model.sequences(model.pool.select([place[id_] for id_ in ids]))
    return one_step_influence(
        model.scorer.model,
        [row for row in rows if row is not None],  # rows with a value have tokens to score
        {task.name: task.sequences for task in model.tasks},
        _optimizer_step(model, step),
        names=parameter_names(model.scorer.model, model.settings.parameters),
        token_budget=model.settings.token_budget,
        on_progress=on_progress,
    )


def _optimizer_step(model: InfluenceModel, step: float) -> SgdStep | AdamWStep:
    from codeact.scoring.influence.oracle import AdamWStep, SgdStep

    return SgdStep(step) if model.state is None else AdamWStep(step, model.state)


def fill_predicted(
    measured: pa.Table,
    checkpoint: Checkpoint,
    pool: Examples,
    embeddings: NDArray[np.float32],
    settings: InfluenceSettings,
    gate: float,
) -> tuple[pa.Table, dict[str, InfluencePredictor]]:
    """The whole pool's table: measured rows, and the others predicted from their embeddings.

    A column is filled only where its predictor passes its gate; elsewhere it stays null. Every
    task has a predictor of its own, and so has the mean over tasks, which of several tasks is no
    mean of predictions. ``influence_source`` is ``measured``, ``predicted`` or, without a value,
    null. ``status`` of a row that was not measured says whether it could be.

    Args:
        measured: influence table of some rows of ``pool``.
        checkpoint: whose tokens count.
        pool: all rows.
        embeddings: (num_rows, dim) of all rows.
        settings: of the measured rows.
        gate: what the held-out Spearman has to reach, see
            :class:`codeact.scoring.influence.predictor.InfluencePredictor`.

    Returns:
        The table, and the predictors by task (the mean over several tasks is ``""``).
    """
    from codeact.scoring.influence.history import InfluenceHistory
    from codeact.scoring.influence.predictor import InfluencePredictor
    from codeact.scoring.spans import SCORABLE

    table = _with_unmeasured(measured, checkpoint, pool, settings)
    is_measured = np.isin(np.array(pool.ids, dtype=object), measured["id"].to_pylist())
    is_usable = np.isin(table["status"].to_pylist(), SCORABLE)
    is_usable &= np.isfinite(embeddings).all(axis=1)
    tasks = InfluenceHistory.of_table(measured).tasks
    wanted = {task: f"influence_{task}" for task in tasks}
    wanted |= {"": "influence"} if len(tasks) > 1 else {}
    lengths = table["num_response_tokens"].to_numpy()
    predictors: dict[str, InfluencePredictor] = {}
    for task, column in wanted.items():
        values = table[column].to_numpy().copy()
        known = is_measured & is_usable & np.isfinite(values)
        predictor = InfluencePredictor(gate=gate, seed=settings.seed)
        predictors[task] = predictor.fit(
            embeddings[known], values[known], num_response_tokens=lengths[known]
        )
        blank = ~is_measured & is_usable
        if predictor.passes_ and blank.any():
            values[blank] = predictor.predict(embeddings[blank])
            table = _with_column(table, column, values)
            if len(tasks) == 1:
                table = _with_column(table, "influence", values)
    has_value = np.isfinite(table["influence"].to_numpy())
    sources = [
        None if not known else "measured" if here else "predicted"
        for known, here in zip(has_value, is_measured, strict=True)
    ]
    return table.append_column("influence_source", pa.array(sources, pa.string())), predictors


def _with_unmeasured(
    measured: pa.Table, checkpoint: Checkpoint, pool: Examples, settings: InfluenceSettings
) -> pa.Table:
    """A row for every row of the pool, in order; null where it was not measured."""
    from codeact.scoring.influence.table import influence_table

    known = set(measured["id"].to_pylist())
    others = pool.select([row for row, id_ in enumerate(pool.ids) if id_ not in known])
    blocks = [
        others.select(range(k, min(k + _BLOCK, len(others)))) for k in range(0, len(others), _BLOCK)
    ]
    blank = pa.concat_tables(
        influence_table(
            rows.ids,
            spans_without_weights(checkpoint, rows, settings),
            [None] * len(rows),
            ["task"],
        )
        for rows in blocks
    )
    columns = [
        blank[field.name] if field.name in blank.column_names
        else pa.nulls(len(others), field.type)
        for field in measured.schema
    ]  # fmt: skip
    both = pa.concat_tables([measured, pa.table(columns, schema=measured.schema)])
    place = {id_: row for row, id_ in enumerate(both["id"].to_pylist())}
    return both.take([place[id_] for id_ in pool.ids])


def _with_column(table: pa.Table, name: str, values: NDArray[np.float64]) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, name, pa.array(values, from_pandas=True))


def result_words(result: InfluenceResult) -> Iterator[str]:
    """What came out, in lines."""
    table, measured = result.table, result.measured
    yield f"{len(table)} rows: {count_statuses(table['status'].to_pylist())}"
    for label, note in measured.notes.items():
        yield canary_words(label, note)
    history = measured.history
    for task, words in next(iter(measured.notes.values())).problems.items():
        if not words.endswith(" problems"):
            yield f"{task}: {words}"
    for task, values in zip(history.tasks, history.mean().T, strict=True):
        known = values[np.isfinite(values)]
        share = f"{(known < 0).mean():.0%}" if len(known) else "none"
        yield f"{task}: {share} of {len(known)} measured rows harm it"
    if len(history.checkpoints) > 1:
        yield from _drift(history, measured.weights is not None)
    if result.oracle is not None:
        where = f" at {result.oracle.where}" if len(history.checkpoints) > 1 else ""
        for task, found in result.oracle.agreement().items():
            low, high = found.interval
            yield (
                f"{task}: Spearman {found.rho:.3f} ({low:.3f} to {high:.3f}) with exact steps of "
                f"rate {result.oracle.step:g} on {found.num_pairs} rows{where}"
            )
    yield from _predicted(result)


def _drift(history: InfluenceHistory, by_rate: bool) -> Iterator[str]:
    """How the checkpoints agree, each with the one before."""
    from codeact.scoring.influence.drift import between_checkpoints

    rule = "their learning rates" if by_rate else "1 each, for want of learning rates"
    yield f"the mean over {len(history.checkpoints)} checkpoints weighs them by {rule}"
    for task, found in between_checkpoints(history).items():
        for after in range(1, len(found.names)):
            before = after - 1
            place = (before, after)
            yield (
                f"{task}: Spearman {found.rho[place]:.2f} ({found.low[place]:.2f} to "
                f"{found.high[place]:.2f}) from {found.names[before]} to {found.names[after]}"
            )


def _predicted(result: InfluenceResult) -> Iterator[str]:
    for task, predictor in result.predictors.items():
        yield f"{task}: {predictor.verdict_}" if task else predictor.verdict_
    if result.predictors:
        sources = result.table["influence_source"].to_pylist()
        yield (
            f"{sources.count('measured')} rows measured, {sources.count('predicted')} predicted, "
            f"{sources.count(None)} without influence"
        )
