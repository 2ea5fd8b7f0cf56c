"""What a training will cost and what it cost, as a paragraph each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codeact.packing import BinPlan
    from codeact.training import TrainConfig
    from codeact.training.cost.forecast import Forecast
    from codeact.training.cost.spending import Saving, Spending

_GIB = 1024.0


def before_words(
    found: Forecast, plan: BinPlan, config: TrainConfig, *, rows: Mapping[str, int], device: str
) -> str:
    """Rows by status, steps, tokens, padding, and the predicted time and memory."""
    from codeact.training.out_of_memory import remedies

    ranks = f" on each of {plan.world_size} ranks" if plan.world_size > 1 else ""
    num_bins = min(found.accumulation, plan.num_steps)  # an epoch may have fewer
    words = (
        f"before: {_counts(rows)}; {found.num_steps} {_plural('step', found.num_steps)} of "
        f"{num_bins} {_plural('bin', num_bins)}{ranks}, "
        f"{found.num_tokens:,} tokens, {found.padding:.1%} padding; predicted "
        f"{duration(found.seconds)} and {_gib(found.peak_mib)} of the {_gib(found.device_mib)} "
        f"that {device} has"
    )
    if found.fits:
        return words
    helps = remedies(config, plan, on_gpu=device.startswith("cuda"))
    return f"{words}, which is too little; what helps, most first: {'; '.join(helps)}"


def after_words(spent: Spending) -> str:
    """Speed, utilisation, memory, padding, and the savings."""
    timed_here = spent.peak_source.startswith("a ")
    utilisation = (
        f"{spent.mfu:.1%} of the speed of {spent.peak_source}"
        if timed_here
        else f"MFU {spent.mfu:.1%} (of {spent.peak_source})"
    )
    words = [
        f"after: {spent.num_tokens:,} tokens in {duration(spent.seconds)}, "
        f"{spent.tokens_per_second:,.0f} tokens/s, {utilisation}, peak {_gib(spent.peak_mib)}, "
        f"{spent.padding:.1%} padding",
        _saved(spent.saved_by_packing, f"padded batches of {spent.batch_size}"),
    ]
    if spent.saved_by_selection is not None:
        words.append(_saved(spent.saved_by_selection, "the full set"))
    if spent.saved_in_all is not None:
        words.append(_saved(spent.saved_in_all, "the full set in padded batches"))
    return "; ".join(words)


def duration(seconds: float) -> str:
    """Such as ``8.3 s``, ``4 min 10 s`` or ``2 h 05 min``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def _saved(saving: Saving, other: str) -> str:
    if saving.share < 0:
        return f"{duration(-saving.seconds)} more than {other}"
    return f"saved {duration(saving.seconds)} ({saving.share:.0%}) against {other}"


def _counts(rows: Mapping[str, int]) -> str:
    total = sum(rows.values())
    kinds = ", ".join(f"{count} {name}" for name, count in rows.items())
    return f"{total} {_plural('row', total)} ({kinds})"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _gib(mib: float) -> str:
    return f"{mib / _GIB:.1f} GiB" if mib >= _GIB else f"{mib:.0f} MiB"
