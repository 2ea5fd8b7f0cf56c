"""Hugging Face ``Trainer`` for preference pairs in packed bins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from codeact.errors import InputError
from codeact.packing import BinPlan
from codeact.training.dpo.loss import PairLosses, pair_losses, total_pairs
from codeact.training.dpo.pairs import PackedPairs, PairCollator
from codeact.training.loss import num_ranks
from codeact.training.trainer import CodeActTrainer

# Names as TRL logs them, in the order of the sums behind them.
_LOGGED = (
    "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies",
    "logps/chosen", "logps/rejected",
)  # fmt: skip


class CodeActDPOTrainer(CodeActTrainer):
    """Direct preference optimization (arXiv:2305.18290) on the bins of a plan of pairs.

    One bin of pairs is one micro-batch. The loss of an optimizer step is the mean over all its
    pairs of ``-log sigmoid(beta * margin)``, whatever bins, accumulation steps and processes they
    are spread over (see :func:`codeact.training.dpo.loss.dpo_losses`). The reference model takes no
    memory: its log-probabilities come with the dataset. Logged are, as means over the pairs since
    the last line, ``rewards/chosen`` and ``rewards/rejected``, ``rewards/margins``,
    ``rewards/accuracies`` (how often the chosen answer has the larger reward), ``logps/chosen`` and
    ``logps/rejected``, as TRL names them.

    Everything else is as of :class:`codeact.training.PackedTrainerMixin`: several processes,
    resuming, isolation. Dropout stays as the model has it, where TRL switches it off. ``evaluate``
    takes ``PackedPairs(pairs, reference=...)`` and gives the mean over batches of their mean
    losses.

    Args:
        model: of which ``train_dataset`` holds the reference: a causal language model, or PEFT's.
        args: of the Trainer.
        train_dataset: ``PackedPairs(pairs, plan, reference=...)``.
        plan: the same plan.
        beta: how strongly the loss looks at log-ratios, above 0.
        length_normalised: divide log-ratios by the number of the answer's tokens.

    Raises:
        InputError: ``beta`` is not above 0, a dataset of another kind, and as of
            :class:`codeact.training.PackedTrainerMixin`.
    """

    def __init__(
        self,
        model: Any,
        args: Any,
        *,
        train_dataset: PackedPairs,
        plan: BinPlan,
        beta: float = 0.1,
        length_normalised: bool = False,
        **kwargs: Any,
    ) -> None:
        if not beta > 0:
            raise InputError(f"beta must be a number above 0, got {beta}")
        for name, given in {"train_dataset": train_dataset, **kwargs}.items():
            if name.endswith("_dataset") and not isinstance(given, PackedPairs | None):
                raise InputError(f"{name} must be PackedPairs, got {type(given).__name__}")
        self.beta, self.length_normalised = beta, length_normalised
        # In training and in evaluation: the number of pairs, and sums over them of what is logged.
        self._sums: dict[bool, Tensor] = {}
        super().__init__(model=model, args=args, train_dataset=train_dataset, plan=plan, **kwargs)
        self.data_collator = PairCollator()

    def _get_num_items_in_batch(
        self, batch_samples: list[Mapping[str, Any]], device: torch.device
    ) -> Tensor | None:
        """Pairs of an optimizer step, over all processes."""
        return total_pairs(batch_samples, device=device) if batch_samples else None

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """This micro-batch's share; ``num_items_in_batch`` None counts the pairs of all ranks."""
        if num_items_in_batch is None:
            num_items_in_batch = total_pairs([inputs], device=inputs["input_ids"].device)
        found = pair_losses(model, inputs, beta=self.beta, length_normalised=self.length_normalised)
        self._note(found, training=model.training)
        share: Tensor = (found.losses.sum() / num_items_in_batch).float()
        # DistributedDataParallel and FSDP average gradients, where the formula wants their sum.
        loss = share * num_ranks()
        if not model.training:
            loss = self.accelerator.reduce(loss.detach(), reduction="mean")
        return (loss, {}) if return_outputs else loss

    def prediction_step(self, model: nn.Module, inputs: Any, *_: Any, **__: Any) -> Any:
        """The loss alone: there are no predictions to gather."""
        with torch.no_grad():
            return self.compute_loss(model, self._prepare_inputs(inputs)), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer's, with the rewards since the last line that had a loss."""
        for training, name in ((True, "loss"), (False, "eval_loss")):
            if name in logs and training in self._sums:
                logs.update(self._take_means(training))  # evaluate() returns this very dict
        super().log(logs, start_time)

    def _note(self, found: PairLosses, *, training: bool) -> None:
        rewards, log_probs = found.rewards, found.log_probs
        margins = rewards[:, 0] - rewards[:, 1]
        columns = [*rewards.T, margins, (margins > 0).double(), *log_probs.T]
        sums = torch.stack([torch.ones_like(margins).sum(), *(x.sum() for x in columns)])
        before = self._sums.get(training)
        self._sums[training] = sums if before is None else before + sums

    def _take_means(self, training: bool) -> dict[str, float]:
        """Over the pairs of all ranks, every one of which must ask."""
        num_pairs, *sums = self.accelerator.reduce(self._sums.pop(training)).tolist()
        prefix = "" if training else "eval_"
        return {
            f"{prefix}{name}": value / max(num_pairs, 1.0)
            for name, value in zip(_LOGGED, sums, strict=True)
        }
