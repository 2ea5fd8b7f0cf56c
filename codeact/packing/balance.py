"""Steps whose ranks have equal work, out of bins that differ by a factor of ten."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.ops.shuffle import shuffled
from codeact.packing.bins import Bins, Costs, Int32Array, Int64Array, add_fillers, split_bins
from codeact.packing.seeds import derive_seed
from codeact.packing.spans import Spans

Cost = Callable[[Int32Array], NDArray[np.floating[Any]]]

# Steps among which bins change places. Of 64, ranks differ by under 1 % on long-tailed data
# (benchmarks/bench_packing.py), and a bin still comes at a random time of the epoch.
WINDOW_STEPS = 64


def sync_efficiency(costs: ArrayLike, world_size: int) -> float:
    """The share of the ranks' time that is work when every step waits for its slowest rank.

    Sum over the steps of the mean cost of a rank, divided by the sum of the highest.

    Args:
        costs: (num_bins,) non-negative, step-major: rank r of step s is ``s * world_size + r``.
        world_size: ranks a step.

    Raises:
        ValueError: ``costs`` are not whole steps.
    """
    values = np.asarray(costs, dtype=np.float64)
    if world_size < 1 or values.ndim != 1 or len(values) % world_size:
        raise ValueError(
            "costs must be a row of whole steps, "
            f"got shape {values.shape} and world_size = {world_size}"
        )
    steps = values.reshape(-1, world_size)
    slowest = float(steps.max(axis=1, initial=0.0).sum())
    return float(steps.mean(axis=1).sum()) / slowest if slowest else 1.0


def exact_costs(cost: Cost | None, seqlens: Int32Array) -> Costs:
    """``cost`` in whole units, about 2**61 for all of ``seqlens`` together; None counts tokens.

    Sums of floating-point numbers depend on the order that a CPU adds them in, and one bit decides
    which of two bins goes first. Sums of integers are the same everywhere.

    Raises:
        InputError: ``cost`` gives a wrong shape, or values that are negative or not finite.
    """
    if cost is None:
        return _tokens
    longest = int(seqlens.max(initial=1))
    # One evaluation a length where that costs no more than one a sequence.
    is_table = longest <= 4 * len(seqlens) + 65536
    lengths = np.arange(1, longest + 1, dtype=np.int32) if is_table else seqlens
    values = _checked(cost(lengths), len(lengths))
    _, exponent = np.frexp(values.max(initial=0.0) * len(seqlens))
    shift = 61 - int(exponent)
    if is_table:
        table = np.rint(np.ldexp(np.append(0.0, values), shift)).astype(np.int64)
        return partial(np.take, table)
    return partial(_scaled, cost, shift)


# No lambdas: a plan travels to the processes that train, and they do not pickle.
def _tokens(seqlens: Int32Array) -> NDArray[np.integer[Any]]:
    return seqlens


def _scaled(cost: Cost, shift: int, seqlens: Int32Array) -> Int64Array:
    values = _checked(cost(seqlens), len(seqlens))
    return np.rint(np.ldexp(values, shift)).astype(np.int64)


def deal(
    bins: Bins,
    num_bins: int,
    world_size: int,
    *,
    costs: Costs,
    spans: Spans,
    seed: int | None,
    epoch: int = 0,
) -> Bins:
    """Bins to steps: exactly ``num_bins`` of them, which is whole steps, in training order.

    Missing bins come from splitting; where every sequence is alone already, fillers are added.
    Then all bins are shuffled, and among the steps of a window those of like cost go to the same
    step.

    Args:
        bins: at most ``num_bins``.
        num_bins: a multiple of ``world_size``.
        world_size: ranks a step.
        costs: of sequences.
        spans: what the bins hold numbers of; with a filler if ``world_size`` is above 1.
        seed: of the shuffle; None keeps the order.
        epoch: another shuffle for each.
    """
    bins = split_bins(bins, num_bins, costs)
    bins = Bins(bins.order, bins.starts, bins.stops, spans.seqlens)
    if len(bins) < num_bins and spans.filler is not None:
        bins = add_fillers(bins, spans.filler, num_bins - len(bins))
    if seed is None:
        return bins
    order = shuffled(len(bins), seed=derive_seed(seed, "bins"), epoch=epoch)
    if world_size == 1:
        return bins.take(order)
    bin_costs = bins.costs(costs)
    num_steps = len(bins) // world_size
    # The last window takes what is left, so no window is short unless there is one only.
    num_even = max(0, num_steps // WINDOW_STEPS - 1) * WINDOW_STEPS
    head, tail = order[: num_even * world_size], order[num_even * world_size :]
    parts = []
    for name, part, steps in (("head", head, WINDOW_STEPS), ("tail", tail, num_steps - num_even)):
        if len(part):
            window = part.reshape(-1, steps * world_size)
            keys = _Keys(derive_seed(seed, name), epoch)
            parts.append(_balance_windows(window, bin_costs, world_size, keys))
    return bins.take(np.concatenate([*parts, order[:0]]))


class _Keys:
    """Random permutations along the last axis of arrays of any shape."""

    def __init__(self, seed: int, epoch: int) -> None:
        self._seed, self._epoch = seed, epoch

    def shuffle(self, values: NDArray[Any], name: str) -> NDArray[Any]:
        keys = shuffled(values.size, seed=derive_seed(self._seed, name), epoch=self._epoch)
        return np.take_along_axis(values, keys.reshape(values.shape).argsort(axis=-1), axis=-1)


def _balance_windows(
    order: Int32Array, bin_costs: Int64Array, world_size: int, keys: _Keys
) -> Int32Array:
    """Each row of ``order`` sorted by cost and cut into steps; steps and ranks then shuffled."""
    by_cost = np.argsort(bin_costs[order], axis=1, kind="stable")
    sorted_bins = np.take_along_axis(order, by_cost, axis=1)
    steps = sorted_bins.reshape(len(order), -1, world_size)
    places = np.arange(steps.shape[1]) + np.zeros((len(order), 1), dtype=np.int64)
    mixed = np.take_along_axis(steps, keys.shuffle(places, "steps")[:, :, None], axis=1)
    dealt: Int32Array = keys.shuffle(mixed, "ranks").reshape(-1)
    return dealt


def _checked(values: NDArray[np.floating[Any]], num_lengths: int) -> NDArray[np.float64]:
    costs = np.asarray(values, dtype=np.float64)
    if costs.shape != (num_lengths,) or not np.isfinite(costs).all() or (costs < 0).any():
        raise InputError(
            "cost must give one finite, non-negative number a sequence, got shape "
            f"{costs.shape} for {num_lengths} sequences, or a number that is not"
        )
    return costs
