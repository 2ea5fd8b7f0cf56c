"""Figures of the page of measured candidates, in the look of the other reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from codeact.pipeline.efficiency.axes import set_log_axis
from codeact.pipeline.figures import DROPPED, INK, KEPT, new_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from codeact.pipeline.efficiency.facts import Point

_COLOURS = (KEPT, "#3b82d0", "#e0852a", "#8d6cc4", "#c2567a", "#5b9a3f", "#6b7a8f")
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x")  # once the colours are used up
MAX_POINTS = 3000  # an SVG scatter beyond this makes the page slow to open
_NUM_BINS = 40
_LEAST_WIDTH = 0.005  # of a bin, in powers of ten: 1.2 %, what minima of five rounds vary by
_ONE_BY_ONE = 6  # bars up to this high have a tick for each task; plotly would write halves


def origin_marks(origins: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour and a symbol for each origin; 35 differ."""
    number = len(_COLOURS)
    return {
        name: (_COLOURS[place % number], _SYMBOLS[place // number % len(_SYMBOLS)])
        for place, name in enumerate(origins)
    }


def time_memory_scatter(points: Sequence[Point], origins: Sequence[str], beside: str) -> go.Figure:
    """CPU time against peak memory of every right answer, both relative to a yardstick.

    Args:
        points: Those beyond 3,000 are left out at random.
        origins: In the order of the legend.
        beside: What the yardstick is called, in the genitive.
    """
    import plotly.graph_objects as go

    figure = new_figure(f"CPU time / {beside}", f"peak memory / {beside}", height=440)
    kept = np.random.default_rng(0).permutation(len(points))[:MAX_POINTS]
    shown = [points[place] for place in sorted(kept.tolist())]
    marks = origin_marks(origins)
    for origin in origins:
        mine = [point for point in shown if point.record.origin == origin]
        if not mine:
            continue
        colour, symbol = marks[origin]
        figure.add_trace(
            go.Scatter(
                x=[point.time_ratio for point in mine],
                y=[point.memory_ratio for point in mine],
                name=escape(origin),
                showlegend=True,  # plotly leaves out a legend of one
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 6, "opacity": 0.6},
                text=[escape(point.record.task_id) for point in mine],
                hovertemplate="%{text}, %{fullData.name}<br>time × %{x:.3g}, "
                "memory × %{y:.4g}<extra></extra>",
            )
        )
    set_log_axis(figure, "x", [point.time_ratio for point in shown])
    set_log_axis(figure, "y", [point.memory_ratio for point in shown])
    figure.add_vline(1, line={"color": INK, "width": 1, "dash": "dash"})
    figure.add_hline(1, line={"color": INK, "width": 1, "dash": "dash"})
    return figure


def ratio_histogram(
    ratios: Mapping[str, Sequence[float]], title: str, counted: str = "tasks"
) -> go.Figure:
    """How often each ratio occurs, on a logarithmic axis; a line at 1.

    Args:
        ratios: Values above 0 by the name of what they are.
        title: Of the axis.
        counted: What a ratio is of, in the plural.
    """
    import plotly.graph_objects as go

    figure = new_figure(title, counted, barmode="overlay", bargap=0.04)
    logs = {name: np.log10(np.asarray(values)) for name, values in ratios.items() if len(values)}
    every = np.concatenate([*logs.values(), [0.0]])
    width = max(_LEAST_WIDTH, float(np.ptp(every)) / _NUM_BINS)
    # A ratio of 1 begins a bin: no bar stands on both sides of the line.
    first, last = np.floor(every.min() / width + 1e-9), np.floor(every.max() / width + 1e-9) + 1
    edges = np.arange(first, last + 0.5) * width
    tallest = 0
    for (name, values), colour in zip(logs.items(), _COLOURS, strict=False):
        places = np.floor(values / width + 1e-9).astype(int) - int(first)
        counts = np.bincount(places, minlength=len(edges) - 1)
        tallest = max(tallest, int(counts.max()))
        hover = [f"{low:.3g} to {high:.3g}" for low, high in zip(*_powers(edges), strict=True)]
        figure.add_trace(
            go.Bar(
                x=((edges[:-1] + edges[1:]) / 2).tolist(),
                y=counts.tolist(),
                width=width * 0.94,
                name=escape(name),
                showlegend=True,
                marker={"color": colour, "opacity": 0.65},
                customdata=hover,
                hovertemplate=f"× %{{customdata}}: %{{y}} {counted}<extra></extra>",
            )
        )
    set_log_axis(figure, "x", (10**edges).tolist(), of_logs=True)
    if tallest <= _ONE_BY_ONE:
        figure.update_yaxes(dtick=1)
    figure.add_vline(0, line={"color": INK, "width": 1.5, "dash": "dash"})
    return figure


def again_scatter(race: Sequence[float], fresh: Sequence[float], ids: Sequence[str]) -> go.Figure:
    """Slowest / chosen of each pair in the race and measured again; below the line it shrank.

    Args:
        race: Ratios of CPU times.
        fresh: The same pairs.
        ids: Their tasks.
    """
    import plotly.graph_objects as go

    figure = new_figure("slowest / chosen in the race", "measured again", height=400)
    figure.add_trace(
        go.Scatter(
            x=list(race),
            y=list(fresh),
            name="pair",
            mode="markers",
            marker={"color": KEPT, "size": 6, "opacity": 0.6},
            text=[escape(name) for name in ids],
            hovertemplate="%{text}<br>race × %{x:.3g}, again × %{y:.3g}<extra></extra>",
        )
    )
    ends = [1.0, max([*race, *fresh])]
    line = {"color": DROPPED, "dash": "dash"}
    figure.add_trace(
        go.Scatter(x=ends, y=ends, name="no change", mode="lines", line=line, hoverinfo="skip")
    )
    for axis in ("x", "y"):
        set_log_axis(figure, axis, [*race, *fresh])
    return figure


def _powers(edges: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[list[float], list[float]]:
    """Both ends of each bin as ratios."""
    ends: list[float] = (10**edges).tolist()
    return ends[:-1], ends[1:]
