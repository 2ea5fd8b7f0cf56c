"""The passes of a measured training step: validation direction, inner products, the choice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codeact.errors import InputError
from codeact.models import (
    ATTN_IMPLEMENTATION,
    Direction,
    ScoredSequence,
    assert_isolated,
    register_attention,
)
from codeact.models.stream.ghost import ghost_gram, stream_ghost
from codeact.models.stream.gradient import loss_gradient
from codeact.models.stream.losses import budget_of, plan_stream
from codeact.ops.varlen import pack_sequences
from codeact.training.in_run.optimizer import adam_direction

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# As of loss_gradient: the activations of every layer are kept.
_CPU_BUDGET = 1024
_CUDA_BUDGET = 8192


class ValidationDirection(NamedTuple):
    """``P grad L(V)`` in the dtypes of the parameters, and ``L(V)``, at the weights of a step."""

    step: int
    direction: dict[str, Tensor]
    loss: float


class StepProducts(NamedTuple):
    """Inner products of the sequences of a step.

    Attributes:
        scores: (num_seqs,) float64, ``<grad l_i, direction>`` with ``l_i`` the mean loss of the
            scored tokens of sequence i.
        gram: (num_seqs, num_seqs) float64, ``<grad l_i, grad l_j>``; 0 for pairs that did not
            share a pack. None if not asked for.
    """

    scores: NDArray[np.float64]
    gram: NDArray[np.float64] | None


def greats_choice(
    scores: NDArray[np.float64], gram: NDArray[np.float64], num_keep: int, *, rate: float
) -> NDArray[np.int64]:
    """GREATS: greedily the sequences that lower the validation loss most in one step together.

    The gain of z beside a set S is ``rate * s_z - rate**2 * sum_{i in S} <grad l_i, H grad l_z>``
    to second order; with H = 1 and divided by the rate, the next choice is
    ``argmax(s - rate * sum_{i in S} K[i])`` (Wang, Wu, Song, Mittal & Jia, "GREATS: Online
    Selection of High-Quality Data for LLM Training in Every Iteration", NeurIPS 2024). As there,
    the rate is that of a step on the sum of the losses, though trainers take their mean, and the
    choice goes on past gains below 0. Of equal gains the first sequence is chosen.

    Args:
        scores: (num_seqs,) s.
        gram: (num_seqs, num_seqs) K; zeros choose the largest scores.
        num_keep: how many, at most num_seqs.
        rate: the learning rate, or another weight of the interactions.

    Returns:
        (num_keep,) int64 in the order of choice.
    """
    gains = np.array(scores, dtype=np.float64)
    chosen = np.empty(num_keep, dtype=np.int64)
    for turn in range(num_keep):
        chosen[turn] = best = int(gains.argmax())
        gains -= rate * gram[best]
        gains[best] = -np.inf
    return chosen


def kept_share(products: StepProducts, keep: float, rate: float) -> NDArray[np.bool_]:
    """(num_seqs,) the :func:`greats_choice` of the share ``keep``, rounded, at least one."""
    num_seqs = len(products.scores)
    if keep >= 1:
        return np.ones(num_seqs, dtype=bool)
    kept = np.zeros(num_seqs, dtype=bool)
    gram = np.zeros((num_seqs, num_seqs)) if products.gram is None else products.gram
    kept[greats_choice(products.scores, gram, max(1, int(keep * num_seqs + 0.5)), rate=rate)] = True
    return kept


@contextmanager
def measuring(model: PreTrainedModel, *, bfloat16: bool) -> Iterator[None]:
    """Inside, the model is as measurements need it: no dropout, packed sequences kept apart.

    Gradient checkpointing is off as well, since transformers checkpoints in training mode only, and
    so is the autocast that accelerate has put around ``forward``.

    Args:
        model: as it trains; afterwards it is the same again.
        bfloat16: autocast the decoder to it, as training does; the output head stays as it is.

    Raises:
        RuntimeError: the model does not keep packed sequences apart.
    """
    implementation = model.config._attn_implementation
    with ExitStack() as stack:
        stack.callback(model.train, model.training)
        model.eval()
        if not str(implementation).startswith(ATTN_IMPLEMENTATION):
            register_attention()
            stack.callback(model.set_attn_implementation, implementation)
            model.set_attn_implementation(ATTN_IMPLEMENTATION)
        _set_forward(stack, model, type(model).forward.__get__(model))
        assert_isolated(model)  # now: under autocast it would ask for more than bfloat16 has
        if bfloat16:
            decoder = model.get_decoder()
            _set_forward(stack, decoder, _in_bfloat16(decoder.forward, model.device.type))
        yield


def _in_bfloat16(forward: Any, device: str) -> Any:
    """``forward`` under autocast, and nothing around it: the rest chooses its own precision.

    Entered in each call, because passes on a CPU run in threads, which inherit no autocast. Without
    its cache of weights: a copy made where no gradient is asked for would be taken where one is.
    """

    def cast(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, torch.bfloat16, cache_enabled=False):
            return forward(*args, **kwargs)

    return cast


def _set_forward(stack: ExitStack, module: Any, forward: Any) -> None:
    """Replace a method until the stack unwinds."""
    before = vars(module).get("forward")
    if before is None:
        stack.callback(delattr, module, "forward")
    else:
        stack.callback(setattr, module, "forward", before)
    module.forward = forward


def drawn_for_step(
    validation: Sequence[ScoredSequence], size: int | None, *, seed: int, step: int
) -> Sequence[ScoredSequence]:
    """``size`` of the sequences, by the step alone, so that a resumed run draws the same."""
    if size is None or size >= len(validation):
        return validation
    rng = np.random.default_rng([seed, step])
    return [validation[index] for index in rng.choice(len(validation), size, replace=False)]


def validation_direction(
    model: PreTrainedModel,
    sequences: Sequence[ScoredSequence],
    names: Sequence[str],
    *,
    step: int,
    adam: Any = None,
    token_budget: int | None = None,
) -> ValidationDirection | None:
    """``P grad L(V)``, ``L(V)`` the mean over sequences of the mean loss of their scored tokens.

    Args:
        model: see :func:`measuring`.
        sequences: each with a scored token.
        names: parameters that the direction moves.
        step: for the result.
        adam: an optimizer for :func:`adam_direction`; None is P = 1.
        token_budget: see :func:`loss_gradient`.

    Returns:
        None where ``adam`` has not made a step.
    """
    weights = np.array([1.0 / (s.num_scored * len(sequences)) for s in sequences])
    found = loss_gradient(model, sequences, weights, names, token_budget=token_budget)
    parameters = dict(model.named_parameters())
    g = found.gradient
    gradient = g if adam is None else adam_direction(g, parameters, adam)
    if gradient is None:
        return None
    direction = {name: part.to(parameters[name].dtype) for name, part in gradient.items()}
    return ValidationDirection(step, direction, found.value)


def check_trainer(trainer: Any) -> None:
    """Refuse a trainer whose steps this cannot measure, see :meth:`InRunInfluence.attach`."""
    args = trainer.args
    if args.world_size > 1 or args.n_gpu > 1:
        raise RuntimeError(
            "in-run influence measures a step in one process on one GPU, got "
            f"world_size = {args.world_size} and n_gpu = {args.n_gpu}"
        )
    for kind in ("deepspeed", "fsdp"):
        if getattr(trainer, f"is_{kind}_enabled", False):
            raise RuntimeError(f"in-run influence needs whole parameters, {kind} shards them")
    counts_tokens = trainer.model_accepts_loss_kwargs or trainer.compute_loss_func is not None
    if args.gradient_accumulation_steps > 1 and not counts_tokens:
        raise InputError(
            "in-run influence with gradient_accumulation_steps > 1 needs a model whose loss takes "
            "num_items_in_batch: this one's means over micro-batches give no row a share"
        )


def step_products(
    model: PreTrainedModel,
    sequences: Sequence[ScoredSequence],
    direction: Direction,
    *,
    with_gram: bool,
    token_budget: int | None = None,
) -> StepProducts:
    """Inner products of every sequence by ghost products: no gradient of one is ever formed.

    Args:
        model: see :func:`measuring`.
        sequences: each with a scored token.
        direction: of the dtypes of the parameters.
        with_gram: those of pairs too.
        token_budget: tokens a pack holds, which bounds the activations kept and, in the gram, the
            pairs that know of each other. None is 1024 on a CPU and 8192 on a GPU.
    """
    tokens = token_budget or (_CPU_BUDGET if model.device.type == "cpu" else _CUDA_BUDGET)
    counts = np.array([sequence.num_scored for sequence in sequences])
    scores = np.zeros(len(sequences))
    if not with_gram:
        for pack in stream_ghost(model, [sequences], [direction], token_budget=tokens):
            for index, ghost in pack:
                scores[index] = ghost.products[0]
        return StepProducts(scores / counts, None)
    gram = np.zeros((len(sequences), len(sequences)))
    for members, pack_members in plan_stream([sequences], lambda _: budget_of(tokens)):
        batch = pack_sequences(
            [s.input_ids for s in pack_members], [s.labels for s in pack_members]
        )
        found = ghost_gram(model, batch.to(model.device), tuple(direction), [direction])
        scores[members] = found.products[:, 0]
        gram[np.ix_(members, members)] = found.gram
    return StepProducts(scores / counts, gram / np.outer(counts, counts))
