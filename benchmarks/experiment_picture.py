"""The picture of ``experiment.py``: held-out loss against tokens trained, a mark a seed.

python benchmarks/experiment_picture.py RESULT.json  # draws again, for a machine with matplotlib
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiment_grid import BASE, FULL, METHODS, RANDOM

INK, QUIET = "#1F2933", "#66727D"
# Okabe and Ito: told apart by every eye. Baselines are grey and black.
COLOURS = {
    RANDOM: "#8FA6B5", "length-matched-random": "#66727D", "cdas": "#0072B2", "ifd": "#D55E00",
    "qaq": "#CC79A7", "kcenter": "#009E73", "influence": "#E69F00", FULL: "#000000",
}  # fmt: skip
MARKS = dict(zip(METHODS, "os^Dv<>*", strict=True))


def lines_of(result: Mapping[str, Any]) -> dict[str, list[tuple[float, list[float]]]]:
    """For each trained method its points by budget: tokens trained, and the NLL of each seed."""
    lines: dict[str, list[tuple[float, list[float]]]] = {}
    for arm in result["arms"]:
        if arm["method"] != BASE:
            lines.setdefault(arm["method"], []).append((arm["num_tokens"], arm["nlls"]))
    return {method: sorted(points) for method, points in lines.items()}


def draw(result: Mapping[str, Any], stem: Path) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg``.

    Raises:
        ImportError: matplotlib is missing.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"font.family": "DejaVu Sans", "svg.fonttype": "path"}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8.5, 5.2), facecolor="white", layout="constrained")
    for method, points in lines_of(result).items():
        look = {"color": COLOURS.get(method, INK), "marker": MARKS.get(method, "P")}
        for tokens, nlls in points:
            axes.plot([tokens] * len(nlls), nlls, linestyle="", alpha=0.75, markersize=6, **look)
        means = [sum(nlls) / len(nlls) for _, nlls in points]
        axes.plot([tokens for tokens, _ in points], means, lw=1.4, label=method, ms=0, **look)
    for arm in result["arms"]:
        if arm["method"] == BASE:
            axes.axhline(arm["nlls"][0], color=QUIET, lw=1, ls=":", label="before training")
    axes.set_xscale("log")
    axes.set_xlabel("tokens trained", color=INK)
    axes.set_ylabel("held-out NLL, nats a token", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    for text in axes.legend(frameon=False, fontsize=9, ncols=2).get_texts():
        text.set_color(INK)
    axes.set_title(headline(result), loc="left", fontsize=12, color=INK)
    paths = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
    for path in paths:
        figure.savefig(path, dpi=160, facecolor="white")
    pyplot.close(figure)
    return paths


def headline(result: Mapping[str, Any]) -> str:
    """How many arms are told apart from random rows of the same budget."""
    tests = [
        test for test in result["tests"] if test["reference"] == RANDOM and test["metric"] == "nll"
    ]
    better, worse = (
        sum(f" is {word} than " in test["verdict"] for test in tests)
        for word in ("better", "worse")
    )
    if not tests:
        return "Held-out loss by method"
    if not better and not worse:
        return f"None of {len(tests)} selections differs significantly from random rows"
    return f"Of {len(tests)} selections {better} beat random rows of their budget, {worse} lose"


def main() -> None:
    source = Path(sys.argv[1])
    for path in draw(json.loads(source.read_text()), source.with_suffix("")):
        print(path)


if __name__ == "__main__":
    main()
