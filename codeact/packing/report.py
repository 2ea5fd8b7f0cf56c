"""What a plan costs beside the alternatives, and when it is too good for a small set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codeact.ops.shuffle import shuffled
from codeact.packing.balance import sync_efficiency
from codeact.packing.bins import Bins, Int32Array
from codeact.packing.checks import check_number
from codeact.packing.orders import pack_micro_batches
from codeact.packing.seeds import derive_seed

if TYPE_CHECKING:
    from codeact.packing.plan import BinPlan

_FEW_UPDATES = 500  # below, a run has too few steps to warm up, learn and decay in


@dataclass(frozen=True)
class PackingReport:
    """A plan in numbers; bins and steps are those of epoch 0.

    Paddings are the share of token slots that hold no token: ``padding_packed`` of this plan's
    bins; ``padding_dynamic`` when micro-batches of ``batch_size`` random examples are padded to
    their longest; ``padding_max`` when each is padded to the capacity; ``padding_compat`` when the
    micro-batches are packed as CodeACT's released collator does (next fit, shortest first,
    arXiv:2408.02193) and padded to their longest row.

    Attributes:
        capacity: tokens a bin may hold.
        world_size: ranks that train together.
        num_examples: examples in bins, whole or in part.
        num_dropped: examples left out because they are too long.
        num_empty: examples left out because they have no token.
        num_cut: examples that lost tokens or were split.
        num_tokens: tokens in bins.
        num_lost_tokens: tokens that no bin holds, of dropped and of cut examples.
        num_bins: bins of an epoch.
        num_steps: steps of an epoch, a bin a rank.
        num_updates: optimizer steps of an epoch, of ``accumulation`` steps.
        num_updates_padded: the same of micro-batches of ``batch_size`` examples.
        fill: share of the bins' token slots that hold a token.
        batch_size: examples a rank of the padded comparison.
        accumulation: steps an optimizer step.
        sync_efficiency: mean cost of a rank over the highest of the step, by the plan's cost.
        length_variance_by_bin: eta squared, the share of the variance of sequence lengths that lies
            between bins; 0 where all bins mix alike, towards 1 where bins hold equal lengths.
        examples_per_bin_min: fewest sequences of a bin.
        examples_per_bin_mean: sequences of a bin on average.
        examples_per_bin_max: most sequences of a bin.
    """

    capacity: int
    world_size: int
    num_examples: int
    num_dropped: int
    num_empty: int
    num_cut: int
    num_tokens: int
    num_lost_tokens: int
    num_bins: int
    num_steps: int
    num_updates: int
    num_updates_padded: int
    fill: float
    batch_size: int
    accumulation: int
    padding_packed: float
    padding_dynamic: float
    padding_compat: float
    padding_max: float
    sync_efficiency: float
    length_variance_by_bin: float
    examples_per_bin_min: int
    examples_per_bin_mean: float
    examples_per_bin_max: int


def make_report(plan: BinPlan, *, batch_size: int, accumulation: int) -> PackingReport:
    """See :meth:`codeact.packing.BinPlan.report`."""
    check_number("batch_size", batch_size, 1, 2**31 - 1)
    check_number("accumulation", accumulation, 1, 2**31 - 1)
    bins = plan.epoch(0)
    seqlens = plan.packing.seqlens
    seqlens = seqlens if plan.packing.packed is None else seqlens[plan.packing.packed]
    mixed = seqlens[shuffled(len(seqlens), seed=derive_seed(plan.seed, "report"))]
    num_examples = len(plan.seqlens) - plan.num_dropped - plan.num_empty
    return PackingReport(
        capacity=plan.capacity,
        world_size=plan.world_size,
        num_examples=num_examples,
        num_dropped=plan.num_dropped,
        num_empty=plan.num_empty,
        num_cut=plan.num_cut,
        num_tokens=plan.num_tokens,
        num_lost_tokens=plan.num_lost_tokens,
        num_bins=plan.num_bins,
        num_steps=plan.num_steps,
        num_updates=plan.num_updates(accumulation),
        num_updates_padded=_num_updates_padded(plan, batch_size, accumulation),
        fill=plan.fill,
        batch_size=batch_size,
        accumulation=accumulation,
        padding_packed=1.0 - plan.fill,
        padding_dynamic=_padding(plan.num_tokens, dynamic_slots(mixed, batch_size)),
        padding_compat=_padding(plan.num_tokens, compat_slots(mixed, plan.capacity, batch_size)),
        padding_max=_padding(plan.num_tokens, len(seqlens) * plan.capacity),
        sync_efficiency=sync_efficiency(bins.costs(plan.costs), plan.world_size),
        length_variance_by_bin=length_variance_by_bin(bins),
        examples_per_bin_min=int(bins.num_spans.min()),
        examples_per_bin_mean=plan.num_packed / plan.num_bins,
        examples_per_bin_max=int(bins.num_spans.max()),
    )


def dynamic_slots(seqlens: Int32Array, batch_size: int) -> int:
    """Token slots of batches of consecutive sequences padded to their longest."""
    first = np.arange(0, len(seqlens), batch_size)
    return _padded_slots(np.maximum.reduceat(seqlens, first), first, len(seqlens))


def compat_slots(seqlens: Int32Array, capacity: int, batch_size: int) -> int:
    """Token slots of the authors' packing: rows padded to the longest of their micro-batch."""
    order, offsets, num_rows = pack_micro_batches(seqlens, capacity, batch_size)
    rows = np.add.reduceat(seqlens[order], offsets[:-1], dtype=np.int64)
    first = np.cumsum(num_rows) - num_rows
    return _padded_slots(np.maximum.reduceat(rows, first), first, len(rows))


def length_variance_by_bin(bins: Bins) -> float:
    """Eta squared of sequence lengths by bin; 0 where all lengths are equal."""
    lengths = bins.seqlens[bins.order].astype(np.float64)
    deviations = lengths - lengths.mean()
    total = float((deviations**2).sum())
    running = np.append(0.0, np.cumsum(deviations))
    by_bin = running[bins.stops] - running[bins.starts]
    return float((by_bin**2 / bins.num_spans).sum()) / total if total else 0.0


def warn_of_few_updates(
    plan: BinPlan, *, batch_size: int, accumulation: int, epochs: float
) -> str | None:
    """See :meth:`codeact.packing.BinPlan.update_warning`."""
    check_number("batch_size", batch_size, 1, 2**31 - 1)
    check_number("accumulation", accumulation, 1, 2**31 - 1)
    packed = int(np.ceil(plan.num_updates(accumulation) * epochs))
    padded = int(np.ceil(_num_updates_padded(plan, batch_size, accumulation) * epochs))
    if packed * 2 >= padded or packed >= _FEW_UPDATES:
        return None
    remedies = [*_remedies(plan, accumulation, plan.num_steps * epochs / padded), "more epochs"]
    return (
        f"packing leaves {packed} optimizer steps where padded batches of {batch_size} make "
        f"{padded}; to keep the steps: {' or '.join(remedies)}"
    )


def _remedies(plan: BinPlan, accumulation: int, steps_per_padded_update: float) -> list[str]:
    """What brings the optimizer steps back to what padding makes, as far as it goes."""
    fewer = max(1, int(steps_per_padded_update))
    words = [f"accumulation = {fewer} instead of {accumulation}"] if fewer < accumulation else []
    longest = int(plan.packing.seqlens.max())
    capacity = max(longest, int(plan.capacity * steps_per_padded_update))
    if steps_per_padded_update < 1 and capacity < plan.capacity:
        words.append(f"capacity = {capacity} instead of {plan.capacity}")
    return [" and ".join(words)] if words else []


def _num_updates_padded(plan: BinPlan, batch_size: int, accumulation: int) -> int:
    an_update = batch_size * accumulation * plan.world_size
    return -(-plan.num_packed // an_update)


def _padded_slots(longest: NDArray[Any], first: NDArray[np.int64], num_rows: int) -> int:
    """Sum over batches of rows times longest row; a batch ends where the next one starts."""
    rows = np.diff(np.append(first, num_rows))
    return int((longest.astype(np.int64) * rows).sum())


def _padding(num_tokens: int, num_slots: int) -> float:
    return 1.0 - num_tokens / num_slots
