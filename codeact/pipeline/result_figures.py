"""The report's figures of the paired comparison on held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from codeact.pipeline.figures import ARM_COLOURS, INK, Array, log_ticks, new_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go

_ROW_HEIGHT = 62  # pixels a pair takes in the forest plot


def pair_name(pair: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """``CDAS − random``: what a pair of comparison.json subtracts from what."""
    return " − ".join(names[pair[side]] for side in ("a", "b"))


def forest_plot(
    pairs: Sequence[Mapping[str, Any]], labels: Sequence[str], names: Mapping[str, str]
) -> go.Figure:
    """Mean paired differences with their intervals and a line at 0; from comparison.json.

    The first pair has an axis of its own: the difference between two fine-tuned arms is often
    a tenth of what fine-tuning itself changes, and would vanish on a shared scale.

    Args:
        pairs: Each with ``a``, ``b``, ``difference`` and ``interval``.
        labels: What stands above each point, such as its p-value.
        names: Of the arms, for a reader.
    """
    groups = [range(1), range(1, len(pairs))] if len(pairs) > 1 else [range(1)]
    height = _ROW_HEIGHT * len(pairs) + 120
    figure = new_figure("", "", showlegend=False, height=height)
    figure.update_layout(margin_l=12)  # there are no tick labels on this side
    domains = _stacked_domains([len(group) for group in groups])
    for panel, (group, domain) in enumerate(zip(groups, domains, strict=True)):
        suffix = str(panel + 1) if panel else ""
        for index in group:
            colour = ARM_COLOURS["selected"] if index == 0 else INK
            label = f"{pair_name(pairs[index], names)}: {labels[index]}"
            _add_interval(figure, pairs[index], label, -index, suffix, colour)
        _set_panel(figure, suffix, domain, [pairs[index] for index in group], group)
    figure.update_layout({f"xaxis{suffix}.title.text": "difference (nats per token)"})
    return figure


def _add_interval(
    figure: go.Figure, pair: Mapping[str, Any], label: str, y: int, suffix: str, colour: str
) -> None:
    """A square with whiskers, and its label at the left above it, where no width can cut it."""
    import plotly.graph_objects as go

    low, high = pair["interval"]
    whiskers = {"array": [high - pair["difference"]], "arrayminus": [pair["difference"] - low]}
    figure.add_trace(
        go.Scatter(
            x=[pair["difference"]],
            y=[y],
            mode="markers",
            marker={"color": colour, "size": 11, "symbol": "square"},
            error_x={"type": "data", "color": colour, "thickness": 2, "width": 6, **whiskers},
            hovertemplate=f"%{{x:.4f}} [{low:.4f}, {high:.4f}]<extra></extra>",
            xaxis=f"x{suffix}",
            yaxis=f"y{suffix}",
        )
    )
    place = {"xref": f"x{suffix} domain", "yref": f"y{suffix}", "xanchor": "left", "yshift": 18}
    figure.add_annotation(text=label, x=0, y=y, showarrow=False, **place)


def _set_panel(
    figure: go.Figure,
    suffix: str,
    domain: tuple[float, float],
    pairs: Sequence[Mapping[str, Any]],
    group: range,
) -> None:
    """Axes of one panel, with the line at 0."""
    x_axis = {**figure.layout.xaxis.to_plotly_json(), "showgrid": True, "nticks": 6}
    x_axis |= {"anchor": f"y{suffix}", "range": _range_with_zero(pairs)}
    y_axis = {"domain": domain, "anchor": f"x{suffix}", "visible": False}
    y_axis |= {"range": [-group[-1] - 0.5, -group[0] + 0.75]}  # labels need room above
    figure.update_layout({f"xaxis{suffix}": x_axis, f"yaxis{suffix}": y_axis})
    ends = {"x0": 0, "x1": 0, "xref": f"x{suffix}", "y0": 0, "y1": 1, "yref": f"y{suffix} domain"}
    figure.add_shape(type="line", line={"color": INK, "width": 1.5, "dash": "dash"}, **ends)


def row_differences(
    num_tokens: Array, difference: Array, ids: Sequence[str], method: str
) -> go.Figure:
    """NLL of the selected arm minus that of random on each held-out row, against its length.

    Args:
        num_tokens: (num_held_out,) answer lengths.
        difference: (num_held_out,) nats per token; below 0 the selected arm is better.
        ids: (num_held_out,) row ids, shown on hover.
        method: Name of the selected arm.
    """
    import plotly.graph_objects as go

    figure = new_figure("answer length (tokens)", f"{method} − random (nats)")
    figure.update_xaxes(type="log", tickvals=log_ticks(num_tokens))
    sides = (
        (f"{method} better", difference < 0, "selected"),
        ("random better", difference >= 0, "random"),
    )
    for name, mask, arm in sides:
        figure.add_trace(
            go.Scatter(
                x=num_tokens[mask],
                y=difference[mask],
                name=name,
                mode="markers",
                marker={"color": ARM_COLOURS[arm], "size": 7, "opacity": 0.8},
                text=[escape(ids[row]) for row in np.flatnonzero(mask).tolist()],
                hovertemplate="%{text}<br>%{x} tokens: %{y:.4f}<extra></extra>",
            )
        )
    figure.add_hline(0, line={"color": INK, "width": 1.5, "dash": "dash"})
    return figure


def _stacked_domains(heights: Sequence[int], gap: float = 0.2) -> list[tuple[float, float]]:
    """Vertical spans in [0, 1], the first on top, in proportion to ``heights``."""
    room = 1 - gap * (len(heights) - 1)
    top, domains = 1.0, []
    for height in heights:
        bottom = max(0.0, top - room * height / sum(heights))
        domains.append((bottom, top))
        top = bottom - gap
    return domains


def _range_with_zero(pairs: Sequence[Mapping[str, Any]]) -> list[float]:
    """An axis range that holds the intervals and 0, with a tenth to spare."""
    ends = [0.0, *(end for pair in pairs for end in pair["interval"])]
    slack = 0.1 * (max(ends) - min(ends)) or 1.0
    return [min(ends) - slack, max(ends) + slack]
