"""Hugging Face ``Trainer`` on packed batches, with a loss that is exact per token."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import get_last_checkpoint

from codeact.errors import InputError
from codeact.models import assert_isolated
from codeact.packing import BinPlan, LossNorm, PackedCollator, PackedDataset
from codeact.training.checkpoint import PackedRun, SavePackedRun, check_same_run
from codeact.training.loader import PackedLoader, check_dataset, check_world_size
from codeact.training.loss import packed_loss_and_outputs, scored_rows, total_weight

logger = logging.getLogger(__name__)


class PackedTrainerMixin:
    """Makes a ``Trainer`` train on the bins of a plan; put it before the ``Trainer`` class.

    Set ``train_dataset`` to ``PackedDataset(store, plan)`` and pass ``plan``. One bin is one
    micro-batch, so ``per_device_train_batch_size`` changes nothing. The loss of an optimizer step
    is ``sum(weight * nll) / sum(weight)`` over all its scored tokens, whatever bins, accumulation
    steps and processes they are spread over, so packing changes nothing in the objective. The
    output projection is applied to scored positions only, and its logits are never formed.

    Several processes train with a plan made for as many (``plan_bins(..., world_size=n)``): each
    reads its own bins, every example once an epoch. A run resumes at the bin after the checkpoint,
    and only with the plan, processes and accumulation that wrote it.

    ``evaluate`` flattens each batch of ``eval_dataset``, a :class:`PackedDataset` without plan; its
    loss is the mean over batches (those of all processes at a time are one) of the formula above,
    and its outputs hold no logits.

    Attributes:
        num_tokens_seen: tokens that this process has trained on since it started.
        num_loss_tokens_seen: those among them that carried a loss.

    Raises:
        InputError: the plan is for another number of processes, the dataset is for another plan,
            or an option asks for another loss.
        RuntimeError: the model does not keep packed sequences apart, or ``DataParallel``, tensor,
            context or sequence parallelism is switched on.
    """

    # The sum is divided by the weight of the whole optimizer step already.
    loss_is_scaled_for_ga: bool | None = True

    def __init__(
        self, *args: Any, plan: BinPlan, loss_norm: LossNorm = "token", **kwargs: Any
    ) -> None:
        self.plan = plan
        self.num_tokens_seen = 0
        self.num_loss_tokens_seen = 0
        trainer: Any = self
        trainer_class: Any = super()
        trainer_class.__init__(*args, data_collator=PackedCollator(loss_norm=loss_norm), **kwargs)
        _refuse_parallelism(trainer)
        _refuse_options(trainer)
        trainer.model_accepts_loss_kwargs = True  # so that num_items_in_batch is counted
        # A PackedDataset has no column too many, and the check would drop the weights.
        trainer.args.remove_unused_columns = False
        trainer.add_callback(SavePackedRun(**asdict(self._run())))
        with trainer.accelerator.autocast():
            assert_isolated(trainer.model)
        if trainer.is_world_process_zero():
            _log_warnings(trainer)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches are this process's bins of the plan, in the order of the epoch."""
        trainer: Any = self
        args = trainer.args
        workers: dict[str, Any] = {"num_workers": args.dataloader_num_workers}
        if args.dataloader_num_workers:
            workers["persistent_workers"] = args.dataloader_persistent_workers
            workers["prefetch_factor"] = args.dataloader_prefetch_factor
        return PackedLoader(
            trainer.train_dataset,
            self.plan,
            rank=args.process_index,
            collate_fn=trainer.data_collator,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
            **workers,
        )

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """As the Trainer's; refuses a checkpoint of a run that consumed its data otherwise."""
        trainer: Any = self
        folder = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(trainer.args.output_dir)
        if folder:
            check_same_run(Path(str(folder)), self._run())
        trainer_class: Any = super()
        return trainer_class.train(resume_from_checkpoint, *args, **kwargs)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *args: Any, **kwargs: Any) -> Any:
        """The micro-batches of the next optimizer step, counted while they are on the CPU."""
        trainer: Any = self
        if trainer.state.global_step >= trainer.state.max_steps:
            # Resumed from the last checkpoint of a run that max_steps ended within an epoch: the
            # Trainer would take one more step before it looks.
            trainer.control.should_training_stop = True
            return [], None
        trainer_class: Any = super()
        batches, num_items = trainer_class.get_batch_samples(epoch_iterator, *args, **kwargs)
        for batch in batches:
            self.num_tokens_seen += batch["labels"].numel()
            self.num_loss_tokens_seen += len(scored_rows(batch["labels"]))
        return batches, num_items

    def _get_num_items_in_batch(
        self, batch_samples: list[Mapping[str, Any]], device: torch.device
    ) -> Tensor | None:
        """What the loss of an optimizer step is divided by, over all processes."""
        return total_weight(batch_samples, device=device) if batch_samples else None

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """This micro-batch's share; ``num_items_in_batch`` None counts those of all ranks now."""
        if num_items_in_batch is None:
            num_items_in_batch = total_weight([inputs], device=inputs["input_ids"].device)
        loss, outputs = packed_loss_and_outputs(model, inputs, num_items_in_batch)
        if not model.training:
            # Where the set does not divide evenly, evaluate() counts some ranks less than others,
            # and their shares differ: each reports the mean.
            trainer: Any = self
            loss = trainer.accelerator.reduce(loss.detach(), reduction="mean")
        return (loss, outputs) if return_outputs else loss

    def _run(self) -> PackedRun:
        trainer: Any = self
        return PackedRun(
            fingerprint=self.plan.fingerprint,
            world_size=self.plan.world_size,
            accumulation=trainer.args.gradient_accumulation_steps,
        )


class CodeActTrainer(PackedTrainerMixin, Trainer):
    """``transformers.Trainer`` on packed batches; see :class:`PackedTrainerMixin`."""


def _refuse_parallelism(trainer: Any) -> None:
    args = trainer.args
    if args.n_gpu > 1:
        raise RuntimeError(
            f"packed training does not run under DataParallel, got {args.n_gpu} GPUs in one "
            "process: start one process a GPU (torchrun), or set CUDA_VISIBLE_DEVICES to one"
        )
    parallelism = getattr(trainer.accelerator, "parallelism_config", None)
    for kind in ("tp", "cp", "sp"):
        size = getattr(parallelism, f"{kind}_size", 1)
        if size > 1:
            raise RuntimeError(f"packed training is data parallel only, got {kind}_size = {size}")
    check_world_size(trainer.plan, args.world_size)


def _refuse_options(trainer: Any) -> None:
    if trainer.train_dataset is not None:
        check_dataset(trainer.train_dataset, trainer.plan)
    if trainer.args.label_smoothing_factor:
        raise InputError(
            "packed training has no label smoothing, got label_smoothing_factor = "
            f"{trainer.args.label_smoothing_factor}"
        )
    if trainer.args.auto_find_batch_size:
        raise InputError("auto_find_batch_size changes no bin: lower the plan's capacity instead")
    if trainer.args.ignore_data_skip:
        raise InputError("ignore_data_skip would repeat examples, and to skip bins takes no time")
    if trainer.compute_loss_func is not None:
        raise InputError("packed training computes its own loss: leave out compute_loss_func")


def _log_warnings(trainer: Any) -> None:
    """Numbers a user should see before the first step."""
    args, plan, dataset = trainer.args, trainer.plan, trainer.train_dataset
    accumulation = args.gradient_accumulation_steps
    epochs = args.num_train_epochs
    if args.max_steps > 0:
        epochs = args.max_steps / plan.num_updates(accumulation)
    if warning := plan.update_warning(
        batch_size=args.per_device_train_batch_size, accumulation=accumulation, epochs=epochs
    ):
        logger.warning(warning)
    if dataset is not None and dataset.num_unscored:
        logger.warning(
            "%d of %d examples carry no loss: they cost time and teach nothing",
            dataset.num_unscored,
            plan.num_packed,
        )
    if getattr(trainer.model.config.get_text_config(), "output_router_logits", False):
        logger.warning("packed training leaves out the router's auxiliary loss")


__all__ = ["CodeActTrainer", "PackedDataset", "PackedTrainerMixin"]
