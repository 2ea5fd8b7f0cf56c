"""Logarithmic axes with labels that say 0.5, 1, 2: plotly's own are bare digits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go

_MOST_TICKS = 8
_FEW_TICKS = 4  # fewer would leave a reader to guess what lies between
_STEPS = ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))  # within a power of ten, finest first
_MARGIN = 0.05  # of the range, on both sides
_LEAST_RANGE = math.log10(1.02)


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``, about as far apart as a reader needs.

    Args:
        low: Above 0.
        high: At least ``low``.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in _STEPS:
        ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) < _FEW_TICKS:
            break  # coarser steps have no more
        if len(ticks) <= _MOST_TICKS:
            return ticks
    else:
        every = math.ceil(len(ticks) / _MOST_TICKS)  # of the powers, counted from 1
        return [tick for tick in ticks if round(math.log10(tick)) % every == 0]
    return _even_ticks(low, high)


def _even_ticks(low: float, high: float) -> list[float]:
    """The same steps all the way: over a short range a logarithm is nearly straight."""
    power = 10.0 ** math.floor(math.log10((high - low) or low))
    for step in (power / 10, power / 5, power / 4, power / 2, power, 2 * power, 5 * power):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < _MOST_TICKS:
            return [number * step for number in range(max(1, first), last + 1)]
    return [low]


def set_log_axis(
    figure: go.Figure, axis: str, values: Sequence[float], *, of_logs: bool = False
) -> None:
    """A logarithmic axis that holds ``values`` and, as ratios have it, 1.

    Args:
        figure: To change.
        axis: ``"x"`` or ``"y"``.
        values: Above 0.
        of_logs: The figure is of logarithms already, as bars of equal width need.
    """
    low, high = (math.log10(end([*values, 1.0])) for end in (min, max))
    lack = max(0.0, _LEAST_RANGE - (high - low)) / 2
    pad = lack + _MARGIN * (high - low + 2 * lack)
    ends = [low - pad, high + pad]
    ticks = log_ticks(10 ** ends[0], 10 ** ends[1])
    update = figure.update_xaxes if axis == "x" else figure.update_yaxes
    update(
        type="linear" if of_logs else "log",
        range=ends,
        tickvals=[math.log10(tick) for tick in ticks] if of_logs else ticks,
        ticktext=[f"{tick:.4g}" if tick < 1e4 else f"{tick:,.0f}" for tick in ticks],
    )
