"""The picture of ``bench_padding.py``: what each way computes, how fast, in how much memory.

python benchmarks/padding_picture.py RESULT.json  # draws again, for a machine with matplotlib
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TOKENS, PADDING, OTHERS = "#0072B2", "#F2D3B3", "#8FA6B5"  # blue on sand: safe for every eye
INK, QUIET = "#1F2933", "#66727D"
LEFT = 0.018
OURS = "Dynamic Pack"
NOTES = {
    "pad to max": "every row at the limit",
    "pad to longest": "dynamic padding",
    "authors' packing": "samples see each other",
    "TRL packing": "windows of 1,000",
    "Dynamic Pack": "CodeACT",
}
METRICS = (  # key, title, unit line, format, what an absent value means
    ("padding", "Padding", "of positions", "{:.1%}", "–"),
    ("tokens_per_second", "Speed", "tokens a second", "{:,.0f}", "out of memory"),
    ("peak_gib", "Peak memory", "GiB", "{:#.3g}", "out of memory"),
)


def lines_of(step: dict[str, Any], capacity: int) -> list[tuple[list[int], int]]:
    """(lengths of the sequences, slots) of each drawn line; a flat row is wrapped at the limit."""
    if step["width"]:
        return [(row, step["width"]) for row in step["rows"]]
    lines: list[tuple[list[int], int]] = [([], 0)]
    for seqlen in step["rows"][0]:
        while seqlen:
            parts, used = lines[-1]
            if used == capacity:
                lines.append(([], 0))
                continue
            piece = min(seqlen, capacity - used)
            lines[-1] = ([*parts, piece], used + piece)
            seqlen -= piece
    return lines


def draw_slots(axes: Any, way: dict[str, Any], capacity: int, num_lines: int) -> None:
    """The positions computed for the sample: tokens blue, padding sand, area to scale."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    boxes: dict[str, list[Any]] = {TOKENS: [], PADDING: []}
    lines = [line for step in way["sample"] for line in lines_of(step, capacity)]
    gap = 0.006 * capacity  # so that neighbours can be told apart
    for number, (parts, width) in enumerate(lines):
        end = 0
        for seqlen in parts:
            boxes[TOKENS].append(Rectangle((end, number + 0.07), max(seqlen - gap, gap), 0.86))
            end += seqlen
        if width > end:
            boxes[PADDING].append(Rectangle((end, number + 0.07), width - end, 0.86))
    for colour, patches in boxes.items():
        axes.add_collection(PatchCollection(patches, facecolor=colour, edgecolor="none"))
    slots = sum(width for _, width in lines)
    axes.annotate(
        f"{slots:,} positions", (0, len(lines)), (0, -3), textcoords="offset points",
        fontsize=10, color=QUIET, va="top", annotation_clip=False,
    )  # fmt: skip
    axes.set_xlim(0, capacity)
    axes.set_ylim(num_lines, 0)
    axes.axis("off")
    ours = way["name"] == OURS
    axes.set_title(
        way["name"], loc="left", fontsize=12.5, color=INK, pad=19,
        fontweight="bold" if ours else "normal",
    )  # fmt: skip
    note = NOTES.get(way["name"], "")
    axes.annotate(
        note, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize=10,
        color="#B5450B" if "see each other" in note else QUIET,
    )  # fmt: skip


def draw_metric(axes: Any, way: dict[str, Any], metric: tuple[str, ...], largest: float) -> None:
    """A bar from the left edge with its number above; all columns share the scale."""
    key, _, _, form, absent = metric
    ours, value = way["name"] == OURS, way.get(key)
    axes.barh([0], [value or 0], height=0.34, color=TOKENS if ours else OTHERS)
    axes.text(
        0, 0.34, absent if value is None else form.format(value), va="bottom", ha="left",
        fontsize=12, color=INK, fontweight="bold" if ours else "normal",
    )  # fmt: skip
    axes.set_xlim(0, largest or 1)
    axes.set_ylim(-0.35, 1.1)
    axes.axis("off")


def draw(result: dict[str, Any], stem: Path) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg``.

    Raises:
        ImportError: matplotlib is missing.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"font.family": "DejaVu Sans", "svg.fonttype": "path"}
    from matplotlib import pyplot

    ways: Sequence[dict[str, Any]] = result["ways"]
    capacity = result["capacity"]
    num_lines = max(sum(len(lines_of(step, capacity)) for step in way["sample"]) for way in ways)
    figure = pyplot.figure(figsize=(10, 6.2), facecolor="white")
    grid = figure.add_gridspec(
        1 + len(METRICS), len(ways), height_ratios=[3.2] + [0.72] * len(METRICS), left=0.162,
        right=0.985, top=0.76, bottom=0.02, wspace=0.17, hspace=0.2,
    )  # fmt: skip
    for column, way in enumerate(ways):
        draw_slots(figure.add_subplot(grid[0, column]), way, capacity, num_lines)
    for row, metric in enumerate(METRICS, start=1):
        largest = max((way.get(metric[0]) or 0.0 for way in ways), default=1.0)
        cells = [figure.add_subplot(grid[row, column]) for column in range(len(ways))]
        for axes, way in zip(cells, ways, strict=True):
            draw_metric(axes, way, metric, largest)
        middle = cells[0].get_position()
        write_label(figure, middle.y0 + 0.5 * middle.height, metric[1], metric[2])
    first = figure.axes[0].get_position()
    legend(figure, first.y1, result["num_sampled"])
    figure.text(LEFT, 0.948, headline(ways), fontsize=14, fontweight="bold", color=INK)
    about = "\n".join(result["about"])
    figure.text(LEFT, 0.932, about, fontsize=10, color=QUIET, va="top", linespacing=1.35)
    paths = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
    for path in paths:
        figure.savefig(path, dpi=180, facecolor="white")
    pyplot.close(figure)
    return paths


def write_label(figure: Any, height: float, title: str, unit: str) -> None:
    """Two lines at the left edge."""
    figure.text(LEFT, height + 0.004, title, fontsize=12, color=INK, va="bottom")
    figure.text(LEFT, height - 0.002, unit, fontsize=9.5, color=QUIET, va="top")


def legend(figure: Any, top: float, num_sampled: int) -> None:
    """What the drawing shows, in words of its colours."""
    words = (
        ("Computed", INK, 12, 0.0),
        (f"for the same\n{num_sampled} examples", QUIET, 9.5, 0.036),
        ("■ tokens", TOKENS, 11, 0.106),
        ("■ padding", "#C98A4B", 11, 0.14),  # a darker sand, to be read on white
    )
    for text, colour, size, offset in words:
        figure.text(LEFT, top - offset, text, fontsize=size, color=colour, va="top")


def headline(ways: Sequence[dict[str, Any]]) -> str:
    """The main finding, in numbers of this run."""
    by_name = {way["name"]: way for way in ways}
    ours, dynamic = by_name.get(OURS), by_name.get("pad to longest")
    if not ours or not dynamic or not dynamic["tokens_per_second"]:
        return "What padding costs"
    faster = ours["tokens_per_second"] / dynamic["tokens_per_second"]
    smaller = 1 - (ours["peak_gib"] or 0) / (dynamic["peak_gib"] or 1)
    memory = f", in {smaller:.0%} less memory" if smaller >= 0.05 else ""
    return f"Packing trains {faster:.1f}× as many tokens a second as dynamic padding{memory}"


def main() -> None:
    source = Path(sys.argv[1])
    for path in draw(json.loads(source.read_text()), source.with_suffix("")):
        print(path)


if __name__ == "__main__":
    main()
