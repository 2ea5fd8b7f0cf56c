"""The report's figures, as plotly objects.

Backgrounds are transparent and every mark has a middle brightness, so that one figure is legible
on white, on black and on paper; the page's style sheet colours text and grid lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from codeact.pipeline.score_words import ScoreWords

Array = np.ndarray[Any, Any]

KEPT, DROPPED, INK = "#1f9aa1", "#98a2ae", "#8791a0"
ARM_COLOURS = {"base": INK, "full": INK, "selected": "#3b82d0", "random": "#e0852a"}
_MAX_POINTS = 4000  # an SVG scatter beyond this makes the page slow to open
SHOWN_CAPS = 1.5  # times the cap; what lies above stands in the last bin
_NUM_BINS = 40
SMOOTHED_FROM = 30  # steps; a shorter curve is readable as it is


def score_histogram(scores: Array, kept: Array | None, words: ScoreWords) -> go.Figure:
    """Kept and dropped rows per bin of a score, stacked, with a line at its cap.

    Args:
        scores: (num_scored,) finite scores.
        kept: (num_scored,) bool; None before anything is selected.
        words: Name and cap of the score.
    """
    import plotly.graph_objects as go

    edges = _score_edges(scores, words.cap)
    centres, half = (edges[:-1] + edges[1:]) / 2, (edges[1] - edges[0]) / 2
    figure = new_figure(words.name, "rows", barmode="stack", bargap=0.06)
    for name, mask, colour in _groups(kept, len(scores)):
        counts, _ = np.histogram(np.clip(scores[mask], edges[0], edges[-1] - half), edges)
        hover = f"{words.name} %{{x:.2f}}: %{{y}} {name}<extra></extra>"
        figure.add_trace(
            go.Bar(x=centres, y=counts, name=name, marker_color=colour, hovertemplate=hover)
        )
    if words.cap is not None:
        figure.add_vline(words.cap, line={"color": INK, "width": 1.5, "dash": "dash"})
        place = {"y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False}
        figure.add_annotation(x=words.cap, text=words.cap_label, **place)
    return figure


def _score_edges(scores: Array, cap: float | None) -> Array:
    """Bins from 0 past the cap for a ratio, over the range of the values for other scores."""
    if cap is None:
        low, high = float(scores.min(initial=0)), float(scores.max(initial=0))
        return np.linspace(low, high if high > low else low + 1, _NUM_BINS + 1)
    most = float(scores.max(initial=0))
    top = SHOWN_CAPS * cap if most > SHOWN_CAPS * cap else max(1.05 * cap, most)
    width = (0.025 if len(scores) > 200 else 0.05) * cap
    return np.arange(0, top + width, width)


def length_scatter(
    num_tokens: Array, scores: Array, kept: Array | None, ids: Sequence[str], words: ScoreWords
) -> go.Figure:
    """A score against answer length (log axis), kept and dropped; at most 4,000 points are drawn.

    Args:
        num_tokens: (num_scored,) answer lengths.
        scores: (num_scored,) finite scores.
        kept: (num_scored,) bool; None before anything is selected.
        ids: (num_scored,) row ids, shown on hover.
        words: Name and cap of the score.
    """
    import plotly.graph_objects as go

    figure = new_figure("answer length (tokens)", words.name)
    figure.update_xaxes(type="log", tickvals=log_ticks(num_tokens))
    shown = np.zeros(len(scores), dtype=bool)
    shown[np.random.default_rng(0).permutation(len(scores))[:_MAX_POINTS]] = True
    hover = f"%{{text}}<br>%{{x}} tokens, {words.name} %{{y:.3f}}<extra></extra>"
    for name, mask, colour in _groups(kept, len(scores)):
        rows = np.flatnonzero(mask & shown)
        figure.add_trace(
            go.Scatter(
                x=num_tokens[rows],
                y=scores[rows],
                name=name,
                mode="markers",
                marker={"color": colour, "size": 6, "opacity": 0.8},
                text=[escape(ids[row]) for row in rows.tolist()],
                hovertemplate=hover,
            )
        )
    if words.cap is not None:
        figure.add_hline(words.cap, line={"color": INK, "width": 1.5, "dash": "dash"})
    return figure


def cluster_bars(cluster: Array, kept: Array) -> go.Figure:
    """Kept and dropped rows of each cluster, stacked; a row in no cluster (−1) is under "none"."""
    import plotly.graph_objects as go

    labels = np.unique(cluster)
    names = ["none" if label < 0 else str(label) for label in labels]
    figure = new_figure("cluster", "rows", barmode="stack", bargap=0.25)
    figure.update_xaxes(type="category")
    for name, mask, colour in _groups(kept, len(kept)):
        counts = [int(np.sum(mask & (cluster == label))) for label in labels]
        hover = "cluster %{x}: %{y} " + name + "<extra></extra>"
        figure.add_trace(
            go.Bar(x=names, y=counts, name=name, marker_color=colour, hovertemplate=hover)
        )
    return figure


def padding_bars(arms: Mapping[str, Mapping[str, float]], names: Mapping[str, str]) -> go.Figure:
    """Share of token slots that hold padding, per arm and way of batching; from packing.json.

    ``names`` are those of the arms, for a reader.
    """
    import plotly.graph_objects as go

    ways = {
        "padding_max": ("padded to capacity", "#b9c1ca"),
        "padding_dynamic": ("padded to longest in batch", "#7f8a97"),
        "padding_packed": ("packed", KEPT),
    }
    figure = new_figure("", "padding, % of token slots", barmode="group", bargap=0.25)
    for key, (name, colour) in ways.items():
        shares = [100 * arm[key] for arm in arms.values()]
        figure.add_trace(
            go.Bar(
                x=[names[arm] for arm in arms],
                y=shares,
                name=name,
                marker_color=colour,
                text=[f"{share:.1f}" for share in shares],
                textposition="outside",
                cliponaxis=False,
                hovertemplate="%{x}, " + name + ": %{y:.2f} %<extra></extra>",
            )
        )
    figure.update_yaxes(range=[0, 105])
    return figure


def loss_curves(
    logs: Mapping[str, Sequence[Mapping[str, Any]]], names: Mapping[str, str]
) -> go.Figure:
    """Training loss per optimizer step of each arm; long runs get a moving mean on top."""
    import plotly.graph_objects as go

    figure = new_figure("optimizer step", "loss (nats per token)")
    for arm, log in logs.items():
        steps = [row["step"] for row in log]
        losses = np.array([row["loss"] for row in log], dtype=float)
        smoothed = len(log) >= SMOOTHED_FROM
        line = {"color": ARM_COLOURS.get(arm, INK), "width": 2}
        common = {"x": steps, "mode": "lines", "legendgroup": arm}
        name = names[arm]
        if smoothed:
            faint = {**line, "width": 1}
            figure.add_trace(
                go.Scatter(
                    y=losses, line=faint, opacity=0.4, showlegend=False, hoverinfo="skip", **common
                )
            )
        hover = name + ", step %{x}: %{y:.3f}<extra></extra>"
        mean = _moving_mean(losses, len(log) // 10) if smoothed else losses
        figure.add_trace(go.Scatter(y=mean, line=line, name=name, hovertemplate=hover, **common))
    return figure


def _groups(kept: Array | None, num_rows: int) -> list[tuple[str, Array, str]]:
    """Name, mask and colour of both halves of a selection; of all rows before there is one."""
    if kept is None:
        return [("scored", np.ones(num_rows, dtype=bool), KEPT)]
    return [("kept", kept, KEPT), ("dropped", ~kept, DROPPED)]


def _moving_mean(values: Array, width: int) -> Array:
    """Mean of the last ``width`` values at each step, of fewer at the start."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    means: Array = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def log_ticks(values: Array) -> list[int]:
    """1, 2, 5, 10, … over the range of ``values``: plotly's own labels say 2 for 200."""
    top = max(1, values.max(initial=1))
    ticks = [step * 10**power for power in range(9) for step in (1, 2, 5)]
    return [tick for tick in ticks if values.min(initial=top) / 2 <= tick <= 2 * top]


def new_figure(x_title: str, y_title: str, **layout: Any) -> go.Figure:
    """An empty figure in the report's look."""
    import plotly.graph_objects as go

    title = {"standoff": 8, "font": {"size": 13}}
    axis = {"gridcolor": "rgba(135,145,160,0.22)", "zeroline": False, "automargin": True}
    return go.Figure(
        layout={
            "template": "none",
            "height": 340,
            "margin": {"l": 52, "r": 12, "t": 34, "b": 46},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
            "legend": {
                "orientation": "h",
                "traceorder": "normal",
                "x": 0,
                "xanchor": "left",
                "y": 1.02,
                "yanchor": "bottom",
            },
            "hovermode": "closest",
            "xaxis": {**axis, "title": {"text": x_title, **title}, "showgrid": False},
            "yaxis": {**axis, "title": {"text": y_title, **title}},
            **layout,
        }
    )
