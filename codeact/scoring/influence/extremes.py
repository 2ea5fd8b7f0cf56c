"""Rows at the ends: the tops that rankings share, rows that are extreme everywhere, signs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codeact.errors import InputError
from codeact.scoring.influence.drift import Floats, checked


@dataclass(frozen=True, eq=False)
class TopOverlap:
    """How far the rows that two columns put at the top are the same.

    Attributes:
        names: (num_columns,) of the columns.
        share: of the rows, which are the top.
        jaccard: (num_columns, num_columns) rows in both tops, of those in either; NaN where
            neither column has a top.
        chance: what two random choices of this size share on average, exactly: the mean of
            ``h / (2 k - h)`` over the hypergeometric distribution of the common rows h.
        chance_high: what they stay at or below in 97.5 % of cases.
        num_rows: that every column has; only they are ranked.
    """

    names: tuple[str, ...]
    share: float
    jaccard: Floats
    chance: float
    chance_high: float
    num_rows: int


def top_overlap(columns: Floats, names: Sequence[str], *, share: float = 0.1) -> TopOverlap:
    """Compare the ``share`` of the rows with the highest values of every two columns.

    Rows that tie across the edge are in no top, since nothing but their place could tell them
    apart; a column of equal values has none.

    Args:
        columns: as of :func:`rank_agreement`.
        names: as there.
        share: in (0, 0.5].

    Raises:
        InputError: ``share`` out of its range, or no row that every column has.
    """
    from scipy.stats import hypergeom

    columns, _ = _complete(checked(columns, names), share)
    size = _num_top(len(columns), share)
    tops = _marked(-columns, size)
    shared = tops.astype(np.float64).T @ tops
    either = np.add.outer(np.diag(shared), np.diag(shared)) - shared
    common = np.arange(size + 1)
    law = hypergeom(len(columns), size, size)
    overlap = common / (2 * size - common)
    most = int(law.ppf(0.975))
    return TopOverlap(
        tuple(names),
        share,
        np.divide(shared, either, out=np.full_like(shared, np.nan), where=either > 0),
        float(law.pmf(common) @ overlap),
        float(overlap[most]),
        len(columns),
    )


@dataclass(frozen=True, eq=False)
class StableExtremes:
    """Rows that every column puts into its top, or into its bottom.

    Attributes:
        share: of the rows that is a top or a bottom.
        top: (num_top,) int64 row indices, the best mean rank first.
        bottom: (num_bottom,) int64, the worst mean rank first.
        expected: number of such rows (of the top; as many of the bottom) if the columns ranked
            independently: ``num_rows * (k / num_rows) ** num_columns``. A low bar: columns that
            have anything in common go beyond it.
        num_rows: that every column has; only they are ranked.
        num_columns: that had to agree.
    """

    share: float
    top: NDArray[np.int64]
    bottom: NDArray[np.int64]
    expected: float
    num_rows: int
    num_columns: int


def stable_extremes(columns: Floats, *, share: float = 0.1) -> StableExtremes:
    """Find the rows that are extreme everywhere, as DIScore finds some to be (arXiv:2604.07769).

    Rows that tie across the edge of a top or bottom are not in it, see :func:`top_overlap`.

    Args:
        columns: (num_rows, num_columns): every task at every checkpoint, or those of one task.
        share: in (0, 0.5].

    Raises:
        InputError: ``share`` out of its range, or no row that every column has.
    """
    found, places = _complete(np.asarray(columns, dtype=np.float64), share)
    size = _num_top(len(found), share)
    ranks = np.argsort(np.argsort(-found, axis=0, kind="stable"), axis=0, kind="stable")
    mean_rank = ranks.mean(axis=1)
    top = np.flatnonzero(_marked(-found, size).all(axis=1))
    bottom = np.flatnonzero(_marked(found, size).all(axis=1))
    return StableExtremes(
        share,
        places[top[np.argsort(mean_rank[top], kind="stable")]],
        places[bottom[np.argsort(-mean_rank[bottom], kind="stable")]],
        len(found) * (size / len(found)) ** found.shape[1],
        *found.shape,
    )


@dataclass(frozen=True, eq=False)
class SignAgreement:
    """Share of the rows that two columns both call helpful or both call harmful.

    Attributes:
        names: (num_columns,) of the columns.
        agree: (num_columns, num_columns) share of the rows that both have; NaN without any.
        chance: (num_columns, num_columns) the share if signs were independent:
            ``p_i p_j + (1 - p_i)(1 - p_j)`` with the shares p of rows above 0.
        always_helpful: share of the rows of all columns that are above 0 in each.
        always_harmful: share of them that are above 0 in none.
    """

    names: tuple[str, ...]
    agree: Floats
    chance: Floats
    always_helpful: float
    always_harmful: float


def sign_agreement(columns: Floats, names: Sequence[str]) -> SignAgreement:
    """Compare signs; a value of exactly 0 counts as harmful, since it does not help."""
    columns = checked(columns, names)
    size = columns.shape[1]
    agree, chance = np.full((size, size), np.nan), np.full((size, size), np.nan)
    for i in range(size):
        for j in range(size):
            used = np.isfinite(columns[:, i]) & np.isfinite(columns[:, j])
            if not used.any():
                continue
            helps, others = columns[used, i] > 0, columns[used, j] > 0
            p, q = helps.mean(), others.mean()
            agree[i, j] = (helps == others).mean()
            chance[i, j] = p * q + (1 - p) * (1 - q)
    whole = columns[np.isfinite(columns).all(axis=1)]
    always = (whole > 0).all(axis=1), (whole <= 0).all(axis=1)
    helpful, harmful = (float(mask.mean()) if len(whole) else float("nan") for mask in always)
    return SignAgreement(tuple(names), agree, chance, helpful, harmful)


def _complete(columns: Floats, share: float) -> tuple[Floats, NDArray[np.int64]]:
    """Rows that every column has, and their places."""
    if not 0 < share <= 0.5:
        raise InputError(f"share must be above 0 and at most 0.5, got {share}")
    places = np.flatnonzero(np.isfinite(columns).all(axis=1))
    if not len(places):
        raise InputError("columns must have a row with a number in each of them, got none")
    return columns[places], places


def _num_top(num_rows: int, share: float) -> int:
    """At most half, so that no row is in top and bottom; at least one."""
    return max(1, min(round(share * num_rows), num_rows // 2))


def _marked(columns: Floats, size: int) -> NDArray[np.bool_]:
    """(num_rows, num_columns) whether a row is among the ``size`` smallest of a column, no tie."""
    if size >= len(columns):  # of one row
        return np.zeros(columns.shape, dtype=bool)
    first_outside: Floats = np.partition(columns, size, axis=0)[size]
    return columns < first_outside
