"""Figures of the selection report, as plotly objects in the look of the run's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from codeact.pipeline.figures import DROPPED, INK, KEPT, new_figure
from codeact.pipeline.selection_arms import LENGTH_MATCHED, RANDOM

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from codeact.pipeline.selection_map import RowMap
    from codeact.selection.summary import GroupCounts

Array = np.ndarray[Any, Any]

# Of middle brightness, so that they stand out on white, on black and beside the grey of dropped.
_CONTROLS = {RANDOM: "#e0852a", LENGTH_MATCHED: "#b59a6d"}
_COMPARED = ("#3b82d0", "#8d6cc4", "#c2567a", "#5b9a3f", "#6b7a8f")
_HOVER_WIDTH, _HOVER_LINES = 60, 5
_LONG_NAME = 9  # characters under a bar that stand straight where there are many bars


def arm_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each arm: that of kept rows for the selection, orange and sand for random."""
    others = [name for name in names[1:] if name not in _CONTROLS]
    colours = {name: _COMPARED[i % len(_COMPARED)] for i, name in enumerate(others)}
    return {**_CONTROLS, **colours, names[0]: KEPT}


def share_bars(counts: GroupCounts, x_title: str) -> go.Figure:
    """The share of each group that each arm kept, bars side by side."""
    import plotly.graph_objects as go

    figure = new_figure(x_title, "kept, % of the group", barmode="group", bargap=0.28)
    angle = -35 if len(counts.groups) > 6 and max(map(len, counts.groups)) > _LONG_NAME else 0
    figure.update_xaxes(type="category", tickangle=angle)
    colours = arm_colours(list(counts.kept))
    for name, kept in counts.kept.items():
        hover = f"%{{x}}, {name}: %{{customdata[0]:,}} of %{{customdata[1]:,}} rows, %{{y:.1f}} %"
        figure.add_trace(
            go.Bar(
                x=list(counts.groups),
                y=100 * counts.shares(name),
                name=name,
                marker_color=colours[name],
                customdata=np.stack([kept, counts.sizes], axis=1),
                hovertemplate=hover + "<extra></extra>",
            )
        )
    return figure


def overlap_heat(names: Sequence[str], overlap: Array) -> go.Figure:
    """The Jaccard overlap of every two arms, as a matrix with its numbers; the diagonal is empty.

    Args:
        names: Of the arms.
        overlap: (num_arms, num_arms) in [0, 1].
    """
    import plotly.graph_objects as go

    shown = np.where(np.eye(len(names), dtype=bool), np.nan, overlap)
    figure = new_figure("", "", height=110 + 44 * len(names))
    figure.add_trace(
        go.Heatmap(
            z=shown,
            x=list(names),
            y=list(names),
            zmin=0,
            zmax=1,
            # Ends of middle brightness: the numbers are legible on all of them in both themes.
            colorscale=[[0, "rgba(31,154,161,0.06)"], [1, "rgba(31,154,161,0.9)"]],
            showscale=False,
            text=[["" if i == j else f"{v:.2f}" for j, v in enumerate(row)]
                  for i, row in enumerate(overlap.tolist())],
            texttemplate="%{text}",
            hovertemplate="%{y} and %{x}: %{z:.3f}<extra></extra>",
            hoverongaps=False,
            xgap=2,
            ygap=2,
        )
    )  # fmt: skip
    figure.update_xaxes(ticks="")
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    return figure


def row_map(
    layout: RowMap, kept: Array, title: str, texts: Sequence[str], colour: str = KEPT
) -> go.Figure:
    """Shown rows on the plane, those that an arm kept in its colour.

    Args:
        layout: Places of the shown rows.
        kept: (num_shown,) bool.
        title: Of the arm.
        texts: (num_shown,) for hovering, as :func:`hover_text` gives them.
        colour: Of the kept rows.
    """
    import plotly.graph_objects as go

    figure = new_figure("", "", height=420)
    figure.update_layout(margin={"l": 4, "r": 4, "t": 34, "b": 4}, showlegend=True)
    axis = {"showticklabels": False, "showgrid": False, "title": None, "ticks": ""}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis, scaleanchor="x")
    marks = (
        (f"dropped by {title}", ~kept, {"color": DROPPED, "size": 4, "opacity": 0.5}),
        (f"kept by {title}", kept, {"color": colour, "size": 5, "opacity": 0.9}),
    )
    for name, mask, marker in marks:
        rows = np.flatnonzero(mask)
        figure.add_trace(
            go.Scatter(
                x=layout.places[rows, 0].round(2),
                y=layout.places[rows, 1].round(2),
                name=name,
                mode="markers",
                marker=marker,
                text=[texts[row] for row in rows.tolist()],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    return figure


def hover_text(name: str, instruction: str, reason: str) -> str:
    """Id, the start of the instruction and the decision on it, in lines; tags are text."""
    lines = wrap(instruction, _HOVER_WIDTH, max_lines=_HOVER_LINES, placeholder=" …")
    return "<br>".join(escape(line) for line in (name, *lines, *wrap(reason, _HOVER_WIDTH)))


def cost_bars(costs: Mapping[str, float], labels: Sequence[str]) -> go.Figure:
    """Horizontal bars of operations from 0 on, each with its number as text."""
    import plotly.graph_objects as go

    figure = new_figure("", "", height=60 + 44 * len(costs), bargap=0.35)
    most = max(costs.values())
    figure.update_xaxes(range=[0, 1.18 * most], showticklabels=False, ticks="")
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    figure.add_trace(
        go.Bar(
            x=list(costs.values()),
            y=list(costs),
            orientation="h",
            marker_color=[INK, KEPT, _COMPARED[0]],
            text=list(labels),
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{text} floating-point operations<extra></extra>",
        )
    )
    return figure
