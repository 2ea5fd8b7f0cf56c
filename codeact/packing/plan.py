"""Which examples share a bin, decided before training starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.ops.packing import pack_best_fit

Order = Literal["shuffle", "preserve"]
Overflow = Literal["error", "drop"]


@dataclass(frozen=True)
class PackingReport:
    """What a plan costs beside the alternatives, in token slots.

    Paddings are the share of slots that hold no token: ``padding_packed`` of this plan's bins,
    ``padding_dynamic`` when batches of ``batch_size`` random examples are padded to their longest,
    ``padding_max`` when each example is padded to the capacity.
    """

    capacity: int
    num_examples: int
    num_dropped: int
    num_tokens: int
    num_bins: int
    fill: float
    batch_size: int
    padding_packed: float
    padding_dynamic: float
    padding_max: float


@dataclass(frozen=True)
class BinPlan:
    """Bins of example indices, the same on every machine for the same arguments.

    Attributes:
        seqlens: (num_examples,) int32 as given.
        capacity: tokens a bin may hold.
        windows: arrays of example indices that are packed together.
        order: ``"shuffle"`` packs best-fit inside each window and mixes bins and equally long
            examples anew every epoch; ``"preserve"`` fills bins in the given order (next fit).
        seed: of every shuffle.
        num_dropped: examples above the capacity, left out under ``overflow="drop"``.
    """

    seqlens: NDArray[np.int32]
    capacity: int
    windows: tuple[NDArray[np.int64], ...]
    order: Order
    seed: int
    num_dropped: int

    @cached_property
    def _epoch_zero(self) -> list[NDArray[np.int64]]:
        return self.epoch(0)

    @property
    def num_bins(self) -> int:
        """Bins an epoch has; every epoch has as many, since a window's lengths do not change."""
        return len(self._epoch_zero)

    @property
    def num_tokens(self) -> int:
        """Tokens an epoch sees."""
        return int(sum(self.seqlens[window].sum(dtype=np.int64) for window in self.windows))

    @property
    def fill(self) -> float:
        """The share of token slots that hold a token."""
        slots = self.num_bins * self.capacity
        return self.num_tokens / slots if slots else 1.0

    def num_steps(self, *, bins_per_step: int = 1) -> int:
        """Optimizer steps an epoch takes when each consumes ``bins_per_step`` bins."""
        return -(-self.num_bins // bins_per_step)

    def epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        """The bins of one epoch in training order, each an array of example indices.

        Every example that was not dropped is in exactly one bin.
        """
        if self.order == "preserve":
            return [bin_ for window in self.windows for bin_ in self._next_fit(window)]
        rng = np.random.default_rng([self.seed, epoch])
        bins = []
        for window in self.windows:
            mixed = rng.permutation(window)
            packed, offsets = pack_best_fit(self.seqlens[mixed], self.capacity)
            bins.extend(np.split(mixed[packed], offsets[1:-1]) if len(packed) else [])
        return [bins[index] for index in rng.permutation(len(bins))]

    def _next_fit(self, window: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        cuts, used = [], 0
        for position, seqlen in enumerate(self.seqlens[window].tolist()):
            if position and used + seqlen > self.capacity:
                cuts.append(position)
                used = 0
            used += seqlen
        return np.split(window, cuts) if len(window) else []

    def report(self, *, batch_size: int = 8) -> PackingReport:
        """Padding of this plan beside padded batches of ``batch_size`` examples."""
        kept = np.concatenate([*self.windows, np.empty(0, dtype=np.int64)])
        seqlens = self.seqlens[kept]
        shuffled = np.random.default_rng(self.seed).permutation(seqlens)
        dynamic_slots = sum(
            int(batch.max()) * len(batch)
            for batch in np.split(shuffled, range(batch_size, len(shuffled), batch_size))
            if len(batch)
        )
        return PackingReport(
            capacity=self.capacity,
            num_examples=len(kept),
            num_dropped=self.num_dropped,
            num_tokens=self.num_tokens,
            num_bins=self.num_bins,
            fill=self.fill,
            batch_size=batch_size,
            padding_packed=1.0 - self.fill,
            padding_dynamic=_padding(self.num_tokens, dynamic_slots),
            padding_max=_padding(self.num_tokens, len(kept) * self.capacity),
        )


def _padding(num_tokens: int, num_slots: int) -> float:
    return 1.0 - num_tokens / num_slots if num_slots else 0.0


def plan_bins(
    seqlens: ArrayLike | Sequence[int],
    capacity: int,
    *,
    order: Order = "shuffle",
    window: int = 4096,
    overflow: Overflow = "error",
    seed: int = 0,
) -> BinPlan:
    """Plan Dynamic Pack: every example in one bin of at most ``capacity`` tokens.

    CodeACT (arXiv:2408.02193) packs only inside a micro-batch and by next fit; here a window of
    thousands of shuffled examples is packed best-fit decreasing, which leaves almost nothing
    unfilled and still mixes the data.

    Args:
        seqlens: (num_examples,) integers, tokens of each example.
        capacity: tokens a bin may hold.
        order: ``"shuffle"`` or ``"preserve"``, see :class:`BinPlan`.
        window: examples packed together under ``"shuffle"``.
        overflow: what happens to an example above the capacity: ``"error"`` or ``"drop"``.
        seed: of the shuffles.

    Raises:
        InputError: no example, a capacity or window below 1, an unknown ``order`` or ``overflow``,
            lengths that are not a row of non-negative integers, or one above the capacity.
    """
    lengths = _checked_lengths(seqlens)
    if capacity < 1 or window < 1:
        raise InputError(f"capacity and window must be at least 1, got {capacity} and {window}")
    if order not in ("shuffle", "preserve") or overflow not in ("error", "drop"):
        raise InputError(
            "order must be shuffle or preserve and overflow error or drop, "
            f"got {order!r} and {overflow!r}"
        )
    too_long = np.flatnonzero(lengths > capacity)
    if len(too_long) and overflow == "error":
        first = int(too_long[0])
        raise InputError(
            f"seqlens[{first}] = {lengths[first]} does not fit a bin of {capacity} tokens "
            f"({len(too_long)} of {len(lengths)} do not; overflow='drop' leaves them out)"
        )
    kept = np.flatnonzero(lengths <= capacity)
    if order == "shuffle":
        kept = np.random.default_rng(seed).permutation(kept)
        windows = np.split(kept, range(window, len(kept), window))
    else:
        windows = [kept]
    return BinPlan(
        lengths, capacity, tuple(w for w in windows if len(w)), order, seed, len(too_long)
    )


def _checked_lengths(seqlens: Any) -> NDArray[np.int32]:
    lengths = np.asarray(seqlens)
    if lengths.ndim != 1 or len(lengths) == 0 or not np.issubdtype(lengths.dtype, np.integer):
        raise InputError(
            "seqlens must be a non-empty row of integers, "
            f"got {lengths.dtype} of shape {lengths.shape}"
        )
    if lengths.min() < 0 or lengths.max() > np.iinfo(np.int32).max:
        raise InputError(
            f"seqlens must lie in [0, 2**31 - 1], got {lengths.min()} to {lengths.max()}"
        )
    return lengths.astype(np.int32)
