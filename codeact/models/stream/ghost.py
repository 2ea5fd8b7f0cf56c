"""Derivatives of every sequence's loss along several directions, by one backward pass for all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codeact.models.direction import Direction, is_moving
from codeact.models.isolation import assert_isolated
from codeact.models.stream.ghost_pass import GhostPass
from codeact.models.stream.losses import budget_of, map_on_threads, plan_stream
from codeact.models.stream.pack_pass import HostPack, ScoredSequence, SequenceLoss, host_pack
from codeact.ops.varlen import PackedBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The activations of a pack are kept, some 34 hidden states a token and layer: on a CPU, where each
# thread has a pack of its own, this many tokens in all threads together.
_CPU_BUDGET = 2048
_CPU_LEAST = 256
_CUDA_BUDGET = 8192


class GhostProducts(NamedTuple):
    """What one sequence gave.

    Attributes:
        loss: its loss, as :func:`codeact.models.stream_losses` gives it.
        products: (K,) derivative of ``loss.total`` along each direction.
    """

    loss: SequenceLoss
    products: NDArray[np.float64]


class GhostGram(NamedTuple):
    """What the sequences of a pack gave.

    Attributes:
        totals: (num_seqs,) summed losses, 0 of a sequence without a scored token.
        products: (num_seqs, K) their derivatives along each direction.
        gram: (num_seqs, num_seqs) ``<gradient of totals[i], gradient of totals[j]>``.
    """

    totals: NDArray[np.float64]
    products: NDArray[np.float64]
    gram: NDArray[np.float64]


def stream_ghost(
    model: PreTrainedModel,
    windows: Iterable[Sequence[ScoredSequence]],
    directions: Sequence[Direction],
    *,
    token_budget: int | None = None,
) -> Iterator[list[tuple[int, GhostProducts]]]:
    """Losses of sequences and ``<gradient of the loss, direction>`` for each direction.

    Ghost inner products (Wang et al., In-Run Data Shapley, arXiv:2406.11011): where the backward
    pass of the summed loss reaches the output of a module, its gradient there meets the change of
    that output along the direction; the products of a sequence's positions sum to its own. With F
    the work of a forward pass, K directions take (2 + K) F, a forward-mode pass each 3 K F; but the
    activations of a pack are kept. On a CPU long sequences take 3 F and little more for any K: see
    :class:`codeact.models.stream.ghost_products.ProductSums`.

    While the iterator is open no parameter of the model requires a gradient.

    Args:
        model: in evaluation mode, loaded with ``attn_implementation="codeact"``; checked once by
            :func:`assert_isolated`.
        windows: lists of sequences, numbered and packed as in ``stream_losses``.
        directions: K of them; each may move parameters of its own. Tied weights count under their
            first name, with both their uses.
        token_budget: tokens a pack holds. None is 8192 on a GPU; on a CPU 2048 in all threads.

    Yields:
        For each pack a list of (number of the sequence, counted through all windows, result).

    Raises:
        ValueError: the model is in training mode, a direction does not fit it, or a sequence has
            noise or hidden states to be averaged.
        RuntimeError: the model does not keep packed sequences apart, is compiled, or uses a
            parameter of a direction in a way that this does not follow.
    """
    _check(model, directions, ())
    assert_isolated(model)
    ghost = GhostPass(model, directions)
    with ghost.calls.hooked():
        if model.device.type == "cpu":
            yield from _on_cpu(ghost, windows, token_budget)
        else:
            yield from _on_gpu(ghost, windows, token_budget)


def ghost_gram(
    model: PreTrainedModel,
    batch: PackedBatch,
    names: Collection[str],
    directions: Sequence[Direction] = (),
) -> GhostGram:
    """Inner products of every two sequences of a pack, and of each with the directions.

    One forward and one backward pass, in which no gradient of a parameter of the model is made:
    see :class:`codeact.models.stream.ghost_pairs.GradientGram`. The head's logits are there twice,
    a block of the vocabulary at a time. Besides its activations a pack takes one product of all
    scored positions with each other, squared in their number.

    Args:
        model: as in :func:`stream_ghost`, as are the errors.
        batch: on the model's device.
        names: parameters whose gradients meet.
        directions: may move other parameters.
    """
    _check(model, directions, names)
    assert_isolated(model)
    ghost = GhostPass(model, directions, names)
    with ghost.calls.hooked():
        sums, gram = ghost.sums_and_gram(batch, batch.cu_seqlens.tolist())
    numbers = sums.cpu().numpy()
    return GhostGram(numbers[0], numbers[1:].T.copy(), gram.cpu().numpy())


class _Running:
    """Sums of a pack on their way from the device."""

    def __init__(self, pack: HostPack, sums: Tensor) -> None:
        self._pack, self._sums, self._done = pack, sums, None
        if sums.is_cuda:
            self._sums = torch.empty(sums.shape, dtype=sums.dtype, pin_memory=True)
            self._sums.copy_(sums, non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record(torch.cuda.current_stream(sums.device))

    def read(self) -> list[tuple[int, GhostProducts]]:
        """(number in the stream, result) of each sequence of the pack."""
        if self._done is not None:
            self._done.synchronize()
        totals, products = self._sums[0].tolist(), self._sums[1:].t().numpy().copy()
        counts = np.diff(self._pack.batch.cu_rows).tolist()
        return [
            (member, GhostProducts(SequenceLoss(totals[seq], counts[seq]), products[seq]))
            for seq, member in enumerate(self._pack.members)
        ]


def _on_cpu(
    ghost: GhostPass, windows: Iterable[Sequence[ScoredSequence]], token_budget: int | None
) -> Iterator[list[tuple[int, GhostProducts]]]:
    everything = [_plain(sequence) for window in windows for sequence in window]
    num_threads = torch.get_num_threads()
    most = max(_CPU_LEAST, _CPU_BUDGET // num_threads)

    def budget(seqlens: NDArray[np.int64]) -> int:
        # 3 % more than an equal share: bins are not filled to the last token.
        return token_budget or min(most, 1 + int(1.03 * seqlens.sum() / num_threads))

    def run(pack: tuple[list[int], list[ScoredSequence]]) -> list[tuple[int, GhostProducts]]:
        laid = host_pack(*pack)
        return _Running(laid, ghost.sums(laid.batch, laid.batch.cu_seqlens.tolist())).read()

    packs = plan_stream([everything], lambda seqlens: budget_of(budget(seqlens)))
    yield from map_on_threads(run, list(packs))


def _on_gpu(
    ghost: GhostPass, windows: Iterable[Sequence[ScoredSequence]], token_budget: int | None
) -> Iterator[list[tuple[int, GhostProducts]]]:
    device = ghost.device
    checked = ([_plain(sequence) for sequence in window] for window in windows)
    running = None
    for pack in plan_stream(checked, lambda _: budget_of(token_budget or _CUDA_BUDGET)):
        laid = host_pack(*pack)
        with torch.cuda.device(device):
            batch = laid.map(torch.Tensor.pin_memory).batch.to(device)
            launched = _Running(laid, ghost.sums(batch, laid.batch.cu_seqlens.tolist()))
        if running is not None:
            yield running.read()
        running = launched
    if running is not None:
        yield running.read()


def _plain(sequence: ScoredSequence) -> ScoredSequence:
    if sequence.noise is not None or sequence.num_pooled:
        raise ValueError("stream_ghost takes sequences without noise and without num_pooled")
    return sequence


def _check(model: PreTrainedModel, directions: Sequence[Direction], names: Collection[str]) -> None:
    if model.training:
        raise ValueError("ghost products need a model in evaluation mode: call model.eval()")
    if is_moving():
        raise RuntimeError("ghost products cannot be made inside of along()")
    for module in model.modules():
        if module._compiled_call_impl is not None or hasattr(module, "_orig_mod"):
            raise RuntimeError(
                f"ghost products cannot be made of a compiled model: its {type(module).__name__} "
                "runs without hooks"
            )
    parameters = dict(model.named_parameters())
    for name in names:
        if name not in parameters:
            raise ValueError(f"names has {name}, which the model does not have")
    for direction in directions:
        for name, tangent in direction.items():
            if name not in parameters:
                raise ValueError(f"a direction moves {name}, which the model does not have")
            like = parameters[name]
            if tangent.shape != like.shape or tangent.device != like.device:
                raise ValueError(
                    f"the direction of {name} must be {tuple(like.shape)} on {like.device}, got "
                    f"{tuple(tangent.shape)} on {tangent.device}"
                )
