"""Running a Trainer to its end: a log line a step, checkpoints, resuming, the whole model saved."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from transformers import PrinterCallback

from codeact.errors import InputError
from codeact.models import PeakMemory
from codeact.packing import BinPlan
from codeact.training.checkpoint import (
    WholeCheckpoint,
    check_same_config,
    last_whole_checkpoint,
)
from codeact.training.config import TrainConfig, num_optimizer_steps, num_warmup_steps
from codeact.training.loss import num_ranks
from codeact.training.out_of_memory import is_out_of_memory, memory_advice
from codeact.training.step_log import StepLog, StepRecorder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from codeact.training.trainer import CodeActTrainer

logger = logging.getLogger(__name__)

OnStep = Callable[[StepLog, int], None]


@dataclass(frozen=True)
class TrainResult:
    """What training took; of a resumed run, with what it took before.

    Attributes:
        steps: a log line an optimizer step, from the first one of the run.
        seconds: wall time, without what was lost between the last checkpoint and the interruption.
        num_tokens: every pass over a token, of all ranks.
        peak_mib: of this process since it began to train, in MiB.
        resumed_at: the optimizer step of the checkpoint that this call started from, 0 for none.
        num_ranks: processes that trained together.
    """

    steps: tuple[StepLog, ...]
    seconds: float
    num_tokens: int
    peak_mib: float
    resumed_at: int = 0
    num_ranks: int = 1

    @property
    def tokens_per_second(self) -> float:
        """Tokens through the model, forward and backward, per second of wall time."""
        return self.num_tokens / self.seconds if self.seconds else 0.0


def find_checkpoint(folder: Path, config: TrainConfig, *, resume: bool) -> WholeCheckpoint | None:
    """The checkpoint that a run in ``folder`` goes on from; None begins at the start.

    Raises:
        InputError: a checkpoint of a run with other options, or one that would be overwritten.
    """
    checkpoint = last_whole_checkpoint(folder)
    if checkpoint is None or (not resume and config.save_steps is None):
        return None
    if not resume:
        raise InputError(
            f"folder {str(folder)!r} holds {checkpoint.folder.name} of an earlier run: resume it "
            "or name another folder"
        )
    check_same_config(checkpoint.folder, asdict(config))
    return checkpoint


def run_trainer(
    trainer: CodeActTrainer,
    config: TrainConfig,
    *,
    checkpoint: WholeCheckpoint | None = None,
    save_to: Path | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    on_step: OnStep | None = None,
) -> TrainResult:
    """Train, save the whole model, and leave nothing of the trainer in memory.

    Args:
        trainer: fresh; its arguments are those of :func:`training_arguments`.
        config: options.
        checkpoint: to go on from, see :func:`find_checkpoint`.
        save_to: folder for the whole model, or its adapter alone, written by the first rank.
        tokenizer: saved beside it.
        on_step: called on the first rank after each optimizer step with its log and the number of
            steps in all.

    Raises:
        InputError: the loss stops being finite.
    """
    handle: Any = trainer
    model = handle.model
    if handle.is_world_process_zero():
        _warn_of_warmup(config, trainer.plan)
    before = () if checkpoint is None else tuple(StepLog(**step) for step in checkpoint.steps)
    recorder = StepRecorder(config, before=before, on_step=on_step)
    handle.remove_callback(PrinterCallback)  # it prints every log to stdout
    handle.add_callback(recorder)
    recorder.trainer = trainer
    start = time.perf_counter()
    with PeakMemory() as memory:
        try:
            handle.train(None if checkpoint is None else str(checkpoint.folder))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise memory_advice(config, trainer.plan, error) from error
        seconds = time.perf_counter() - start
        if save_to is not None:
            save_whole(trainer, save_to, tokenizer)
    # accelerate leaves its autocast around forward, and trainer and recorder hold each other: the
    # optimizer's state would stay in memory until a collection.
    handle.accelerator.unwrap_model(handle.model, keep_fp32_wrapper=False)
    recorder.trainer = None
    handle.accelerator.free_memory()
    gc.collect()
    model.eval()
    return TrainResult(
        steps=tuple(recorder.steps),
        seconds=seconds + (before[-1].seconds if before else 0.0),
        num_tokens=sum(step.num_tokens for step in recorder.steps),
        peak_mib=memory.mib,
        resumed_at=0 if checkpoint is None else checkpoint.step,
        num_ranks=num_ranks(),
    )


def _warn_of_warmup(config: TrainConfig, plan: BinPlan) -> None:
    """A paper's warm-up on a small set leaves nothing after it."""
    num_warmup, num_steps = num_warmup_steps(config, plan), num_optimizer_steps(config, plan)
    if num_warmup >= num_steps:
        logger.warning(
            "all %d optimizer steps are warm-up (%d steps): the learning rate never reaches %g",
            num_steps,
            num_warmup,
            config.learning_rate,
        )


def save_whole(
    trainer: CodeActTrainer, folder: Path, tokenizer: PreTrainedTokenizerBase | None = None
) -> None:
    """Write the model, or its adapter alone, gathered from all ranks; all of them must call this.

    A folder of the model is read by ``load_model(folder)``, one of an adapter by
    ``load_model(base, adapter=folder)``.
    """
    handle: Any = trainer
    state_dict = None
    if handle.is_fsdp_enabled:  # every rank takes part; the first one gets the whole
        state_dict = handle.accelerator.get_state_dict(handle.model)
    if handle.args.process_index == 0:
        model = handle.accelerator.unwrap_model(handle.model, keep_torch_compile=False)
        model.save_pretrained(folder, state_dict=state_dict)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
    if num_ranks() > 1:
        dist.barrier()
