"""Figures of the influence report, as plotly objects in the look of the run's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from codeact.pipeline.figures import DROPPED, INK, KEPT, log_ticks, new_figure
from codeact.pipeline.influence.words import short_names

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from codeact.scoring.influence.drift import RankAgreement

Array = np.ndarray[Any, Any]

HARMFUL = "#e0852a"
_COLOURS = (KEPT, "#3b82d0", "#8d6cc4", "#c2567a", "#5b9a3f", "#6b7a8f", HARMFUL)
# Ends of middle brightness and nothing between: numbers are legible on all of it in both themes.
_MUCH, _LITTLE, _OPPOSITE = "rgba(31,154,161,0.9)", "rgba(31,154,161,0.06)", "rgba(224,133,42,0.9)"
_NEITHER = "rgba(224,133,42,0.06)"
_BOTH_SIDES = [[0, _OPPOSITE], [0.5, _NEITHER], [0.5, _LITTLE], [1, _MUCH]]
_ONE_SIDE = [[0, _LITTLE], [1, _MUCH]]
_NUM_BINS = 40
_SHOWN = (0.005, 0.995)  # quantiles: influence has long tails, which the end bins hold
_MAX_POINTS = 3000  # an SVG scatter beyond this makes the page slow to open
_MOST_NUMBERS = 12  # rows of a matrix beyond which its cells have no room for numbers


def task_colours(tasks: Sequence[str]) -> dict[str, str]:
    """A colour for each task."""
    return {task: _COLOURS[place % len(_COLOURS)] for place, task in enumerate(tasks)}


def shown_range(values: Array) -> tuple[float, float]:
    """Where a figure of influence begins and ends: all but the outermost 1 % of the rows, and 0."""
    low, high = np.quantile(values, _SHOWN) if len(values) else (0.0, 0.0)
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    return (low, high) if high > low else (-1.0, 1.0)


def influence_histogram(values: Array, task: str) -> go.Figure:
    """Rows per bin of influence on one task, harmful ones in another colour; a bin ends at 0.

    Args:
        values: (num_scored,) finite; what lies outside :func:`shown_range` is in the end bins.
        task: its name.
    """
    import plotly.graph_objects as go

    low, high = shown_range(values)
    width = (high - low) / _NUM_BINS
    edges = width * np.arange(np.floor(low / width), np.ceil(high / width) + 1)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    centres = (edges[:-1] + edges[1:]) / 2
    bars = {"height": 290, "barmode": "stack", "bargap": 0.06}
    figure = new_figure(f"influence on {escape(task)}", "rows", **bars)
    for name, mask, colour in (
        ("harmful", centres < 0, HARMFUL),
        ("helpful", centres > 0, KEPT),
    ):
        figure.add_trace(
            go.Bar(
                x=centres[mask],
                y=counts[mask],
                name=name,
                marker_color=colour,
                hovertemplate=f"%{{x:.3g}}: %{{y}} {name} rows<extra></extra>",
            )
        )
    figure.add_vline(0, line={"color": INK, "width": 1.5, "dash": "dash"})
    return figure


def against(
    numbers: Array, influence: Array, ids: Sequence[str], title: str, *, log: bool = False
) -> go.Figure:
    """Influence against another number of the rows, with medians of its tenths as a line.

    Args:
        numbers: (num_scored,) finite.
        influence: (num_scored,) finite; axes leave out the outermost 1 %.
        ids: (num_scored,), shown on hover.
        title: of the number.
        log: whether its axis is logarithmic.
    """
    import plotly.graph_objects as go

    figure = new_figure(escape(title), "influence")
    if log:
        # All of 1, 2, 5, 10, ... has no room in half the page.
        ticks = [tick for tick in log_ticks(numbers) if str(tick)[0] == "1"]
        figure.update_xaxes(type="log", tickvals=ticks)
    low, high = shown_range(influence)
    figure.update_yaxes(range=[low - 0.05 * (high - low), high + 0.05 * (high - low)])
    shown = np.sort(np.random.default_rng(0).permutation(len(numbers))[:_MAX_POINTS])
    figure.add_trace(
        go.Scatter(
            x=numbers[shown],
            y=influence[shown],
            name="rows",
            mode="markers",
            marker={"color": DROPPED, "size": 5, "opacity": 0.6},
            text=[escape(ids[row]) for row in shown.tolist()],
            hovertemplate="%{text}<br>%{x:.4g}, influence %{y:.3g}<extra></extra>",
        )
    )
    tenths = np.array_split(np.argsort(numbers, kind="stable"), min(10, len(numbers)))
    figure.add_trace(
        go.Scatter(
            x=[float(np.median(numbers[rows])) for rows in tenths],
            y=[float(np.median(influence[rows])) for rows in tenths],
            name="median of each tenth",
            mode="lines+markers",
            line={"color": KEPT, "width": 2.5},
            hovertemplate="tenth around %{x:.4g}: median influence %{y:.3g}<extra></extra>",
        )
    )
    figure.add_hline(0, line={"color": INK, "width": 1, "dash": "dash"})
    return figure


def matrix(
    values: Array,
    names: Sequence[str],
    title: str,
    *,
    columns: Sequence[str] | None = None,
    hover: Sequence[Sequence[str]] | None = None,
    middle: float | None = 0.0,
) -> go.Figure:
    """A matrix with its numbers; the diagonal is empty where rows and columns are the same.

    Args:
        values: (num_names, num_columns); NaN is an empty cell.
        names: of the rows.
        title: above it.
        columns: names, those of the rows if None.
        hover: text of every cell.
        middle: the value without colour, between -1 and 1 apart from it; None colours 0 to 1.
    """
    import plotly.graph_objects as go

    shown = np.array(values, dtype=np.float64)
    if columns is None:
        np.fill_diagonal(shown, np.nan)
    figure = new_figure("", "", height=120 + max(34, 64 - 6 * len(names)) * len(names))
    reach = 1.0 if middle == 0 else 0.5
    texts = [["" if np.isnan(v) else f"{v:.2f}".replace("-", "−") for v in row] for row in shown]
    few = max(shown.shape) <= _MOST_NUMBERS
    figure.add_trace(
        go.Heatmap(
            z=shown,
            x=list(names if columns is None else columns),
            y=list(names),
            zmin=0 if middle is None else middle - reach,
            zmax=1 if middle is None else middle + reach,
            colorscale=_ONE_SIDE if middle is None else _BOTH_SIDES,
            showscale=False,
            text=texts,
            texttemplate="%{text}" if few else "",
            customdata=texts if hover is None else [list(row) for row in hover],
            hovertemplate="%{y}, %{x}: %{customdata}<extra></extra>",
            hoverongaps=False,
            xgap=2,
            ygap=2,
        )
    )
    figure.update_xaxes(ticks="", type="category")
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="", type="category")
    _set_title(figure, title, margin=36)
    return figure


def agreement_matrix(agreement: RankAgreement, title: str) -> go.Figure:
    """Rank correlations of every two columns, with their intervals on hover."""
    names = short_names(agreement.names)
    hover = [
        [
            f"ρ = {agreement.rho[i, j]:.3f}, 95 % interval {agreement.low[i, j]:.2f} to "
            f"{agreement.high[i, j]:.2f}, {agreement.num_pairs[i, j]:,} rows"
            for j in range(len(agreement.names))
        ]
        for i in range(len(agreement.names))
    ]
    return matrix(agreement.rho, names, title, hover=hover)


def drift_lines(agreements: Mapping[str, RankAgreement], title: str) -> go.Figure:
    """Rank correlation of each checkpoint with the first, a line a task, with 95 % intervals."""
    import plotly.graph_objects as go

    figure = new_figure("checkpoint", "Spearman ρ with the first", height=360)
    figure.update_xaxes(type="category")
    figure.update_yaxes(range=[-1.05, 1.05])
    colours = task_colours(list(agreements))
    for task, found in agreements.items():
        rho = found.rho[0]
        figure.add_trace(
            go.Scatter(
                x=short_names(found.names),
                y=rho,
                name=task,
                mode="lines+markers",
                line={"color": colours[task], "width": 2},
                error_y={
                    "type": "data",
                    "array": found.high[0] - rho,
                    "arrayminus": rho - found.low[0],
                    "thickness": 1.5,
                    "width": 4,
                },
                hovertemplate=f"{escape(task)}, %{{x}}: %{{y:.3f}}<extra></extra>",
            )
        )
    figure.add_hline(0, line={"color": INK, "width": 1, "dash": "dash"})
    _set_title(figure, title)
    return figure


def harm_lines(checkpoints: Sequence[str], shares: Mapping[str, Array], title: str) -> go.Figure:
    """Share of harmful rows at each checkpoint, a line a task."""
    import plotly.graph_objects as go

    figure = new_figure("checkpoint", "harmful, % of rows", height=360)
    figure.update_xaxes(type="category")
    figure.update_yaxes(rangemode="tozero")
    for (task, colour), values in zip(
        task_colours(list(shares)).items(), shares.values(), strict=True
    ):
        figure.add_trace(
            go.Scatter(
                x=short_names(checkpoints),
                y=100 * values,
                name=task,
                mode="lines+markers",
                line={"color": colour, "width": 2},
                hovertemplate=f"{escape(task)}, %{{x}}: %{{y:.1f}} %<extra></extra>",
            )
        )
    _set_title(figure, title)
    return figure


def check_scatter(fast: Array, exact: Array, task: str) -> go.Figure:
    """Exact one-step influence against the fast one, a point a row, with the line of equality."""
    import plotly.graph_objects as go

    figure = new_figure(f"fast influence on {escape(task)}", "exact, one real step")
    line = {"color": INK, "width": 1, "dash": "dash"}
    both = np.concatenate([fast, exact])
    ends = shown_range(both[np.isfinite(both)])
    figure.add_shape(type="line", x0=ends[0], y0=ends[0], x1=ends[1], y1=ends[1], line=line)
    figure.add_trace(
        go.Scatter(
            x=fast,
            y=exact,
            mode="markers",
            marker={"color": KEPT, "size": 7, "opacity": 0.75},
            hovertemplate="fast %{x:.4g}, exact %{y:.4g}<extra></extra>",
        )
    )
    return figure


def _set_title(figure: go.Figure, title: str, *, margin: int = 58) -> None:
    """A title of figures that stand side by side, above the legend if ``margin`` has room."""
    if title:
        place = {"x": 0, "xanchor": "left", "y": 0.99, "yanchor": "top"}
        figure.update_layout(title={"text": escape(title), "font": {"size": 13}, **place})
        figure.update_layout(margin_t=margin)
