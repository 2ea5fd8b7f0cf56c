"""Per-token losses of many sequences, streamed through a model in full packs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from codeact.models.hidden_states import OutputHead, output_head, packed_nll
from codeact.models.isolation import assert_isolated
from codeact.ops.packing import pack_best_fit
from codeact.ops.varlen import IGNORE_INDEX, pack_sequences

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CPU_BUDGET = 1024
_CUDA_BUDGET = 16384

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class ScoredSequence(NamedTuple):
    """Tokens and, aligned with them, labels: ``IGNORE_INDEX`` where a token is not scored.

    Both are (seqlen,) int32. The first token is never scored: nothing before it predicts it.
    """

    input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]


def scored_from(input_ids: NDArray[np.int32], first: int) -> ScoredSequence:
    """The sequence of which the tokens from ``first`` on are scored."""
    labels = input_ids.copy()
    labels[:first] = IGNORE_INDEX
    return ScoredSequence(input_ids, labels)


def stream_nlls(
    model: PreTrainedModel,
    sequences: Sequence[ScoredSequence],
    *,
    token_budget: int | None = None,
) -> Iterator[list[tuple[int, NDArray[np.float32]]]]:
    """Score sequences in packs of about ``token_budget`` tokens.

    On a GPU one pack runs after the other, with one wait for the device each. On a CPU every
    thread that PyTorch may use takes a pack of its own: a thread then never waits for another
    inside a product, which on a shared machine costs a quarter of the time.

    Args:
        model: loaded with ``attn_implementation="codeact"``; checked once by
            :func:`assert_isolated`.
        sequences: what to score.
        token_budget: tokens a pack holds; a longer sequence is a pack of its own. None is at
            most about 1024 on a CPU, where activations should stay in the cache, and 16384 on a
            GPU.

    Yields:
        For each pack a list of (index into ``sequences``, (num_scored,) float32 losses in nats).

    Raises:
        ValueError: the model is in training mode.
        RuntimeError: the model does not keep packed sequences apart.
    """
    if not sequences:
        return
    if model.training:
        raise ValueError("stream_nlls needs a model in evaluation mode: call model.eval()")
    assert_isolated(model)
    on_cpu = model.device.type == "cpu"
    seqlens = np.array([len(s.input_ids) for s in sequences], dtype=np.int32)
    budget = token_budget or (_cpu_budget(int(seqlens.sum())) if on_cpu else _CUDA_BUDGET)
    # A row above the budget counts as a full bin, so it is alone in one.
    order, offsets = pack_best_fit(np.minimum(seqlens, budget), budget)
    packs = np.split(order, offsets[1:-1])
    score = partial(_score_pack, model, output_head(model), sequences)
    yield from _map_on_threads(score, packs) if on_cpu else map(score, packs)


def _cpu_budget(num_tokens: int) -> int:
    """A pack for each thread in every round, so that none is idle in the last one."""
    num_threads = torch.get_num_threads()
    num_rounds = math.ceil(num_tokens / (num_threads * _CPU_BUDGET))
    # 3 % more than an equal share: bins are not filled to the last token.
    return math.ceil(1.03 * num_tokens / (num_threads * num_rounds))


def _score_pack(
    model: PreTrainedModel,
    head: OutputHead,
    sequences: Sequence[ScoredSequence],
    members: NDArray[np.int32],
) -> list[tuple[int, NDArray[np.float32]]]:
    batch = pack_sequences(
        [sequences[i].input_ids for i in members], [sequences[i].labels for i in members]
    )
    losses = packed_nll(model, head, batch.to(model.device)).cpu().numpy()
    return list(zip(members.tolist(), np.split(losses, batch.cu_rows[1:-1]), strict=True))


def _map_on_threads(function: Callable[[_In], _Out], items: Sequence[_In]) -> Iterator[_Out]:
    """``map`` on as many threads as PyTorch has, each computing alone; results in order."""
    num_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)
        # A worker's setting is its own, except that MKL has one for the whole process.
        torch.set_num_threads(num_threads)
