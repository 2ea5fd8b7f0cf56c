"""Numbers as a person writes them: true minus signs, thousands, minutes, p-values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from codeact.pipeline.recipe import Recipe


def count(number: float, noun: str = "") -> str:
    """``12,840``, or with a noun ``1 row``, ``12,840 rows``."""
    text = f"{int(number):,}"
    if not noun:
        return text
    return f"{text} {noun if number == 1 else noun + 's'}"


def percent(share: float) -> str:
    """A share as a percentage, with a decimal where it matters: ``2.4 %``, ``41 %``, ``99.5 %``."""
    if share != share:  # NaN: a share of nothing
        return "—"
    value = 100 * share
    decimals = 0 if 9.95 <= value <= 99 or value >= 100 else 1
    return f"{value:.{decimals}f}\xa0%"


def signed(value: float) -> str:
    """Four decimals with a true sign: ``−0.0213``, ``+0.0004``."""
    return f"{value:+.4f}".replace("-", "−")


def interval(ends: Sequence[float]) -> str:
    """``−0.0341 to −0.0083``."""
    return f"{signed(ends[0])} to {signed(ends[1])}"


def arm_names(recipe: Recipe) -> dict[str, str]:
    """What the arms of a run are called in its report."""
    method = recipe.select.method
    selected = "CDAS" if method == "cdas" else method
    return {"base": "before training", "full": "all rows", "selected": selected, "random": "random"}


def verdict_sentence(text: str, names: Mapping[str, str]) -> str:
    """A verdict of comparison.json as a sentence: arm names, minus signs, capital, full stop."""
    text = re.sub(r"-(?=\d)", "−", text.strip()).replace(" %", "\xa0%")
    text = re.sub(r"\bselected\b", lambda _: names["selected"], text)
    text = re.sub(r"\bp ([<=]) ", "p\xa0\\1\xa0", text)
    return sentence(text)


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def p_value(value: float | None) -> str:
    """``p = 0.012``, ``p < 0.0001``; an em dash when there is none."""
    if value is None or math.isnan(value):
        return "—"
    return "p\xa0<\xa00.0001" if value < 1e-4 else f"p\xa0=\xa0{value:.2g}"


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``4 min 12 s``, ``3 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f}\xa0s" if seconds < 9.95 else f"{seconds:.0f}\xa0s"
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60}\xa0h {minutes % 60:02d}\xa0min"
    whole = round(seconds)
    return f"{whole // 60}\xa0min {whole % 60:02d}\xa0s"


def memory(mib: float) -> str:
    """``640 MiB``, ``3.1 GiB``."""
    return f"{mib / 1024:.1f}\xa0GiB" if mib >= 1024 else f"{mib:.0f}\xa0MiB"


def model_name(recipe: Recipe) -> str:
    """The model in the recipe, without the folders before its name."""
    return Path(recipe.model.name).name if recipe.model.name else "SmolLM2-135M-Instruct"


def data_name(recipe: Recipe) -> str:
    """The data in the recipe, in words."""
    if recipe.data.source:
        return Path(recipe.data.source).name
    return "functions harvested from installed packages"


def clipped(text: str, *, max_lines: int = 16, max_chars: int = 1200) -> tuple[str, str]:
    """The start of a long text, and a note on what was cut (``""`` when nothing was)."""
    lines = text.strip("\n").split("\n")
    shown = "\n".join(lines[:max_lines])
    if len(shown) > max_chars:
        shown = shown[:max_chars]
    num_cut = len(text.strip("\n")) - len(shown)
    if not num_cut:
        return shown, ""
    more = len(lines) - shown.count("\n") - 1
    return shown, f"{count(more, 'more line')}" if more else f"{count(num_cut, 'more character')}"
