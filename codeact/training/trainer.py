"""Hugging Face ``Trainer`` on packed batches, with a loss that is exact per token."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer

from codeact.models import assert_isolated
from codeact.ops.varlen import IGNORE_INDEX
from codeact.packing import BinPlan, PackedBatchSampler, PackedCollator, PackedDataset


class PackedTrainerMixin:
    """Makes a ``Trainer`` train on the bins of a plan; put it before the ``Trainer`` class.

    Set ``train_dataset`` to a :class:`PackedDataset` and pass ``plan`` as keyword argument. One bin
    is one micro-batch. The loss of an optimizer step is the sum over all its scored tokens divided
    by their number, whatever bins and accumulation steps they are spread over, so packing changes
    nothing in the objective. The output projection is applied to scored positions only.

    Attributes:
        num_tokens_seen: tokens that went through the model so far.
        num_loss_tokens_seen: those among them that carried a loss.

    Raises:
        RuntimeError: the model does not keep packed sequences apart, or several processes train.
    """

    # The sum is divided by the tokens of the whole optimizer step already.
    loss_is_scaled_for_ga: bool | None = True

    def __init__(self, *args: Any, plan: BinPlan, **kwargs: Any) -> None:
        self.plan = plan
        self.num_tokens_seen = 0
        self.num_loss_tokens_seen = 0
        trainer: Any = self
        trainer_class: Any = super()
        trainer_class.__init__(*args, data_collator=PackedCollator(), **kwargs)
        if trainer.args.world_size > 1 or trainer.args.n_gpu > 1:
            raise RuntimeError(
                f"packed training runs in one process on one device, got {trainer.args.world_size} "
                f"processes and {trainer.args.n_gpu} GPUs (set CUDA_VISIBLE_DEVICES to one)"
            )
        trainer.model_accepts_loss_kwargs = True  # so that num_items_in_batch is counted
        with trainer.accelerator.autocast():
            assert_isolated(trainer.model)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches are the bins of the plan, in the order of the epoch."""
        trainer: Any = self
        return DataLoader(
            trainer.train_dataset,
            batch_sampler=PackedBatchSampler(self.plan),
            collate_fn=trainer.data_collator,
            pin_memory=trainer.args.dataloader_pin_memory and torch.cuda.is_available(),
            num_workers=trainer.args.dataloader_num_workers,
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Sum of the scored tokens' losses over ``num_items_in_batch`` (None: their own number)."""
        labels = inputs.pop("labels")[0]
        rows = (labels[1:] != IGNORE_INDEX).nonzero()[:, 0]
        self.num_tokens_seen += len(labels)
        self.num_loss_tokens_seen += len(rows)
        # transformers applies the output projection to exactly these positions.
        outputs = model(**inputs, logits_to_keep=rows)
        total = F.cross_entropy(outputs.logits[0].float(), labels[rows + 1], reduction="sum")
        num_items = len(rows) if num_items_in_batch is None else num_items_in_batch
        # Bins without a scored token add nothing; 0 / 0 would end the run.
        loss = total / torch.as_tensor(num_items, device=total.device).clamp(min=1)
        return (loss, outputs) if return_outputs else loss


class CodeActTrainer(PackedTrainerMixin, Trainer):
    """``transformers.Trainer`` on packed batches; see :class:`PackedTrainerMixin`."""


__all__ = ["CodeActTrainer", "PackedDataset", "PackedTrainerMixin"]
