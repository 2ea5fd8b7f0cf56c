"""Direct preference optimization of a model on pairs of answers, and what it cost."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from codeact.data.pairs import TokenizedPairs
from codeact.errors import InputError
from codeact.files import read_json, write_json
from codeact.packing import BinPlan, plan_bins
from codeact.training.adapters import with_adapter
from codeact.training.arguments import training_arguments, uses_autocast
from codeact.training.compiling import compile_layers
from codeact.training.config import TrainConfig
from codeact.training.dpo.pairs import PackedPairs
from codeact.training.dpo.reference import stored_reference
from codeact.training.dpo.trainer import CodeActDPOTrainer
from codeact.training.loss import num_ranks
from codeact.training.run_trainer import OnStep, TrainResult, find_checkpoint, run_trainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_OPTIONS = "dpo.json"


@dataclass(frozen=True)
class RewardLog:
    """Means over the pairs of one optimizer step, ``beta`` times log-ratios in nats.

    Attributes:
        step: optimizer step, from 1.
        chosen, rejected: reward of the answer to prefer, and of the one to avoid.
        margin: the first less the second.
        accuracy: share of the pairs in which the margin is above 0.
    """

    step: int
    chosen: float
    rejected: float
    margin: float
    accuracy: float


@dataclass(frozen=True)
class DPOResult(TrainResult):
    """What training took; ``rewards`` holds one line an optimizer step, like ``steps``."""

    rewards: tuple[RewardLog, ...] = ()


def fine_tune_dpo(
    model: PreTrainedModel,
    pairs: TokenizedPairs,
    config: TrainConfig,
    *,
    folder: Path,
    beta: float = 0.1,
    length_normalised: bool = False,
    plan: BinPlan | None = None,
    resume: bool = False,
    save_to: Path | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    on_step: OnStep | None = None,
) -> DPOResult:
    """Train ``model`` in place to prefer the chosen answers, on packed bins of pairs.

    The loss of a step is the mean over its pairs of :func:`codeact.training.dpo.loss.dpo_losses`
    (arXiv:2305.18290). The reference is the model as it is given, so no second one is in memory:
    its log-probabilities are computed once, streamed, and kept in ``folder`` for a resumed run.
    Everything else is as of :func:`codeact.training.fine_tune`; ``StepLog.loss`` is the mean loss
    of a pair.

    Args:
        model: loaded with ``attn_implementation="codeact"``, fine-tuned on such answers before.
        pairs: of ``tokenize_pairs``; with a ``max_length`` of half the capacity all of them fit.
        config: options; ``samples_per_step`` counts pairs.
        folder: for checkpoints and the reference.
        beta: how strongly the loss looks at log-ratios, above 0.
        length_normalised: divide log-ratios by the number of the answer's tokens.
        plan: of ``pairs.seqlens``; None plans bins of ``config.capacity`` from ``config.seed``.
        resume: go on from the last whole checkpoint in ``folder``, if there is one.
        save_to: folder for the whole model, or the adapter alone.
        tokenizer: saved beside it.
        on_step: called on the first rank after each optimizer step.

    Raises:
        InputError: no pair has a token, one does not fit the capacity, an option differs from that
            of the checkpoint, or as of ``fine_tune``.
        RuntimeError: the model does not keep packed sequences apart.
    """
    if not (pairs.seqlens > 0).any():
        counts = ", ".join(f"{count} {name}" for name, count in Counter(pairs.status).items())
        raise InputError(f"training needs at least one pair to learn from, got {counts or 'none'}")
    plan = plan or _plan(pairs, config)
    checkpoint = find_checkpoint(folder, config, resume=resume)
    options = {"beta": beta, "length_normalised": length_normalised}
    _check_options(folder, options, resumes=checkpoint is not None)
    _log_status(pairs)
    reference = stored_reference(model, pairs, folder, autocast=uses_autocast(config, model))
    trainer = CodeActDPOTrainer(
        with_adapter(model, config),
        training_arguments(config, plan, folder, model),
        train_dataset=PackedPairs(pairs, plan, reference=reference),
        plan=plan,
        beta=beta,
        length_normalised=length_normalised,
    )
    if config.compile:
        compile_layers(model)
    result = run_trainer(
        trainer,
        config,
        checkpoint=checkpoint,
        save_to=save_to,
        tokenizer=tokenizer,
        on_step=on_step,
    )
    rewards = _rewards(trainer.state.log_history)
    del trainer
    gc.collect()  # it holds itself, and with it the optimizer's states
    values = {field.name: getattr(result, field.name) for field in fields(TrainResult)}
    return DPOResult(**values, rewards=rewards)


def _plan(pairs: TokenizedPairs, config: TrainConfig) -> BinPlan:
    longest = int(pairs.seqlens.max())
    if longest > config.capacity:
        raise InputError(
            f"capacity = {config.capacity} must hold both sequences of a pair, the longest has "
            f"{longest} tokens: raise it, or tokenize_pairs with max_length = capacity // 2"
        )
    return plan_bins(pairs.seqlens, config.capacity, seed=config.seed, world_size=num_ranks())


def _check_options(folder: Path, options: dict[str, Any], *, resumes: bool) -> None:
    """Keep what the checkpoints of a run do not say, and refuse to go on with something else."""
    path = folder / _OPTIONS
    if resumes and path.is_file():
        saved = read_json(path)
        for name, now in options.items():
            if saved.get(name) != now:
                raise InputError(
                    f"{name} = {now} differs from the {saved.get(name)} that the run in "
                    f"{str(folder)!r} began with: give that, or start anew in another folder"
                )
    elif num_ranks() == 1 or dist.get_rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, options)


def _log_status(pairs: TokenizedPairs) -> None:
    counts = Counter(pairs.status)
    left_out = counts["prompt_overflow"] + counts["empty_response"]
    if left_out or counts["truncated"] or counts["same"]:
        logger.warning(
            "of %d pairs %d are left out (%d prompts too long), %d are cut, and %d have two equal "
            "answers, which teach nothing",
            len(pairs), left_out, counts["prompt_overflow"], counts["truncated"], counts["same"],
        )  # fmt: skip


def _rewards(log_history: list[dict[str, Any]]) -> tuple[RewardLog, ...]:
    return tuple(
        RewardLog(
            line["step"],
            *(line[f"rewards/{name}"] for name in ("chosen", "rejected", "margins", "accuracies")),
        )
        for line in log_history
        if "rewards/chosen" in line
    )
