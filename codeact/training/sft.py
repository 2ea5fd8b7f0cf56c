"""Supervised fine-tuning on a tokenised subset, and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from codeact.data import TokenizedExamples
from codeact.errors import InputError
from codeact.packing import BinPlan, PackedDataset
from codeact.training.adapters import with_adapter
from codeact.training.arguments import training_arguments
from codeact.training.compiling import compile_layers, uncompile_layers
from codeact.training.config import TrainConfig
from codeact.training.run_trainer import OnStep, TrainResult, find_checkpoint, run_trainer
from codeact.training.trainer import CodeActTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def fine_tune(
    model: PreTrainedModel,
    examples: TokenizedExamples,
    plan: BinPlan,
    config: TrainConfig,
    *,
    folder: Path,
    resume: bool = False,
    save_to: Path | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    on_step: OnStep | None = None,
) -> TrainResult:
    """Fine-tune ``model`` in place on packed bins.

    With ``config.method`` "lora" or "qlora" the model holds the trained adapter's layers afterwards
    and its own weights are as they were. Under several processes (torchrun, ``accelerate launch``)
    every one calls this, with a plan for as many; with ``config.fsdp`` each is left with its shards
    of the model, and only ``save_to`` is whole.

    Args:
        model: loaded with ``attn_implementation="codeact"``; for "qlora" with
            ``quantization="nf4"``.
        examples: what to train on; ``plan`` holds their indices.
        plan: bins of ``examples``.
        config: options.
        folder: for checkpoints, written every ``config.save_steps`` optimizer steps and at the end;
            None of them, nothing is written. Several nodes must share it.
        resume: go on from the last whole checkpoint in ``folder``, if there is one; steps and
            weights are then those of an uninterrupted run.
        save_to: folder for the whole model, or the adapter alone, written by the first rank.
        tokenizer: saved beside it.
        on_step: called on the first rank after each optimizer step with its log and the number of
            steps in all.

    Raises:
        InputError: no example carries a loss, the loss stops being finite, or the checkpoint is of
            a run with other options; as of :func:`codeact.training.adapters.with_adapter`.
        RuntimeError: the model does not keep packed sequences apart.
    """
    if not (examples.num_response_tokens > 0).any():
        raise InputError("training needs at least one response token, got none in the whole set")
    checkpoint = find_checkpoint(folder, config, resume=resume)
    trained = with_adapter(model, config)
    trainer = CodeActTrainer(
        model=trained,
        args=training_arguments(config, plan, folder, model),
        train_dataset=PackedDataset(examples, plan),
        plan=plan,
    )
    is_compiled = config.compile and compile_layers(model)
    try:
        return run_trainer(
            trainer,
            config,
            checkpoint=checkpoint,
            save_to=save_to,
            tokenizer=tokenizer,
            on_step=on_step,
        )
    finally:
        if is_compiled:
            uncompile_layers(model)
