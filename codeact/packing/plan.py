"""Which sequences share a bin, decided before training starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.packing.balance import Cost, deal, exact_costs
from codeact.packing.bins import Bins, Costs, Int32Array
from codeact.packing.checks import check_choice, check_number, checked_lengths, checked_prompts
from codeact.packing.orders import ORDERS, EpochPacking, Order
from codeact.packing.report import PackingReport, make_report, warn_of_few_updates
from codeact.packing.seeds import derive_seed
from codeact.packing.spans import OVERFLOWS, Overflow, Spans, cut_spans

_MAX_INT32 = np.iinfo(np.int32).max
_DEFAULT_WINDOWS = {"shuffle": 4096, "compat": 16}


@dataclass(frozen=True, eq=False)
class BinPlan:
    """Bins of every epoch: a function of the arguments alone, so the same on every rank.

    Every epoch has ``num_bins`` bins, and every packed span is in exactly one of them. Bins hold
    numbers of spans, which are numbers of examples unless ``overflow="split"`` cut some.

    Attributes:
        seqlens: (num_examples,) int32 as given.
        capacity, order, window, overflow, seed, world_size, cost: see :func:`plan_bins`.
        spans: what the numbers in the bins stand for.
        num_dropped: examples left out because they are too long.
        num_empty: examples left out because they have no token.
        num_cut: examples that lost tokens or were split.
        num_lost_tokens: tokens of dropped and cut examples that no bin holds.
    """

    seqlens: Int32Array
    capacity: int
    order: Order
    window: int | None
    overflow: Overflow
    seed: int
    world_size: int
    cost: Cost | None
    spans: Spans
    num_dropped: int
    num_empty: int
    num_cut: int
    num_lost_tokens: int
    packing: EpochPacking = field(repr=False)
    _epochs: dict[int, Bins] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def num_bins(self) -> int:
        """Bins of an epoch, the same for every epoch and a multiple of ``world_size``."""
        return self._whole_steps(self.packing.num_bins)

    @property
    def num_steps(self) -> int:
        """Steps of an epoch; in each, every rank takes one bin."""
        return self.num_bins // self.world_size

    def num_updates(self, accumulation: int = 1) -> int:
        """Optimizer steps of an epoch when each takes ``accumulation`` steps.

        Raises:
            InputError: ``accumulation`` is below 1.
        """
        check_number("accumulation", accumulation, 1, _MAX_INT32)
        return -(-self.num_steps // accumulation)

    @property
    def num_packed(self) -> int:
        """Spans that go into bins; fillers do not count."""
        return self.packing.num_packed

    @cached_property
    def max_num_seqs(self) -> int:
        """Sequences that no bin of any epoch has more of: so many of the shortest fit in one."""
        return self.packing.max_num_seqs()

    @cached_property
    def num_tokens(self) -> int:
        """Tokens an epoch sees; those of fillers do not count."""
        return int(self.seqlens.sum(dtype=np.int64)) - self.num_lost_tokens

    @property
    def fill(self) -> float:
        """The share of token slots that hold a token."""
        return self.num_tokens / (self.num_bins * self.capacity)

    @cached_property
    def costs(self) -> Costs:
        """``cost`` in whole units."""
        return exact_costs(self.cost, self.packing.seqlens)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides the bins except ``world_size``."""
        options = [1, self.capacity, self.order, self.window, self.overflow, self.seed]
        arrays: list[NDArray[Any]] = [self.seqlens]
        if self.packing.packed is not None:
            arrays.append(self.packing.packed)
        if self.cost is not None:
            arrays.append(self.costs(np.unique(self.packing.seqlens)))
        digest = blake2b(json.dumps(options).encode(), digest_size=16)
        for array in arrays:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def epoch(self, epoch: int) -> Bins:
        """The bins of one epoch in training order; those of the last epoch asked for are kept.

        Raises:
            InputError: ``epoch`` is negative.
        """
        if epoch < 0:
            raise InputError(f"epoch must be at least 0, got {epoch}")
        bins = self._epochs.get(epoch)
        if bins is None:
            self._epochs.clear()
            bins = self._deal(self.packing.pack(epoch), self.num_bins, "epoch", epoch)
            self._epochs[epoch] = bins
        return bins

    def for_world_size(self, world_size: int) -> BinPlan:
        """The plan of the same arguments for another number of ranks; packing is shared.

        Raises:
            InputError: ``world_size`` is below 1.
        """
        check_number("world_size", world_size, 1, _MAX_INT32)
        if world_size == self.world_size:
            return self
        return replace(
            self, world_size=world_size, spans=_spans_for(self.packing, self.spans, world_size)
        )

    def deal_rest(self, bins: Bins, epoch: int, part: int) -> Bins:
        """Deal what another number of ranks left of an epoch.

        Args:
            bins: as a plan of the same fingerprint dealt them; fillers among them are left out.
            epoch: that they are of.
            part: counts the changes of the number of ranks in this epoch, from 1.
        """
        rest = bins.take(bins.order[bins.starts] < len(self.packing.seqlens))
        return self._deal(rest, self._whole_steps(len(rest)), f"part {part}", epoch)

    def _deal(self, bins: Bins, num_bins: int, name: str, epoch: int) -> Bins:
        seed = derive_seed(self.seed, name) if self.order == "shuffle" else None
        return deal(
            bins, num_bins, self.world_size, costs=self.costs, spans=self.spans,
            seed=seed, epoch=epoch,
        )  # fmt: skip

    def _whole_steps(self, num_bins: int) -> int:
        return -(-num_bins // self.world_size) * self.world_size

    def samples_per_step(self, epoch: int = 0) -> NDArray[np.int64]:
        """(num_steps,) int64, spans that each step sees over all ranks; fillers do not count."""
        bins = self.epoch(epoch)
        num_spans = bins.num_spans
        if self.spans.filler is not None:
            num_spans = num_spans * (bins.order[bins.starts] != self.spans.filler)
        samples: NDArray[np.int64] = num_spans.reshape(-1, self.world_size).sum(axis=1)
        return samples

    def report(self, *, batch_size: int = 8, accumulation: int = 1) -> PackingReport:
        """This plan beside padded batches of ``batch_size`` examples a rank.

        Raises:
            InputError: ``batch_size`` or ``accumulation`` is below 1.
        """
        return make_report(self, batch_size=batch_size, accumulation=accumulation)

    def update_warning(
        self, *, batch_size: int, accumulation: int = 1, epochs: float = 1.0
    ) -> str | None:
        """A sentence where packing leaves too few optimizer steps to learn from, else None.

        That is where it makes fewer than half the steps that padded batches of ``batch_size``
        examples a rank would make, and fewer than 500 in all. It says what keeps the steps.

        Raises:
            InputError: ``batch_size`` or ``accumulation`` is below 1.
        """
        return warn_of_few_updates(
            self, batch_size=batch_size, accumulation=accumulation, epochs=epochs
        )


def plan_bins(
    seqlens: ArrayLike | Sequence[int],
    capacity: int,
    *,
    order: Order = "shuffle",
    window: int | Literal["auto"] | None = "auto",
    overflow: Overflow = "error",
    prompt_seqlens: ArrayLike | None = None,
    seed: int = 0,
    world_size: int = 1,
    cost: Cost | None = None,
) -> BinPlan:
    """Plan Dynamic Pack: every sequence in one bin of at most ``capacity`` tokens.

    CodeACT (arXiv:2408.02193) packs only inside a micro-batch and by next fit; here a window of
    thousands of shuffled examples is packed best-fit decreasing, and bins that stay unfilled move
    on to the next window, which leaves almost nothing empty and still mixes the data.

    Every epoch has the same number of bins: as many as best fit decreasing of the whole set or the
    first epoch needs, whichever is more (and one for each 65536 to spare), rounded up to whole
    steps. An epoch that packs tighter gets its costliest bins split; one that packs worse is packed
    again with a larger last window.

    Args:
        seqlens: (num_examples,) integers, tokens of each example.
        capacity: tokens a bin may hold.
        order: ``"shuffle"`` packs best fit in windows of a stream shuffled anew every epoch, and
            gives the ranks of a step bins of like cost. ``"preserve"`` fills bins in the given
            order (next fit), the same every epoch. ``"compat"`` is the authors' packing: examples
            of a micro-batch sorted ascending, next fit; micro-batches are fixed by the seed and
            come in another order every epoch.
        window: sequences packed together under ``"shuffle"``, 4096 by default and None for all at
            once; size of a micro-batch under ``"compat"``, 16 by default.
        overflow: what happens to an example above the capacity. ``"error"`` refuses; ``"drop"``
            leaves it out; ``"truncate_prompt_left"`` cuts the start of its prompt, or leaves it out
            where the rest and one token of the prompt do not fit; ``"truncate"`` cuts its end;
            ``"split"`` makes pieces of ``capacity`` tokens, the last one shorter.
        prompt_seqlens: (num_examples,) integers, tokens before the first that carries a loss; for
            ``"truncate_prompt_left"``.
        seed: of the shuffles, from 0 to 2**64 - 1.
        world_size: ranks that train together.
        cost: forward cost of sequences, as of :class:`ModelCost`; it gives the ranks of a step like
            work. Only ratios matter. None takes the tokens. Every rank must pass the same.

    Raises:
        InputError: an option out of range, lengths that are not a row of non-negative integers,
            an example above the capacity under ``"error"``, or fewer sequences than ranks.
    """
    lengths = checked_lengths("seqlens", seqlens)
    window = _DEFAULT_WINDOWS.get(order) if window == "auto" else window
    check_choice("order", order, ORDERS)
    check_choice("overflow", overflow, OVERFLOWS)
    check_number("capacity", capacity, 1, _MAX_INT32)
    check_number("window", 1 if window is None else window, 1, _MAX_INT32)
    check_number("world_size", world_size, 1, _MAX_INT32)
    check_number("seed", seed, 0, 2**64 - 1)
    prompts = checked_prompts(prompt_seqlens, lengths, overflow)
    cut = cut_spans(lengths, int(capacity), overflow, prompts)
    packing = EpochPacking(
        cut.spans.seqlens, cut.packed, capacity=int(capacity), order=order,
        window=None if window is None else int(window), seed=int(seed),
    )  # fmt: skip
    if packing.num_packed < world_size:
        raise InputError(
            f"every rank needs a sequence, got {packing.num_packed} sequences for world_size = "
            f"{world_size} ({cut.num_empty} examples have no token, {cut.num_dropped} were dropped)"
        )
    return BinPlan(
        seqlens=lengths,
        capacity=packing.capacity,
        order=order,
        window=packing.window,
        overflow=overflow,
        seed=packing.seed,
        world_size=int(world_size),
        cost=cost,
        spans=_spans_for(packing, cut.spans, world_size),
        num_dropped=cut.num_dropped,
        num_empty=cut.num_empty,
        num_cut=cut.num_cut,
        num_lost_tokens=cut.num_lost_tokens,
        packing=packing,
    )


def _spans_for(packing: EpochPacking, spans: Spans, world_size: int) -> Spans:
    """With a filler where ranks may run out of sequences."""
    if world_size == 1:
        return spans.without_filler()
    if spans.filler is not None:
        return spans
    first = 0 if packing.packed is None else int(packing.packed[0])
    return spans.with_filler(int(spans.locate(np.array([first]))[0][0]))
