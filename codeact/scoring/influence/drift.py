"""How far the rankings of influence agree: between checkpoints, tasks and kinds of rows.

Everything here reads columns, (num_rows, num_columns) influence with NaN where a row has none, and
compares every two of them, or all at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codeact.errors import InputError
from codeact.scoring.influence.history import InfluenceHistory
from codeact.scoring.influence.ranks import rank_correlations

Floats = NDArray[np.float64]

_NORMAL_95 = 1.959963984540054  # two-sided 95 % of the normal distribution
_FEWEST_PAIRS = 4  # an interval of Fisher's z needs more than three


@dataclass(frozen=True, eq=False)
class RankAgreement:
    """Spearman's rank correlation of every two columns, over the rows that both have.

    Attributes:
        names: (num_columns,) of the columns.
        rho: (num_columns, num_columns) float64 in [-1, 1], ties at their mean rank; NaN where a
            column is constant or fewer than two rows are shared.
        low: lower ends of the 95 % intervals: Fisher's z with the standard error
            ``sqrt((1 + rho**2 / 2) / (n - 3))`` of Bonett & Wright (Psychometrika 65, 2000);
            -1 where the rows say nothing.
        high: upper ends, 1 where the rows say nothing.
        num_pairs: (num_columns, num_columns) int64 rows that both have.
    """

    names: tuple[str, ...]
    rho: Floats
    low: Floats
    high: Floats
    num_pairs: NDArray[np.int64]

    @property
    def num_effective(self) -> float:
        """How many different rankings the columns amount to: ``m**2 / sum_ij rho_ij**2``.

        The participation ratio of the eigenvalues of ``rho``: 1 where all columns rank alike (or
        exactly the other way round), m where no two have to do with each other. Columns without a
        ranking (constant, or of fewer than two rows) do not count; NaN if others share no rows.
        """
        ranked = np.isfinite(np.diag(self.rho))
        total = np.square(self.rho[np.ix_(ranked, ranked)]).sum()
        return float(ranked.sum() ** 2 / total) if ranked.any() else 0.0

    @property
    def mean(self) -> float:
        """Mean correlation over pairs of different columns; NaN where there is one column."""
        pairs = self.rho[np.triu_indices(len(self.names), 1)]
        return float(pairs.mean()) if len(pairs) else float("nan")


def rank_agreement(columns: Floats, names: Sequence[str]) -> RankAgreement:
    """Correlate every two columns.

    Args:
        columns: (num_rows, num_columns) float64, NaN where there is none.
        names: (num_columns,).

    Raises:
        InputError: another number of names.
    """
    columns = checked(columns, names)
    size = columns.shape[1]
    rho, pairs = np.ones((size, size)), np.zeros((size, size), dtype=np.int64)
    for i in range(size):
        for j in range(i, size):
            used = np.isfinite(columns[:, i]) & np.isfinite(columns[:, j])
            ours, theirs = columns[used, i], columns[used, j]
            rho[i, j] = rho[j, i] = rank_correlations(ours[None], theirs[None])[0]
            pairs[i, j] = pairs[j, i] = used.sum()
    low, high = _interval(rho, pairs)
    return RankAgreement(tuple(names), rho, low, high, pairs)


def between_checkpoints(history: InfluenceHistory) -> dict[str, RankAgreement]:
    """For every task how its checkpoints agree."""
    return {
        task: rank_agreement(history.values[:, :, place].T, history.checkpoints)
        for place, task in enumerate(history.tasks)
    }


def between_tasks(history: InfluenceHistory) -> dict[str, RankAgreement]:
    """For every checkpoint how its tasks agree."""
    return {
        checkpoint: rank_agreement(values, history.tasks)
        for checkpoint, values in zip(history.checkpoints, history.values, strict=True)
    }


def within_groups(
    columns: Floats, names: Sequence[str], groups: Sequence[str], *, fewest: int = 10
) -> dict[str, RankAgreement]:
    """The same of the rows of each group alone, such as a language: ranks may agree over all rows
    only because groups differ.

    Args:
        columns: as of :func:`rank_agreement`.
        names: as there.
        groups: (num_rows,) the group of each row.
        fewest: rows that a group must have to be looked at.

    Returns:
        By group, the largest first.
    """
    labels = np.asarray(groups, dtype=str)
    found, sizes = np.unique(labels, return_counts=True)
    order = np.lexsort((found, -sizes))
    return {
        str(found[place]): rank_agreement(columns[labels == found[place]], names)
        for place in order.tolist()
        if sizes[place] >= fewest
    }


@dataclass(frozen=True, eq=False)
class GroupPlaces:
    """Where the rows of each group stand among all rows.

    Attributes:
        groups: names, the largest group first.
        sizes: (num_groups,) int64 rows of each.
        mean_place: (num_groups, num_columns) mean of the place of its rows in (0, 1): 1 is the
            highest value of all rows, 0.5 the middle; NaN where a group has no value.
        reach: (num_groups, num_columns) half width of the 95 % interval around 0.5 in which as
            many rows drawn at random (without putting back) stay, by the normal approximation.
    """

    groups: tuple[str, ...]
    sizes: NDArray[np.int64]
    mean_place: Floats
    reach: Floats


def group_places(columns: Floats, groups: Sequence[str]) -> GroupPlaces:
    """Mean place of each group, such as a language, in each column, ties at their mean rank.

    Args:
        columns: (num_rows, num_columns) float64, NaN where there is none.
        groups: (num_rows,) the group of each row.
    """
    from scipy.stats import rankdata

    labels = np.asarray(groups, dtype=str)
    names, sizes = np.unique(labels, return_counts=True)
    order = np.lexsort((names, -sizes))
    names, sizes = names[order], sizes[order]
    places, reach = np.full((2, len(names), columns.shape[1]), np.nan)
    for column, values in enumerate(columns.T):
        known = np.isfinite(values)
        total = int(known.sum())
        ranks = (rankdata(values[known]) - 0.5) / max(1, total)
        for group, name in enumerate(names.tolist()):
            inside = ranks[labels[known] == name]
            if not len(inside):
                continue
            places[group, column] = inside.mean()
            # Variance of (rank - 0.5) / n over n rows, and of a mean of some of them.
            spread = (total**2 - 1) / (12 * total**2)
            left_out = (total - len(inside)) / max(1, total - 1)
            reach[group, column] = _NORMAL_95 * np.sqrt(spread / len(inside) * left_out)
    return GroupPlaces(tuple(names.tolist()), sizes, places, reach)


def _interval(rho: Floats, num_pairs: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Ends of the 95 % intervals of :class:`RankAgreement`."""
    known = np.isfinite(rho) & (num_pairs >= _FEWEST_PAIRS)
    error = np.sqrt((1 + rho**2 / 2) / np.maximum(num_pairs - 3, 1))
    with np.errstate(divide="ignore"):
        middle = np.arctanh(rho)  # infinite at a rho of 1, whose interval is then a point
    low, high = (np.tanh(middle + side * _NORMAL_95 * error) for side in (-1, 1))
    return np.where(known, low, -1.0), np.where(known, high, 1.0)


def checked(columns: Floats, names: Sequence[str]) -> Floats:
    """Columns as float64, one for each name."""
    values = np.asarray(columns, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(names):
        raise InputError(f"columns must be (num_rows, {len(names)}), got {values.shape}")
    return values
