"""Influence while training: in-run data Shapley, and GREATS, as a callback of transformers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from codeact.errors import InputError
from codeact.models import ScoredSequence, parameter_names
from codeact.training.in_run.batches import (
    Batch,
    InRunStep,
    InRunSums,
    TrainSequence,
    keep_sequences,
    sequence_hash,
    sequences_of,
)
from codeact.training.in_run.optimizer import learning_rate
from codeact.training.in_run.passes import (
    ValidationDirection,
    check_trainer,
    drawn_for_step,
    kept_share,
    measuring,
    step_products,
    validation_direction,
)

if TYPE_CHECKING:
    from transformers import Trainer

logger = logging.getLogger(__name__)

Optimizer = Literal["sgd", "adamw"]

IN_RUN_TABLE = "in_run_influence.parquet"


class InRunInfluence(TrainerCallback):
    """Measures, at each step, what each sequence of it does to a validation loss.

    With the mean loss ``l_i`` of the scored tokens of sequence i, the mean over problems ``L(V)``
    of the mean losses of their solutions, the rate ``eta_t`` of step t, all at the weights before
    that step, a row's ``influence`` is ``sum_t eta_t * <grad l_i, P grad L(V)>`` over the measured
    steps that drew it: in-run data Shapley of first order (arXiv:2406.11011), positive where the
    row helps. Its ``contribution`` is the same sum with the row's true share ``w_i * sum nll / W``
    of the step's loss in place of ``l_i``, over the steps that trained on it: for plain SGD the
    contributions of all rows add up to the fall of ``L(V)``, to first order. Momentum, weight
    decay and gradient clipping are left out.

    With ``keep`` below 1 only that share of a step's sequences is trained on, chosen as GREATS
    chooses them (NeurIPS 2024, see :func:`greats_choice`); the tokens of the others leave the
    batch, so that they cost the measurement but no training. We differ from both papers in taking
    the gradient of ``L(V)`` by a backward pass of its own, and in measuring without dropout: under
    bfloat16 autocast where training is, in the dtype of the weights otherwise.

    ``InRunInfluence(validation).attach(trainer)`` before ``trainer.train()``. Every checkpoint
    folder, and at the end ``output_dir``, gets ``in_run_influence.parquet``; a resumed run goes on
    with the sums of its checkpoint.

    Attributes:
        steps: the measured steps since this process began.

    Args:
        validation: prompt and solution, scored on the solution.
        keep: share of a step's sequences to train on, in (0, 1], rounded, at least one; None and 1
            change no batch.
        interactions: whether, and how strongly, the choice avoids sequences whose gradients point
            the same way: True weighs pairs by the learning rate, as the paper has it, a number by
            that number, False not at all.
        every: measure (and choose) at every so many steps. Others train on everything.
        refresh: keep a validation gradient for so many steps.
        validation_batch: sequences drawn for a gradient, without replacement; None is all.
        parameters: see :func:`codeact.models.parameter_names`; of these, the trainable ones.
        optimizer: ``"sgd"`` is P = 1, as both papers have it under AdamW too; ``"adamw"`` is the
            optimizer's own preconditioner (:func:`adam_direction`), whose first step goes
            unmeasured. It knows no interactions.
        token_budget: tokens a pack of measurements holds. Pairs of sequences that share no pack
            count as unrelated.
        ids: names of rows by :func:`sequence_hash`, see :func:`sequence_ids`.
        seed: of the draws from the validation set.

    Raises:
        InputError: an option out of its range, or nothing to validate on.
    """

    def __init__(
        self,
        validation: Sequence[ScoredSequence],
        *,
        keep: float | None = None,
        interactions: bool | float = True,
        every: int = 1,
        refresh: int = 1,
        validation_batch: int | None = None,
        parameters: str = "all",
        optimizer: Optimizer = "sgd",
        token_budget: int | None = None,
        ids: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        self.validation = [s for s in validation if s.num_scored]
        if not self.validation:
            raise InputError(
                f"validation needs a sequence with a scored token, got {len(validation)} without"
            )
        if keep is not None and not 0 < keep <= 1:
            raise InputError(f"keep must be in (0, 1], got {keep}")
        if optimizer not in get_args(Optimizer):
            raise InputError(f"optimizer must be sgd or adamw, got {optimizer!r}")
        counts = {"every": every, "refresh": refresh, "validation_batch": validation_batch}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise InputError(f"{name} must be at least 1, got {count}")
        if not interactions >= 0:
            raise InputError(f"interactions must be at least 0, got {interactions}")
        self.with_gram = keep is not None and keep < 1 and bool(interactions)
        if self.with_gram and optimizer == "adamw":
            raise InputError("optimizer = adamw has no interactions: set interactions = False")
        self.keep, self.interactions, self.every, self.refresh = keep, interactions, every, refresh
        self.validation_batch, self.parameters = validation_batch, parameters
        self.optimizer: Optimizer = optimizer
        self.token_budget, self.ids, self.seed = token_budget, ids or {}, seed
        self.steps: list[InRunStep] = []
        self._trainer: Any = None
        self._resumed_from: str | None = None
        self._sums = InRunSums()
        self._kept_direction: ValidationDirection | None = None

    def attach(self, trainer: Trainer) -> InRunInfluence:
        """Join a trainer, before it trains.

        Raises:
            InputError: this or another one has joined already, nothing of ``parameters`` trains,
                or the trainer weighs micro-batches and not tokens.
            RuntimeError: several processes or GPUs: a step is measured in one process.
        """
        check_trainer(trainer)
        if self._trainer is not None or getattr(trainer, "_codeact_in_run", None) is not None:
            raise InputError("a trainer takes one InRunInfluence, and that one trainer")
        self._trainer = trainer
        if not self._names():
            self._trainer = None
            raise InputError(f"parameters = {self.parameters} has none that trains")
        trainer._codeact_in_run = self  # type: ignore[attr-defined]
        _wrap(self, trainer)
        trainer.add_callback(self)
        return self

    @property
    def table(self) -> pa.Table:
        """One row a measured sequence, in the order of their first steps.

        Columns: ``id`` (its name in ``ids``, else its hash), ``sequence_hash``,
        ``num_response_tokens``, ``num_measured`` and ``num_trained`` (steps that measured it, and
        of those the ones that trained on it), ``influence`` and ``contribution``.
        """
        return self._sums.table(self.ids)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start at zero, or with what the checkpoint holds."""
        self._sums, self.steps, self._kept_direction = InRunSums(), [], None
        if state.global_step == 0 or not self._resumed_from:
            return
        path = Path(self._resumed_from) / IN_RUN_TABLE
        if not path.is_file():
            logger.warning("%s has no %s: influence is summed from here", path.parent, path.name)
            return
        self._sums = InRunSums.read(path)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the sums so far into the checkpoint's folder."""
        self._write(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the sums into the output folder."""
        self._kept_direction = None
        self._write(Path(args.output_dir))

    def _write(self, folder: Path) -> None:
        if folder.is_dir():  # a search for hyper-parameters saves elsewhere
            pq.write_table(self.table, folder / IN_RUN_TABLE)

    @property
    def _model(self) -> Any:
        """Without PEFT's wrapper; asked for anew, since ``model_init`` makes another one."""
        model: Any = self._trainer.model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def _names(self) -> list[str]:
        trainable = {name for name, p in self._model.named_parameters() if p.requires_grad}
        return [n for n in parameter_names(self._model, self.parameters) if n in trainable]

    def selected(self, batches: list[Batch]) -> list[Batch]:
        """The micro-batches of the next step, measured, without what it is not to train on."""
        step = self._trainer.state.global_step
        if not batches or step % self.every:
            return batches
        found = [sequences_of(batch) for batch in batches]
        scored = [[x.num_scored > 0 for x in sequences] for sequences in found]
        sequences = [x for every in found for x in every if x.num_scored]
        if not sequences:
            return batches
        kept = self._measure(step, sequences)
        if kept.all():
            return batches
        remaining = iter(kept.tolist())
        masks = [np.array([is_scored and next(remaining) for is_scored in x]) for x in scored]
        return [keep_sequences(b, mask) for b, mask in zip(batches, masks, strict=True)]

    def _measure(self, step: int, sequences: list[TrainSequence]) -> NDArray[np.bool_]:
        """Add the step to the sums; (num_seqs,) which sequences it is to train on."""
        rate = learning_rate(self._trainer.optimizer)
        in_bfloat16 = self._trainer.accelerator.mixed_precision == "bf16"
        with measuring(self._model, bfloat16=in_bfloat16):
            validation = self._direction(step)
            if validation is None:
                return np.ones(len(sequences), dtype=bool)
            products = step_products(
                self._model,
                [s.tokens for s in sequences],
                validation.direction,
                with_gram=self.with_gram,
                token_budget=self.token_budget,
            )
        scores = products.scores
        keys = [sequence_hash(*s.tokens[:2]) for s in sequences]
        if not np.isfinite(scores).all():
            worst = keys[int((~np.isfinite(scores)).argmax())]
            name = self.ids.get(worst, worst)
            raise RuntimeError(f"the influence of {name} is not finite at step {step}")
        kept = kept_share(products, self.keep or 1.0, self._weight_of_pairs(rate))
        weights = np.array([s.num_scored * s.weight for s in sequences]) * kept
        shares = weights / max(float(weights.sum()), np.finfo(float).tiny)
        for key, s, score, share in zip(keys, sequences, scores, shares, strict=True):
            self._sums.add(key, s.num_scored, rate * float(score), float(share))
        num_harmful = int((scores < 0).sum())
        self.steps.append(
            InRunStep(step, rate, validation.loss, len(scores), int(kept.sum()), num_harmful)
        )
        return kept

    def _weight_of_pairs(self, rate: float) -> float:
        return rate if self.interactions is True else float(self.interactions)

    def _direction(self, step: int) -> ValidationDirection | None:
        """That of this step, or of one less than ``refresh`` steps ago."""
        cached = self._kept_direction
        if cached is not None and step - cached.step < self.refresh:
            return cached
        self._kept_direction = cached = None  # two of them are not needed at once
        found = validation_direction(
            self._model,
            drawn_for_step(self.validation, self.validation_batch, seed=self.seed, step=step),
            self._names(),
            step=step,
            adam=self._trainer.optimizer if self.optimizer == "adamw" else None,
            token_budget=self.token_budget,
        )
        if self.refresh > 1:
            self._kept_direction = found
        return found


def _wrap(influence: InRunInfluence, trainer: Any) -> None:
    """Put the measurement before the trainer's count of a step's tokens, and note its checkpoint.

    Methods of the instance: the order of the trainer's classes does not matter then.
    """
    draw, train = trainer.get_batch_samples, trainer.train

    def get_batch_samples(epoch_iterator: Iterator[Any], num: int, *a: Any, **kw: Any) -> Any:
        batches = influence.selected(list(islice(epoch_iterator, num)))
        return draw(iter(batches), num, *a, **kw)

    def train_from(resume_from_checkpoint: Any = None, *a: Any, **kw: Any) -> Any:
        folder = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(trainer.args.output_dir)
        influence._resumed_from = folder or None
        return train(resume_from_checkpoint, *a, **kw)

    trainer.get_batch_samples, trainer.train = get_batch_samples, train_from
