"""Rank correlation of predictions with what they predict, on held-out rows, with its spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from codeact.scoring.influence.ranks import Values, rank_correlations

# Numbers ranked at a time: 32 MiB in float64.
_BLOCK = 1 << 22

Folds = Sequence[NDArray[np.int64]]


def spearman_in_folds(predicted: Values, truth: Values, folds: Folds) -> float:
    """Mean over the folds of Spearman's rho among the rows of a fold.

    Not of all rows at once: each fold is predicted by a fit of its own, whose level falls where the
    fold's truth is high (it was fitted on the others), so that pooled predictions of something
    unpredictable correlate negatively.

    Args:
        predicted: (num_rows,) held-out predictions.
        truth: (num_rows,).
        folds: Row indices of each fold. A fold whose predictions or truth are all equal counts 0:
            a constant ranks nothing.
    """
    return float(np.mean([_spearman(predicted[f][None], truth[f][None])[0] for f in folds]))


def bootstrap_in_folds(
    columns: Values, truth: Values, folds: Folds, *, num_resamples: int, seed: int
) -> Values:
    """:func:`spearman_in_folds` of several predictions on the same resamples of the rows.

    Rows are drawn with replacement within their fold; fits are not repeated, so what differs
    between two training sets is not in the spread.

    Args:
        columns: (num_columns, num_rows) predictions.
        truth: (num_rows,).
        folds: Row indices of each fold.
        num_resamples: Draws.
        seed: Of the draws.

    Returns:
        (num_resamples, num_columns) float64.
    """
    rng = np.random.default_rng(seed)
    sums = np.zeros((num_resamples, len(columns)))
    for rows in folds:
        step = max(1, _BLOCK // len(rows))
        for first in range(0, num_resamples, step):
            count = min(step, num_resamples - first)
            drawn = rows[rng.integers(0, len(rows), (count, len(rows)))]
            for number, column in enumerate(columns):
                sums[first : first + count, number] += _spearman(column[drawn], truth[drawn])
    return sums / len(folds)


def interval(value: float, draws: Values) -> tuple[float, float]:
    """95 % interval of a correlation: ``tanh(atanh(value) +- 1.96 deviation(atanh(draws)))``.

    The draws give the width alone: a resample holds rows twice, which lowers a high correlation, so
    that the percentiles of the draws would stand too low (with five folds of 60 rows and a
    correlation of 0.91, by 0.01). A draw of 1, which has no atanh, counts as the highest below 1:
    few rows make such draws even where the value is no 1, and one must not decide the width.
    """
    most = 1 - 1e-12
    sizes = np.abs(draws)
    highest = sizes[sizes < most].max(initial=0.0)
    spread = 1.96 * np.arctanh(np.clip(draws, -highest, highest)).std()
    middle = np.arctanh(np.clip(value, -most, most))
    return float(np.tanh(middle - spread)), float(np.tanh(middle + spread))


def _spearman(first: Values, second: Values) -> Values:
    """(num_samples,) Spearman's rho of each row of two matrices; 0 where one is flat."""
    return np.nan_to_num(rank_correlations(first, second))
