"""Influence of a pool at one or several checkpoints, kept shard by shard."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import codeact
from codeact.data import Examples
from codeact.errors import InputError
from codeact.files import read_json, write_json, write_parquet
from codeact.pipeline.influence.check import OracleCheck, check_with_oracle, fill_predicted
from codeact.pipeline.influence.checkpoints import Checkpoint, file_stamp, rates_as_weights
from codeact.pipeline.influence.model import (
    InfluenceModel,
    InfluenceSettings,
    Measured,
    Notes,
    canary_words,
    problem_words,
)
from codeact.pipeline.score_cost import clock_in
from codeact.progress import OnProgress

if TYPE_CHECKING:
    from codeact.pipeline.influence.facts import InfluenceFacts
    from codeact.scoring.influence.predictor import InfluencePredictor
    from codeact.scoring.influence.probe import InfluenceProbe

# Rows between two saves: half of a plain scoring shard, for passes of more than twice the work.
_CPU_ROWS = 32
_CUDA_ROWS = 4096
_NOTES = "notes.json"

Begin = Callable[[str], OnProgress]
"""Called with words for what begins; gives what takes its progress."""


@dataclass(frozen=True, kw_only=True)
class InfluenceJob:
    """What is asked of one pool.

    Attributes:
        pool: all rows.
        validation: problems by task.
        checkpoints: models to measure at, see :func:`find_checkpoints`.
        settings: of the measure.
        num_measured: rows to measure, drawn by the seed; None is all.
        embeddings: (num_rows, dim) to predict the others from.
        gate: of the predictor.
        num_exact: rows to check by an exact step; None is no check.
        step: learning rate of that step; None as of :func:`check_with_oracle`.

    Raises:
        InputError: options that do not go together.
    """

    pool: Examples
    validation: Mapping[str, Examples]
    checkpoints: tuple[Checkpoint, ...]
    settings: InfluenceSettings
    num_measured: int | None = None
    embeddings: NDArray[np.float32] | None = None
    gate: float = 0.5
    num_exact: int | None = None
    step: float | None = None

    def __post_init__(self) -> None:
        bare = [one.name for one in self.checkpoints if one.adapter is None]
        if self.settings.parameters == "lora" and bare:
            raise InputError(
                f"--parameters lora needs a LoRA adapter: name its folder with --checkpoints, got "
                f"the model {bare[0]} without one"
            )
        if self.settings.optimizer_state is not None and len(self.checkpoints) > 1:
            raise InputError(
                "--optimizer-state is of one checkpoint: of several, each gives the optimizer.pt "
                f"in its folder, got {len(self.checkpoints)} checkpoints"
            )
        for file in map(self.settings.state_file, self.checkpoints):
            if file is not None and not file.is_file():
                raise InputError(f"--optimizer-state: no such file as {file}")
        if self.num_measured is not None and self.num_measured >= len(self.pool):
            raise InputError(
                f"--predict-from must be below the {len(self.pool)} rows of the data, got "
                f"{self.num_measured}"
            )

    @property
    def chosen(self) -> Examples:
        """The rows to measure."""
        if self.num_measured is None:
            return self.pool
        draw = np.random.default_rng(self.settings.seed)
        return self.pool.select(
            np.sort(draw.choice(len(self.pool), self.num_measured, replace=False))
        )

    def model(self, checkpoint: Checkpoint, dtype: str | None = None) -> InfluenceModel:
        """A checkpoint, to measure with."""
        return InfluenceModel(checkpoint, self.settings, self.validation, self.pool, dtype)

    def key(self) -> str:
        """Names the folder of shards: a hash of everything that changes a number in them."""
        from codeact.models import resolve_device, resolve_dtype

        device = resolve_device(self.settings.device)
        states = [self.settings.state_file(checkpoint) for checkpoint in self.checkpoints]
        options = (
            codeact.__version__,
            [checkpoint.fingerprint() for checkpoint in self.checkpoints],
            self.pool.content_hash(),
            self.num_measured,
            [(task, examples.content_hash()) for task, examples in self.validation.items()],
            self.settings,
            [file_stamp(state) for state in states],
            str(device),
            str(resolve_dtype(self.settings.dtype, device)),
        )
        return hashlib.sha256(repr(options).encode()).hexdigest()[:16]

    def run(self, folder: Path, on_progress: Begin) -> InfluenceResult:
        """Measure, check and predict; what is finished is kept in ``folder``.

        Raises:
            InputError: a model, state, derivative or matrix that cannot be used.
        """
        with clock_in(folder) as clock:
            measured = measure(self, self.chosen, folder, on_progress)
        table, oracle = measured.history.combined(), None
        predictors: Mapping[str, InfluencePredictor] = {}
        last = self.checkpoints[-1]
        if self.num_exact is not None:
            oracle = check_with_oracle(
                self.model(last, "float32"), measured.tables[last.label],
                self.num_exact, self.step, folder, on_progress("Exact steps"),
            )  # fmt: skip
        if self.num_measured is not None and self.embeddings is not None:
            table, predictors = fill_predicted(
                table, last, self.pool, self.embeddings, self.settings, self.gate
            )
        return InfluenceResult(table, measured, oracle, predictors, clock.seconds)


class InfluenceResult(NamedTuple):
    """What came of a job.

    Attributes:
        table: of all rows of the pool, in order.
        measured: at each checkpoint.
        oracle: the check at the last checkpoint, if asked for.
        predictors: by task, see :func:`fill_predicted`.
        seconds: of measuring, over all runs of an interrupted job.
    """

    table: pa.Table
    measured: Measured
    oracle: OracleCheck | None
    predictors: Mapping[str, InfluencePredictor]
    seconds: float


def measure(job: InfluenceJob, chosen: Examples, folder: Path, on_progress: Begin) -> Measured:
    """Influence of rows at every checkpoint, one after the other; a killed run goes on.

    Shards are cut by row number and packed on their own, so that the table is the same however
    often the run was interrupted; the directions are found anew. A checkpoint whose shards are all
    there is not even loaded.

    Args:
        job: what is asked.
        chosen: the rows to measure.
        folder: where shards are kept; it must belong to this job alone, see
            :meth:`InfluenceJob.key`.
        on_progress: called with words for what begins; gives what takes its progress.

    Raises:
        InputError: a model or a state that does not fit, a task without a problem to score, a
            derivative that is wrong.
    """
    tables, notes = {}, {}
    for number, checkpoint in enumerate(job.checkpoints):
        model = job.model(checkpoint)
        place = folder / f"{number:03d}"
        tables[checkpoint.label] = _in_shards(model, chosen, place, on_progress)
        notes[checkpoint.label] = Notes(**read_json(place / _NOTES))
    weights = rates_as_weights(job.checkpoints) if len(tables) > 1 else None
    return Measured(tables, notes, weights)


def _in_shards(model: InfluenceModel, rows: Examples, folder: Path, on_progress: Begin) -> pa.Table:
    from codeact.models import resolve_device

    on_gpu = resolve_device(model.settings.device).type != "cpu"
    size = _CUDA_ROWS if on_gpu else _CPU_ROWS
    words = model.checkpoint.label or "Influence"
    starts = range(0, len(rows), size)
    shards = [folder / f"{number:06d}.parquet" for number in range(len(starts))]
    folder.mkdir(parents=True, exist_ok=True)
    if not all(path.exists() for path in (*shards, folder / _NOTES)):
        probe = model.probe(on_progress(f"{words}: directions"))
        write_json(folder / _NOTES, _notes(model, probe))
        report = on_progress(words)
        for start, shard in zip(starts, shards, strict=True):
            stop = min(start + size, len(rows))
            if not shard.exists():
                part = rows.select(range(start, stop))
                write_parquet(shard, model.table(probe, part, _inside(report, start, len(rows))))
            report(stop, len(rows))
    return pa.concat_tables([pq.read_table(shard) for shard in shards])


def _inside(report: OnProgress, start: int, num_rows: int) -> OnProgress:
    """Progress of a shard as that of the rows; its passes may count rows more than once."""

    def progress(done: int, total: int) -> None:
        size = min(num_rows - start, total)
        if done < total:
            report(start + done * size // total, num_rows)

    return progress


def _notes(model: InfluenceModel, probe: InfluenceProbe) -> dict[str, Any]:
    file = model.settings.state_file(model.checkpoint)
    words = "none (sgd)"
    if model.settings.optimizer == "adamw":
        words = f"moments of {file}" if file is not None else "moments of a warm-up on the pool"
    return {
        "derivative": probe.derivative,
        "losses": {task: float(loss) for task, loss in probe.losses.items()},
        "errors": {task: float(canary.error) for task, canary in probe.canaries.items()},
        "preconditioner": words,
        "problems": {task.name: problem_words(task) for task in model.tasks},
    }


def report_facts(job: InfluenceJob, result: InfluenceResult, command: str = "") -> InfluenceFacts:
    """What the page about a job shows."""
    from codeact.pipeline.influence.facts import InfluenceFacts

    measured = result.measured
    return InfluenceFacts(
        table=result.table,
        examples=job.pool,
        history=measured.history if job.num_measured is None else None,
        settings=_settings_words(job, result),
        canary="; ".join(canary_words(label, note) for label, note in measured.notes.items()),
        oracle=None if result.oracle is None else result.oracle.pairs,
        predictor=result.predictors or None,
        seconds=result.seconds,
        command=command,
    )


def _settings_words(job: InfluenceJob, result: InfluenceResult) -> dict[str, str]:
    from codeact.models import resolve_device, resolve_dtype

    settings, notes = job.settings, result.measured.notes
    first = next(iter(notes.values()))
    words = {"model": ", ".join(_model_words(checkpoint) for checkpoint in job.checkpoints)}
    if result.measured.weights is not None:
        rates = (
            f"{label} {rate:g}" for label, rate in zip(notes, result.measured.weights, strict=True)
        )
        words["learning rates"] = ", ".join(rates)
    elif len(notes) > 1:
        words["learning rates"] = "not known of every checkpoint, so that all weigh alike"
    for task, examples in job.validation.items():
        losses = ", ".join(f"{note.losses[task]:.4f}" for note in notes.values())
        words[f"validation task {task}"] = (
            f"{first.problems[task]}, of {examples.source}; loss {losses} nats a token"
        )
    words["text around a problem"] = settings.style
    words["template"] = settings.preset
    words["optimizer"] = settings.optimizer
    words["preconditioner"] = first.preconditioner
    words["parameters"] = settings.parameters
    words["derivative"] = first.derivative
    if result.oracle is not None:
        where = f", at {result.oracle.where}" if len(notes) > 1 else ""
        words["exact steps"] = f"learning rate {result.oracle.step:g}, float32{where}"
    device = resolve_device(settings.device)
    dtype = str(resolve_dtype(settings.dtype, device)).removeprefix("torch.")
    words["device and dtype"] = f"{device}, {dtype}"
    return words


def _model_words(checkpoint: Checkpoint) -> str:
    over = f" over {checkpoint.model}" if checkpoint.adapter is not None else ""
    return f"{checkpoint.name}{over}"
