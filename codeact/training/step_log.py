"""A log line an optimizer step, and the mark that makes a checkpoint whole."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from codeact.errors import InputError
from codeact.training.checkpoint import write_mark
from codeact.training.config import TrainConfig
from codeact.training.loss import num_ranks

if TYPE_CHECKING:
    from codeact.training.trainer import CodeActTrainer


@dataclass(frozen=True)
class StepLog:
    """One optimizer step: mean loss in nats per scored token, tokens of all ranks, and the seconds
    of training until its end."""

    step: int
    loss: float
    num_loss_tokens: int
    num_tokens: int
    learning_rate: float
    seconds: float


class StepRecorder(TrainerCallback):
    """Collects a :class:`StepLog` an optimizer step, and leaves them in every whole checkpoint.

    Args:
        config: options of the run, kept with a checkpoint.
        before: the steps of the checkpoint that the run goes on from.
        on_step: called on the first rank after each step with its log and the number of steps.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        before: tuple[StepLog, ...] = (),
        on_step: Callable[[StepLog, int], None] | None = None,
    ) -> None:
        self.steps = list(before)
        self.trainer: CodeActTrainer | None = None
        self._config = config
        self._on_step = on_step
        self._seen = torch.zeros(2, dtype=torch.int64)
        self._start = time.perf_counter() - (before[-1].seconds if before else 0.0)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        """transformers calls this after every optimizer step (``logging_steps=1``)."""
        if logs is None or "loss" not in logs or self.trainer is None:
            return
        num_tokens, num_loss_tokens = self._tokens_of_step(self.trainer)
        step = StepLog(
            step=state.global_step,
            loss=logs["loss"],
            num_tokens=num_tokens,
            num_loss_tokens=num_loss_tokens,
            learning_rate=logs.get("learning_rate", math.nan),
            seconds=time.perf_counter() - self._start,
        )
        # The loss is the mean over ranks, so that all of them stop.
        if not math.isfinite(step.loss):
            raise InputError(
                f"training loss became {step.loss} at step {step.step} "
                f"(learning_rate = {step.learning_rate:g}): lower it or look at the data"
            )
        self.steps.append(step)
        if self._on_step is not None and args.process_index == 0:
            self._on_step(step, state.max_steps)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called when all files of a checkpoint are written, by this rank."""
        if num_ranks() > 1:
            dist.barrier()
        if args.process_index == 0:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_mark(folder, asdict(self._config), [asdict(step) for step in self.steps])

    def _tokens_of_step(self, trainer: CodeActTrainer) -> tuple[int, int]:
        """Tokens, and those with a loss, of all ranks since the last call."""
        seen = torch.tensor([trainer.num_tokens_seen, trainer.num_loss_tokens_seen])
        new, self._seen = seen - self._seen, seen
        if num_ranks() > 1:
            accelerator: Any = trainer.accelerator
            new = accelerator.reduce(new.to(accelerator.device), reduction="sum").cpu()
        return int(new[0]), int(new[1])
