"""Influence and rank correlations in words: numbers, intervals, what a correlation means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from codeact.evaluation import Correlation

_STRONG, _SOME = 0.5, 0.2
_FOLDER = "checkpoint-"


def number(value: float) -> str:
    """Three digits with a true minus: ``−0.0213``, ``1.24e−05``; an em dash for NaN."""
    return f"{value:.3g}".replace("-", "−") if math.isfinite(value) else "—"


def rho(value: float, digits: int = 2) -> str:
    """A correlation with a true minus, an em dash for NaN."""
    if not math.isfinite(value):
        return "—"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # 0.0 drops the sign of −0


def rho_interval(value: float, low: float, high: float, digits: int = 2) -> str:
    """``0.43 (0.36 to 0.50)``."""
    if not math.isfinite(value):
        return "—"
    return f"{rho(value, digits)} ({rho(low, digits)} to {rho(high, digits)})"


def correlation_cell(found: Correlation, *, digits: int = 2) -> str:
    """The same of a correlation."""
    return rho_interval(found.rho, *found.interval, digits)


def by_chance(number_of_rows: float) -> str:
    """An expected number of rows: ``0.099``, ``under 0.001``."""
    return number(number_of_rows) if number_of_rows >= 0.001 else "under 0.001"


def without_unit(name: str) -> str:
    """``answer length`` of ``answer length (tokens)``."""
    return name.split(" (")[0]


def short_names(checkpoints: Sequence[str]) -> list[str]:
    """Checkpoints without the ``checkpoint-`` that all their folders begin with."""
    shared = all(name.startswith(_FOLDER) and name != _FOLDER for name in checkpoints)
    return [name.removeprefix(_FOLDER) if shared else name for name in checkpoints]


def strength(value: float) -> str:
    """What a rank correlation says, as the verb of a sentence."""
    if not math.isfinite(value):
        return "cannot be compared with"
    how = "closely" if abs(value) >= _STRONG else "somewhat" if abs(value) >= _SOME else ""
    if not how:
        return "hardly follows"
    return f"follows {how}" if value > 0 else f"runs {how} against"


def listed(names: Sequence[str], most: int = 4) -> str:
    """``a, b and c``; the end of a long list is a number."""
    shown = list(names)
    if len(shown) > most:
        shown = [*shown[: most - 1], f"{len(shown) - most + 1} others"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def explained_share(target: NDArray[np.float64], others: Sequence[NDArray[np.float64]]) -> float:
    """Share of the variance of the ranks of ``target`` that the ranks of ``others`` explain.

    R² of a linear regression on ranks over the rows that have all numbers, adjusted for the number
    of columns; NaN where there are too few rows.
    """
    from scipy.stats import rankdata

    columns = np.stack([target, *others], axis=1)
    columns = columns[np.isfinite(columns).all(axis=1)]
    num_rows, num_columns = columns.shape
    if num_rows < num_columns + 2:
        return math.nan
    ranks = rankdata(columns, axis=0)
    ranks -= ranks.mean(axis=0)
    total = float(ranks[:, 0] @ ranks[:, 0])
    if total == 0:
        return math.nan
    fit = np.linalg.lstsq(ranks[:, 1:], ranks[:, 0], rcond=None)[0]
    left = ranks[:, 0] - ranks[:, 1:] @ fit
    missed = float(left @ left) / total
    return float(max(0.0, 1 - missed * (num_rows - 1) / (num_rows - num_columns)))
