"""Losses of many sequences, streamed through a model in full packs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from codeact.models.hidden_states import OutputHead, output_head
from codeact.models.isolation import assert_isolated
from codeact.models.stream.lookahead import ahead
from codeact.models.stream.pack_pass import (
    HostPack,
    ScoredSequence,
    SequenceLoss,
    host_pack,
    launch,
)
from codeact.ops.packing import pack_best_fit
from codeact.ops.varlen import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# On a CPU activations should stay in the cache.
_CPU_BUDGET = 1024
# On a GPU a pack should take longer than the few hundred launches of a forward pass: 2**25 numbers
# a hidden state, and never so few tokens that the products are small.
_CUDA_BUDGET = (16384, 65536)
_CUDA_STATE = 2**25
# The share of attention in the work of a pack is bounded by this many pairs a token; a sequence
# is above it from twice as many tokens on.
_PAIRS_PER_TOKEN = 2048
# Packs laid out while the device is busy, besides the one it works on and the one it waits for.
_DEPTH = 2

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class PackBudget(NamedTuple):
    """What one pass through the model may hold; a sequence above either is a pass of its own.

    Attributes:
        tokens: bounds activations, and the work of every layer but attention.
        pairs: bounds the causal pairs (L (L + 1) / 2 of a sequence of L tokens) that attention
            visits, which grow with the square: a pass of a few long sequences would otherwise take
            many times as long as one of short ones.
    """

    tokens: int
    pairs: int


def scored_from(input_ids: NDArray[np.int32], first: int) -> ScoredSequence:
    """The sequence of which the tokens from ``first`` on are scored."""
    labels = input_ids.copy()
    labels[:first] = IGNORE_INDEX
    return ScoredSequence(input_ids, labels)


def stream_losses(
    model: PreTrainedModel,
    windows: Iterable[Sequence[ScoredSequence]],
    *,
    token_budget: int | None = None,
    token_nlls: bool = False,
) -> Iterator[list[tuple[int, SequenceLoss]]]:
    """Score sequences in packs, longest first within a window.

    On a GPU, windows are drawn and packs laid out in pinned memory by another thread while the
    device works, and each pack is copied and launched before the one ahead of it is read. Nothing
    else here waits for the device; transformers does once a pack, to look at its positions before
    it launches anything. On a CPU every thread that PyTorch may use takes a
    pack of its own: a thread then never waits for another inside a product, which on a shared
    machine costs a quarter of the time.

    Args:
        model: loaded with ``attn_implementation="codeact"``; checked once by
            :func:`assert_isolated`.
        windows: lists of sequences. What they are made from, such as a tokenizer, may be called in
            another thread. The tokens of a window are packed together, so larger windows fill
            better.
        token_budget: tokens a pack holds. None is at most about 1024 on a CPU, and 16384 to 65536
            on a GPU, the more the narrower the model. The causal pairs of a pack are bounded by
            2048 a token of the budget. See :class:`PackBudget`.
        token_nlls: give the loss of each token too.

    Yields:
        For each pack a list of (number of the sequence, counted through all windows, result).

    Raises:
        ValueError: the model is in training mode.
        RuntimeError: the model does not keep packed sequences apart.
    """
    if model.training:
        raise ValueError("stream_losses needs a model in evaluation mode: call model.eval()")
    assert_isolated(model)
    head = output_head(model)
    if model.device.type == "cpu":
        yield from _on_cpu(model, head, windows, token_budget, token_nlls)
    else:
        yield from _on_gpu(model, head, windows, token_budget, token_nlls)


def stream_nlls(
    model: PreTrainedModel,
    sequences: Sequence[ScoredSequence],
    *,
    token_budget: int | None = None,
) -> Iterator[list[tuple[int, NDArray[np.float32]]]]:
    """The loss of every scored token, as :func:`stream_losses` finds it.

    Yields:
        For each pack a list of (index into ``sequences``, (num_scored,) float32 losses in nats).
    """
    if not sequences:
        return
    packs = stream_losses(model, [sequences], token_budget=token_budget, token_nlls=True)
    for pack in packs:
        yield [(index, loss.token_nlls) for index, loss in pack if loss.token_nlls is not None]


def plan_packs(seqlens: NDArray[np.integer], budget: PackBudget) -> list[NDArray[np.int32]]:
    """Which sequences share a pass, longest first in each.

    One best-fit packing bounds both: a sequence counts with its tokens, or with its pairs in units
    of ``budget.pairs / budget.tokens`` where those are more.
    """
    lengths = np.asarray(seqlens, dtype=np.int64)
    pairs = lengths * (lengths + 1) // 2
    cost = np.maximum(lengths, -(-pairs * budget.tokens // budget.pairs))
    # A row above the budget counts as a full bin, so it is alone in one.
    clipped = np.minimum(cost, budget.tokens).astype(np.int32)
    order, offsets = pack_best_fit(clipped, budget.tokens)
    return np.split(order, offsets[1:-1])


def budget_of(tokens: int) -> PackBudget:
    """The bounds of a pack of so many tokens."""
    return PackBudget(tokens, tokens * _PAIRS_PER_TOKEN)


def _cpu_budget(num_tokens: int) -> int:
    """A pack for each thread in every round, so that none is idle in the last one."""
    num_threads = torch.get_num_threads()
    num_rounds = max(1, math.ceil(num_tokens / (num_threads * _CPU_BUDGET)))
    # 3 % more than an equal share: bins are not filled to the last token.
    return math.ceil(1.03 * num_tokens / (num_threads * num_rounds))


def _cuda_budget(model: PreTrainedModel) -> int:
    least, most = _CUDA_BUDGET
    hidden_size: int = model.config.get_text_config().hidden_size
    return min(max(_CUDA_STATE // hidden_size, least), most)


def plan_stream(
    windows: Iterable[Sequence[ScoredSequence]], budget: Callable[[NDArray[np.int64]], PackBudget]
) -> Iterator[tuple[list[int], list[ScoredSequence]]]:
    """(numbers in the stream, sequences) of each pack."""
    first = 0
    for window in windows:
        if len(window) == 0:
            continue
        seqlens = np.array([len(sequence.input_ids) for sequence in window], dtype=np.int64)
        for members in plan_packs(seqlens, budget(seqlens)):
            chosen = members.tolist()
            yield [first + member for member in chosen], [window[member] for member in chosen]
        first += len(window)


def _on_cpu(
    model: PreTrainedModel,
    head: OutputHead,
    windows: Iterable[Sequence[ScoredSequence]],
    token_budget: int | None,
    token_nlls: bool,
) -> Iterator[list[tuple[int, SequenceLoss]]]:
    everything = [sequence for window in windows for sequence in window]

    def budget(seqlens: NDArray[np.int64]) -> PackBudget:
        return budget_of(token_budget or _cpu_budget(int(seqlens.sum())))

    def score(pack: tuple[list[int], list[ScoredSequence]]) -> list[tuple[int, SequenceLoss]]:
        return launch(model, head, host_pack(*pack), token_nlls).read()

    yield from map_on_threads(score, list(plan_stream([everything], budget)))


def _on_gpu(
    model: PreTrainedModel,
    head: OutputHead,
    windows: Iterable[Sequence[ScoredSequence]],
    token_budget: int | None,
    token_nlls: bool,
) -> Iterator[list[tuple[int, SequenceLoss]]]:
    budget = budget_of(token_budget or _cuda_budget(model))
    device = model.device
    to_device = partial(torch.Tensor.to, device=device, non_blocking=True)

    def lay_out() -> Iterator[HostPack]:
        with torch.cuda.device(device):
            for members, sequences in plan_stream(windows, lambda _: budget):
                yield host_pack(members, sequences).map(torch.Tensor.pin_memory)

    running = None
    for pack in ahead(lay_out(), _DEPTH):
        with torch.cuda.device(device):
            launched = launch(model, head, pack.map(to_device), token_nlls)
        if running is not None:
            yield running.read()
        running = launched
    if running is not None:
        yield running.read()


def map_on_threads(function: Callable[[_In], _Out], items: Sequence[_In]) -> Iterator[_Out]:
    """``map`` on as many threads as PyTorch has, each computing alone; results in order."""
    num_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)
        # A worker's setting is its own, except that MKL has one for the whole process.
        torch.set_num_threads(num_threads)
