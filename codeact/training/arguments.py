"""The options of a run as transformers' ``TrainingArguments``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments

from codeact.errors import InputError
from codeact.packing import BinPlan
from codeact.training.config import TrainConfig, num_warmup_steps, resolve_accumulation
from codeact.training.loss import num_ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# An older one stays until a newer one is marked as whole, so two are needed.
_NUM_CHECKPOINTS = 2


def training_arguments(
    config: TrainConfig, plan: BinPlan, folder: Path, model: PreTrainedModel
) -> TrainingArguments:
    """``TrainingArguments`` of a run: one bin a micro-batch, a log line an optimizer step.

    Args:
        config: options.
        plan: what is trained on; it decides the steps of the warm-up and of ``samples_per_step``.
        folder: for checkpoints, if ``config.save_steps`` asks for them.
        model: on its device, in the dtype of its weights.

    Raises:
        InputError: ``config.fsdp`` in a single process.
    """
    on_cpu = model.device.type == "cpu"
    options: dict[str, Any] = {}
    if config.gradient_checkpointing:  # newer transformers warn about the name
        options["gradient_checkpointing"] = True
    if config.save_steps is not None:
        options |= {"save_steps": config.save_steps, "save_total_limit": _NUM_CHECKPOINTS}
    if config.fsdp:
        if num_ranks() == 1:
            raise InputError("fsdp = true shards over several processes, got one: use torchrun")
        options |= {"fsdp": True, "fsdp_config": {"version": 2}}
    arguments = TrainingArguments(
        output_dir=str(folder),
        # A bin is a micro-batch whatever this says; the warning about few steps compares with it.
        per_device_train_batch_size=8,
        gradient_accumulation_steps=resolve_accumulation(config, plan),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler,
        warmup_steps=num_warmup_steps(config, plan),
        optim={"adamw": "adamw_torch_fused", "sgd": "sgd"}[config.optimizer],
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=uses_autocast(config, model),
        use_cpu=on_cpu,
        seed=config.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a NaN must be seen, not skipped
        save_strategy="no" if config.save_steps is None else "steps",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        # Every weight takes part in every pass, also in one without a loss; experts do not.
        ddp_find_unused_parameters=has_experts(model),
        **options,
    )
    if config.fsdp and on_cpu:
        _let_accelerate_shard()
    return arguments


def _let_accelerate_shard() -> None:
    """Have accelerate shard over processes on CPUs as it does over GPUs.

    It asks only which kind of process it runs in, and on CPUs would replicate the model without a
    word. What it then does needs gloo alone.
    """
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def uses_autocast(config: TrainConfig, model: PreTrainedModel) -> bool:
    """Whether the passes run in bfloat16 over weights that are not."""
    if config.precision == "auto":
        return model.device.type != "cpu" and model.dtype == torch.float32
    return config.precision == "bfloat16" and model.dtype != torch.bfloat16


def has_experts(model: PreTrainedModel) -> bool:
    """Whether a pass may leave out some weights."""
    config = model.config.get_text_config()
    counts = (getattr(config, name, None) for name in ("num_local_experts", "num_experts"))
    return any(counts)
