"""A checkpoint as influence is measured at it: model, optimizer state, validation problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from codeact.data import Examples
from codeact.errors import InputError
from codeact.pipeline.influence.checkpoints import Checkpoint
from codeact.progress import OnProgress

if TYPE_CHECKING:
    from codeact.models import ScoredSequence
    from codeact.scoring import Scorer
    from codeact.scoring.influence.adam import AdamState
    from codeact.scoring.influence.history import InfluenceHistory
    from codeact.scoring.influence.probe import Derivative, InfluenceProbe
    from codeact.scoring.influence.validation import Style, ValidationTask
    from codeact.scoring.spans import IfdSpans

# More than the mini-batches of a warm-up hold, which draw among them.
_WARM_UP_ROWS = 1024


@dataclass(frozen=True)
class InfluenceSettings:
    """What changes a number of the table, beside the rows and the weights.

    Attributes:
        optimizer: ``sgd`` or ``adamw``.
        optimizer_state: folder or file of AdamW's moments; None is the ``optimizer.pt`` of each
            checkpoint, or where it has none a warm-up on rows of the pool.
        parameters: see :func:`codeact.models.parameter_names`.
        derivative: see :class:`codeact.scoring.influence.probe.InfluenceProbe`.
        token_influence: add the column of that name.
        preset: template around a problem and a row.
        style: of the validation problems.
        max_length: longest sequence in tokens.
        token_budget: tokens of one pass.
        device: ``auto``, ``cpu`` or ``cuda``.
        dtype: of the weights.
        seed: of the warm-up.
    """

    optimizer: str = "sgd"
    optimizer_state: Path | None = None
    parameters: str = "all"
    derivative: Derivative = "auto"
    token_influence: bool = False
    preset: str = "codeact"
    style: Style = "instruction"
    max_length: int | None = None
    token_budget: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    seed: int = 0

    def state_file(self, checkpoint: Checkpoint) -> Path | None:
        """Where the moments of AdamW come from; None for SGD and for a warm-up."""
        if self.optimizer != "adamw":
            return None
        named = self.optimizer_state
        if named is not None and named.is_dir():
            return named / "optimizer.pt"
        return named or checkpoint.optimizer_file


@dataclass(frozen=True)
class Notes:
    """What was found before a row was scored, kept with the shards.

    Attributes:
        derivative: the one in use, none of them ``auto``.
        losses: ``L(V)`` of each task, in nats.
        errors: of the check against finite differences, relative, by task.
        preconditioner: in words.
        problems: of each task, in words, see :func:`problem_words`.
    """

    derivative: str
    losses: Mapping[str, float]
    errors: Mapping[str, float]
    preconditioner: str
    problems: Mapping[str, str]


def problem_words(task: ValidationTask) -> str:
    """How many problems a task is measured on, and what became of those that are too long."""
    words = f"{len(task.sequences)} problems"
    if task.num_truncated:
        words += f" ({task.num_truncated} with a cut solution)"
    if task.num_skipped:
        words += f", without {task.num_skipped} that do not fit"
    return words


def canary_words(label: str, note: Notes) -> str:
    """How far the derivatives are from finite differences, in a line."""
    errors = ", ".join(f"{task} {error:.2%}" for task, error in note.errors.items())
    where = f"{label}: " if label else ""
    return f"{where}derivatives ({note.derivative}) are within {errors} of finite differences"


@dataclass(frozen=True)
class Measured:
    """Influence tables by label of the checkpoint, and what was noted at each."""

    tables: Mapping[str, pa.Table]
    notes: Mapping[str, Notes]
    weights: Sequence[float] | None = None

    @property
    def history(self) -> InfluenceHistory:
        """Of these checkpoints, weighed by their learning rates where all are known."""
        from codeact.scoring.influence.history import InfluenceHistory

        return InfluenceHistory.of_tables(self.tables, self.weights)


@dataclass
class InfluenceModel:
    """A checkpoint as it is scored with; loaded when a shard is first missing."""

    checkpoint: Checkpoint
    settings: InfluenceSettings
    validation: Mapping[str, Examples]
    pool: Examples
    dtype: str | None = None  # another than the settings'
    _scorer: Scorer | None = field(default=None, init=False)
    _state: AdamState | None = field(default=None, init=False)

    @property
    def scorer(self) -> Scorer:
        """The model with its preset."""
        if self._scorer is None:
            from codeact.scoring import Scorer

            settings = self.settings
            self._scorer = Scorer(
                self.checkpoint.load(settings.device, self.dtype or settings.dtype),
                preset=settings.preset,
                max_length=settings.max_length,
                token_budget=settings.token_budget,
            )
        return self._scorer

    @property
    def tasks(self) -> tuple[ValidationTask, ...]:
        """The validation problems as this model's tokens."""
        from codeact.scoring.influence.validation import validation_tasks

        scorer = self.scorer
        return validation_tasks(
            self.validation, scorer.tokenizer, scorer.preset, scorer.max_length, self.settings.style
        )

    @property
    def state(self) -> AdamState | None:
        """Moments of AdamW; None for SGD."""
        if self.settings.optimizer == "adamw" and self._state is None:
            self._state = self._adam()
        return self._state

    def _adam(self) -> AdamState:
        from codeact.models import parameter_names
        from codeact.scoring.influence.adam import AdamState, warm_up

        model = self.scorer.model
        names = parameter_names(model, self.settings.parameters)
        file = self.settings.state_file(self.checkpoint)
        if file is not None:
            return AdamState.load(file, model, names)
        draw = np.random.default_rng(self.settings.seed)
        num_rows = min(_WARM_UP_ROWS, len(self.pool))
        some = self.pool.select(np.sort(draw.choice(len(self.pool), num_rows, replace=False)))
        rows = [row for row in self.sequences(some) if row is not None]
        if not rows:
            raise InputError("the warm-up of AdamW needs a row that can be scored, got none")
        return warm_up(model, rows, names, seed=self.settings.seed)

    def probe(self, on_progress: OnProgress | None = None) -> InfluenceProbe:
        """The directions of the validation tasks, checked."""
        return self.scorer.influence_probe(
            self.validation,
            style=self.settings.style,
            optimizer=self.state,
            parameters=self.settings.parameters,
            derivative=self.settings.derivative,
            on_progress=on_progress,
        )

    def sequences(self, rows: Examples) -> list[ScoredSequence | None]:
        """Rows as tokens, None where there is nothing to score."""
        from codeact.scoring.perplexity import conditional_or_none
        from codeact.scoring.spans import ifd_spans

        scorer = self.scorer
        spans = ifd_spans(rows, scorer.tokenizer, scorer.preset, scorer.max_length, scorer.turns)
        return [conditional_or_none(span) for span in spans]

    def table(self, probe: InfluenceProbe, rows: Examples, on_progress: OnProgress) -> pa.Table:
        """The influence table of some rows."""
        from codeact.scoring.influence.table import TOKEN_INFLUENCE_FIELD

        with_tokens = self.settings.token_influence
        table = self.scorer.influence_along(
            probe, rows, token_influence=with_tokens, on_progress=on_progress
        )
        if with_tokens and TOKEN_INFLUENCE_FIELD.name not in table.column_names:
            # Shards are put together: one without a scored row has the column too.
            nulls = pa.nulls(len(rows), TOKEN_INFLUENCE_FIELD.type)
            table = table.append_column(TOKEN_INFLUENCE_FIELD, nulls)
        return table


def spans_without_weights(
    checkpoint: Checkpoint, rows: Examples, settings: InfluenceSettings
) -> list[IfdSpans]:
    """Rows as tokens, with the tokenizer and the config alone."""
    from transformers import AutoConfig

    from codeact.models import load_tokenizer
    from codeact.scoring.lengths import resolve_max_length
    from codeact.scoring.presets import ifd_preset
    from codeact.scoring.spans import ifd_spans

    preset = ifd_preset(settings.preset)
    config = AutoConfig.from_pretrained(checkpoint.model)
    max_length = resolve_max_length(config, preset, settings.max_length)
    tokenizer = load_tokenizer(checkpoint.tokenizer or checkpoint.model)
    return ifd_spans(rows, tokenizer, preset, max_length)
