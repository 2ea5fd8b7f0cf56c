"""The page of every report: one template, plotly.js inside, no request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import codeact
from codeact.files import write_text
from codeact.pipeline.report_parts import Section

_TEMPLATE = "report.html.j2"


class KeyFigure(NamedTuple):
    """One of the few numbers at the top, with what it is and what to hold it against."""

    value: str
    label: str
    note: str


def write_page(
    path: str | Path,
    *,
    name: str,
    summary: Sequence[str],
    key_figures: Sequence[KeyFigure],
    sections: Sequence[Section],
    footer: str,
    source_title: str,
    verdict: str = "",
    version: str = codeact.__version__,
) -> Path:
    """Render a page that carries its figures, styles and plotly.js itself.

    It forbids itself any request (a content security policy), and is the same to the byte for the
    same parts.

    Args:
        path: HTML file to write.
        name: Title.
        summary: Sentences below it.
        key_figures: Numbers below those.
        sections: The rest.
        footer: What the page is about, or from.
        source_title: Over a file that a section shows as it is.
        verdict: Sentence that stands out; "" for none.
        version: Of CodeACT.

    Returns:
        ``path``.
    """
    import jinja2
    from plotly.offline import get_plotlyjs

    template = (Path(__file__).parent / _TEMPLATE).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    page = environment.from_string(template).render(
        name=name,
        version=version,
        summary=summary,
        verdict=verdict,
        key_figures=key_figures,
        sections=sections,
        footer=footer,
        source_title=source_title,
        plotly_js=get_plotlyjs(),
    )
    path = Path(path)
    write_text(path, page)
    return path
