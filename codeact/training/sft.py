"""Supervised fine-tuning on a tokenised subset, and what it cost."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from codeact.data import TokenizedExamples
from codeact.errors import InputError
from codeact.models import PeakMemory
from codeact.packing import BinPlan, PackedDataset
from codeact.training.trainer import CodeActTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class TrainConfig:
    """Options of a run, named as in ``transformers.TrainingArguments``.

    ``accumulation`` bins make one optimizer step. ``max_steps`` ends the run
    early; None runs all epochs.
    """

    epochs: float = 3.0
    learning_rate: float = 5e-5
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    warmup_ratio: float = 0.03
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    accumulation: int = 4
    max_steps: int | None = None
    gradient_checkpointing: bool = False
    seed: int = 42


@dataclass(frozen=True)
class StepLog:
    """One optimizer step: mean loss in nats per scored token, and the seconds since the start."""

    step: int
    loss: float
    num_loss_tokens: int
    num_tokens: int
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """What training took. ``num_tokens`` counts every pass over a token."""

    steps: tuple[StepLog, ...]
    seconds: float
    num_tokens: int
    peak_mib: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens through the model, forward and backward, per second of wall time."""
        return self.num_tokens / self.seconds if self.seconds else 0.0


def fine_tune(
    model: PreTrainedModel,
    examples: TokenizedExamples,
    plan: BinPlan,
    config: TrainConfig,
    *,
    scratch: Path,
    on_step: Callable[[StepLog, int], None] | None = None,
) -> TrainResult:
    """Fine-tune ``model`` in place on packed bins.

    Args:
        model: loaded with ``attn_implementation="codeact"``.
        examples: what to train on; ``plan`` holds their indices.
        plan: bins of ``examples``.
        config: options.
        scratch: folder that the Trainer may write to; nothing of it is needed afterwards.
        on_step: called after each optimizer step with its log and the number of steps in all.

    Raises:
        InputError: no example carries a loss, or the loss stops being finite.
        RuntimeError: the model does not keep packed sequences apart.
    """
    if not (examples.num_response_tokens > 0).any():
        raise InputError("training needs at least one response token, got none in the whole set")
    recorder = _Recorder(on_step)
    trainer = CodeActTrainer(
        model=model,
        args=_arguments(config, scratch, model, _num_steps(config, plan)),
        train_dataset=PackedDataset(examples, plan),
        plan=plan,
        callbacks=[recorder],
    )
    trainer.remove_callback(PrinterCallback)  # it prints every log to stdout
    recorder.trainer = trainer
    start = time.perf_counter()
    with PeakMemory() as memory:
        trainer.train()
    # accelerate leaves its autocast around forward, and trainer and recorder hold each other: the
    # optimizer's state would stay in memory until a collection.
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    recorder.trainer = None
    del trainer
    gc.collect()
    model.eval()
    return TrainResult(
        steps=tuple(recorder.steps),
        seconds=time.perf_counter() - start,
        num_tokens=sum(step.num_tokens for step in recorder.steps),
        peak_mib=memory.mib,
    )


def _num_steps(config: TrainConfig, plan: BinPlan) -> int:
    """Optimizer steps of the whole run."""
    return config.max_steps or math.ceil(config.epochs * plan.num_updates(config.accumulation))


def _arguments(
    config: TrainConfig, scratch: Path, model: PreTrainedModel, num_steps: int
) -> TrainingArguments:
    on_cpu = model.device.type == "cpu"
    # Passed only when wanted: newer transformers warn about the name.
    checkpointing: dict[str, Any] = (
        {"gradient_checkpointing": True} if config.gradient_checkpointing else {}
    )
    return TrainingArguments(
        output_dir=str(scratch),
        # A bin is a micro-batch whatever this says; the warning about few steps compares with it.
        per_device_train_batch_size=8,
        gradient_accumulation_steps=config.accumulation,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler,
        # Rounded down: transformers rounds a share up, and its first warm-up step has a rate of
        # 0, so that a run of one step would change nothing.
        warmup_steps=int(config.warmup_ratio * num_steps),
        optim={"adamw": "adamw_torch_fused", "sgd": "sgd"}[config.optimizer],
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        **checkpointing,
        bf16=not on_cpu and model.dtype == torch.float32,
        use_cpu=on_cpu,
        seed=config.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a NaN must be seen, not skipped
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )


class _Recorder(TrainerCallback):
    """Collects a log line an optimizer step, with the tokens behind it."""

    def __init__(self, on_step: Callable[[StepLog, int], None] | None) -> None:
        self.steps: list[StepLog] = []
        self.trainer: CodeActTrainer | None = None
        self._on_step = on_step
        self._seen = (0, 0)
        self._start = time.perf_counter()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        """transformers calls this after every optimizer step (``logging_steps=1``)."""
        if logs is None or "loss" not in logs or self.trainer is None:
            return
        seen = (self.trainer.num_tokens_seen, self.trainer.num_loss_tokens_seen)
        step = StepLog(
            step=state.global_step,
            loss=logs["loss"],
            num_tokens=seen[0] - self._seen[0],
            num_loss_tokens=seen[1] - self._seen[1],
            learning_rate=logs.get("learning_rate", math.nan),
            seconds=time.perf_counter() - self._start,
        )
        self._seen = seen
        if not math.isfinite(step.loss):
            raise InputError(
                f"training loss became {step.loss} at step {step.step} "
                f"(learning_rate = {step.learning_rate:g}): lower it or look at the data"
            )
        self.steps.append(step)
        if self._on_step is not None:
            self._on_step(step, state.max_steps)
