"""Figures of the page of measured candidates, in the look of the other reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from codeact.pipeline.figures import DROPPED, INK, KEPT, new_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from codeact.pipeline.efficiency.facts import Point

_COLOURS = (KEPT, "#3b82d0", "#e0852a", "#8d6cc4", "#c2567a", "#5b9a3f", "#6b7a8f")
_MAX_POINTS = 3000  # an SVG scatter beyond this makes the page slow to open
_NUM_BINS = 40
_TICKS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
_POWERS = [tick for tick in _TICKS if str(tick).strip("0.").startswith("1")]


def origin_colours(origins: Sequence[str]) -> dict[str, str]:
    """A colour for each origin."""
    return {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(origins)}


def time_memory_scatter(points: Sequence[Point], origins: Sequence[str], beside: str) -> go.Figure:
    """CPU time against peak memory of every correct candidate, both relative to a yardstick.

    Args:
        points: Those beyond 3,000 are left out at random.
        origins: In the order of the legend.
        beside: What the yardstick is called.
    """
    import plotly.graph_objects as go

    figure = new_figure(f"CPU time / {beside}'s", f"peak memory / {beside}'s", height=440)
    kept = np.random.default_rng(0).permutation(len(points))[:_MAX_POINTS]
    shown = [points[place] for place in sorted(kept.tolist())]
    colours = origin_colours(origins)
    for origin in origins:
        mine = [point for point in shown if point.record.origin == origin]
        if not mine:
            continue
        figure.add_trace(
            go.Scatter(
                x=[point.time_ratio for point in mine],
                y=[point.memory_ratio for point in mine],
                name=escape(origin),
                mode="markers",
                marker={"color": colours[origin], "size": 6, "opacity": 0.6},
                text=[escape(point.record.task_id) for point in mine],
                hovertemplate=f"%{{text}}, {escape(origin)}<br>time × %{{x:.3g}}, memory × "
                "%{y:.3g}<extra></extra>",
            )
        )
    _log_axis(figure, "x", [point.time_ratio for point in shown])
    _log_axis(figure, "y", [point.memory_ratio for point in shown])
    figure.add_vline(1, line={"color": INK, "width": 1, "dash": "dash"})
    figure.add_hline(1, line={"color": INK, "width": 1, "dash": "dash"})
    return figure


def ratio_histogram(ratios: Mapping[str, Sequence[float]], title: str) -> go.Figure:
    """How often each ratio occurs, on a logarithmic axis; a line at 1.

    Args:
        ratios: Values above 0 by the name of what they are.
        title: Of the axis.
    """
    import plotly.graph_objects as go

    figure = new_figure(title, "tasks", barmode="overlay", bargap=0.04)
    logs = {name: np.log10(np.asarray(values)) for name, values in ratios.items() if len(values)}
    every = np.concatenate([*logs.values(), [0.0]])
    edges = np.linspace(every.min() - 1e-9, max(every.max(), every.min() + 0.01), _NUM_BINS + 1)
    for (name, values), colour in zip(logs.items(), _COLOURS, strict=False):
        counts, _ = np.histogram(values, edges)
        centres = (edges[:-1] + edges[1:]) / 2
        figure.add_trace(
            go.Bar(
                x=centres,
                y=counts,
                width=float(edges[1] - edges[0]) * 0.94,
                name=escape(name),
                marker={"color": colour, "opacity": 0.65},
                customdata=10**centres,
                hovertemplate="× %{customdata:.2f}: %{y} tasks<extra></extra>",
            )
        )
    ticks = [tick for tick in _TICKS if every.min() - 0.1 <= np.log10(tick) <= every.max() + 0.1]
    figure.update_xaxes(tickvals=np.log10(ticks).tolist(), ticktext=[f"{tick:g}" for tick in ticks])
    figure.add_vline(0, line={"color": INK, "width": 1.5, "dash": "dash"})
    return figure


def again_scatter(race_gaps: Sequence[float], fresh_gaps: Sequence[float]) -> go.Figure:
    """Gap of each pair in the race and when measured again; below the line it shrank."""
    import plotly.graph_objects as go

    figure = new_figure("slowest / chosen in the race", "measured afresh", height=380)
    x, y = [1 + gap for gap in race_gaps], [1 + gap for gap in fresh_gaps]
    figure.add_trace(
        go.Scatter(
            x=x,
            y=y,
            name="pairs",
            mode="markers",
            marker={"color": KEPT, "size": 6, "opacity": 0.6},
            hovertemplate="race × %{x:.3g}, afresh × %{y:.3g}<extra></extra>",
        )
    )
    ends = [min(x + y), max(x + y)]
    figure.add_trace(
        go.Scatter(
            x=ends, y=ends, name="equal", mode="lines", line={"color": DROPPED, "dash": "dash"}
        )
    )
    _log_axis(figure, "x", x)
    _log_axis(figure, "y", y)
    return figure


def _log_axis(figure: go.Figure, axis: str, values: Sequence[float]) -> None:
    """Logarithmic, with labels that say 0.5, 1, 2: plotly's own are bare digits."""
    low, high = min(values, default=1.0), max(values, default=1.0)
    ticks: Sequence[Any] = [tick for tick in _TICKS if low / 1.5 <= tick <= high * 1.5]
    if len(ticks) > 9:
        ticks = [tick for tick in _POWERS if low / 1.5 <= tick <= high * 1.5]
    update = figure.update_xaxes if axis == "x" else figure.update_yaxes
    update(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
