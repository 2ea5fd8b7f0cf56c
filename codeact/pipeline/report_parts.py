"""What the report's page is made of, between the facts and the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Figure:
    """A plot under the sentence that says what it shows."""

    caption: str
    html: Markup


@dataclass(frozen=True)
class Table:
    """Cells as text; the first ``num_text_columns`` stand left, the others right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    num_text_columns: int = 1


@dataclass(frozen=True)
class Card:
    """One example of the data, for reading: two texts side by side, each under its label."""

    id: str
    facts: str
    reason: str
    instruction: str
    instruction_cut: str
    response: str
    response_cut: str
    labels: tuple[str, str] = ("Instruction", "Answer")
    even: bool = False  # both texts get half of the width; answers are longer than instructions


@dataclass(frozen=True)
class CardGroup:
    """Examples that have something in common."""

    title: str
    note: str
    cards: Sequence[Card]


@dataclass(frozen=True)
class Section:
    """One heading of the report. ``absent`` is the sentence that stands for a missing stage."""

    anchor: str
    title: str
    absent: str = ""
    text: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    groups: Sequence[CardGroup] = ()
    source: str = field(default="", kw_only=True)  # a file shown as it is, folded


def as_figure(anchor: str, caption: str, figure: go.Figure) -> Figure:
    """A plotly figure as HTML without plotly.js, which the page carries once.

    ``anchor`` is the id of its element: fixed, so that the same run gives the same bytes.
    """
    html = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"figure-{anchor}",
        default_height=f"{figure.layout.height}px",
        config={"displayModeBar": False, "responsive": True},
    )
    return Figure(caption, Markup(html))  # plotly escapes <, > and & in its JSON
