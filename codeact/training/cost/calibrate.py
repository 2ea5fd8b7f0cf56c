"""Seconds instead of FLOPs: fit a cost model to timed training steps of the model at hand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from codeact.errors import InputError
from codeact.packing import ModelCost, PackedCollator
from codeact.training.loss import num_ranks, packed_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SHORTEST = 32
# The first passes pay for allocations and the choice of kernels.
_NUM_WARMUP = 3
# Each pack is timed twice, once a pass, and the shorter time counts: what disturbs one is rarely
# there again.
_NUM_PASSES = 2


def calibrate_cost(
    model: PreTrainedModel,
    cost: ModelCost,
    *,
    capacity: int,
    num_steps: int = 20,
    seed: int = 0,
) -> ModelCost:
    """A cost model in seconds, from forward and backward passes over random packs.

    FLOPs predict time only as far as attention and matrix products run equally fast. The packs
    differ in their number of tokens and in the lengths of their sequences, so that the constant
    part of a step, the part by token and the part by attended pair can be told apart. Where
    several processes run, all get the fit of the first one, since their plans must be the same;
    every one of them must call this. Gradients of ``model`` are set to None.

    Args:
        model: on the device and in the dtype that it trains in, not wrapped.
        cost: of this model, in FLOPs (``ModelCost.from_config``).
        capacity: tokens of the longest pack, that of the plan.
        num_steps: packs to time, twice each.
        seed: of the random packs.

    Returns:
        ``cost`` whose values are seconds of a forward and backward pass, see
        ``ModelCost.calibrated``.

    Raises:
        InputError: a capacity below 128 tokens, fewer than 6 steps, or times that do not fit.
    """
    if capacity < 4 * _SHORTEST or num_steps < 6:
        raise InputError(
            f"capacity must be at least {4 * _SHORTEST} and num_steps at least 6, got {capacity} "
            f"and {num_steps}"
        )
    rng = np.random.default_rng(seed)
    packs = _random_packs(rng, capacity, num_steps)
    was_training = model.training
    model.train()  # gradient checkpointing works in training only
    try:
        for seqlens in packs[:_NUM_WARMUP]:
            _seconds_of(model, seqlens, rng)
        passes = [
            [_seconds_of(model, seqlens, rng) for seqlens in packs] for _ in range(_NUM_PASSES)
        ]
        seconds = [min(times) for times in zip(*passes, strict=True)]
    finally:
        model.train(was_training)
    if num_ranks() > 1:
        dist.broadcast_object_list(seconds, src=0)
    return cost.calibrated(packs, seconds)


def _random_packs(
    rng: np.random.Generator, capacity: int, num_packs: int
) -> list[NDArray[np.int32]]:
    """Packs of a quarter to all of the capacity, of sequences from short to as long as fits."""
    sizes = rng.permutation(np.linspace(0.25, 1.0, num_packs) * capacity).astype(int)
    longest = rng.permutation(np.geomspace(_SHORTEST, capacity, num_packs)).astype(int)
    # The whole capacity as one sequence and as the shortest ones: the ends of what a plan holds.
    sizes[:2], longest[:2] = capacity, (capacity, _SHORTEST)
    packs = []
    for size, seqlen in zip(sizes, longest, strict=True):
        length = min(size, seqlen)
        count, rest = divmod(size, length)
        packs.append(np.array([length] * count + [rest] * int(rest > 0), dtype=np.int32))
    return packs


def _seconds_of(
    model: PreTrainedModel, seqlens: NDArray[np.int32], rng: np.random.Generator
) -> float:
    """Wall time of one forward and backward pass; the batch is made and moved before."""
    vocab_size = model.config.get_text_config().vocab_size
    rows = [rng.integers(0, vocab_size, size=seqlen) for seqlen in seqlens]
    batch = PackedCollator()([{"input_ids": row, "labels": row} for row in rows])
    batch = {key: _moved(value, model.device) for key, value in batch.items()}
    _wait(model.device)
    start = time.perf_counter()
    packed_loss(model, batch, float(seqlens.sum())).backward()
    _wait(model.device)
    seconds = time.perf_counter() - start
    model.zero_grad(set_to_none=True)
    return seconds


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
