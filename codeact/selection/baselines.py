"""Random selections to measure a selector against: plain, and at the same length profile."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from codeact.errors import InputError
from codeact.selection.budget import resolve_budget
from codeact.selection.length_bands import (
    LengthBands,
    borrow_nearest,
    draw_from_bands,
    report_match,
)


@dataclass(frozen=True)
class RandomReport:
    """How many examples there were, and how many were drawn."""

    num_examples: int
    num_kept: int


class RandomSelection(BaseEstimator):  # type: ignore[misc]
    """A uniform random subset without replacement.

    Args:
        budget: A count, or a float share in (0, 1], met exactly (``resolve_budget``).
        seed: Of the draw.

    Attributes:
        selected_: (num_kept,) int64 row indices, ascending.
        report_: RandomReport.
    """

    def __init__(self, budget: int | float = 0.4, seed: int = 42) -> None:
        self.budget = budget
        self.seed = seed

    def fit(self, examples: int | Sized) -> RandomSelection:
        """Draw from ``examples``: their number, or anything that has one (rows, lengths).

        Raises:
            InputError: The budget is out of range.
        """
        num_examples = len(examples) if isinstance(examples, Sized) else int(examples)
        num_kept = resolve_budget(self.budget, num_examples)
        rng = np.random.default_rng(self.seed)
        rows = rng.choice(num_examples, size=num_kept, replace=False)
        self.selected_ = np.sort(rows).astype(np.int64)
        self.report_ = RandomReport(num_examples, num_kept)
        return self


class LengthMatchedRandom(BaseEstimator):  # type: ignore[misc]
    """As many random rows as a reference selection has, at the same length profile.

    IFD follows response length closely, so a plain random subset differs from a CDAS one in its
    number of tokens already. The reference's lengths are cut at their quantiles into bands; from
    each band as many rows are drawn, uniformly without replacement, as the reference has there.
    The draw is from the whole eligible pool, the reference's own rows included: that is what
    "random at this length" means, and a pool without them would be a selection against the
    reference. Rows are shared wherever the reference holds most rows of a length; the report says
    how many. Where a band has too few eligible rows, the free rows nearest to it in length follow.

    Args:
        seed: Of the draw.
        num_strata: Most bands to use; equal lengths are never split, so there may be fewer.

    Attributes:
        selected_: (num_kept,) int64 row indices, ascending.
        report_: LengthMatchReport.
    """

    def __init__(self, seed: int = 42, num_strata: int = 20) -> None:
        self.seed = seed
        self.num_strata = num_strata

    def fit(
        self,
        lengths: ArrayLike,
        reference_indices: ArrayLike,
        eligible: ArrayLike | None = None,
    ) -> LengthMatchedRandom:
        """Draw.

        Args:
            lengths: (num_examples,) e.g. response tokens.
            reference_indices: Distinct row indices of the selection to match.
            eligible: (num_examples,) bool, the rows that may be drawn; all by default.

        Raises:
            InputError: Shapes or indices are wrong, or fewer rows are eligible than needed.
        """
        if self.num_strata < 1:
            raise InputError(f"num_strata must be at least 1, got {self.num_strata}")
        values = _check_lengths(lengths)
        reference = _check_reference(reference_indices, len(values))
        pool = _check_eligible(eligible, len(values), len(reference))
        bands = LengthBands(values[reference], self.num_strata)
        rng = np.random.default_rng(self.seed)
        drawn = draw_from_bands(bands, values, pool, rng)
        borrowed = borrow_nearest(bands, values, np.setdiff1d(pool, drawn), drawn, rng)
        self.selected_ = np.sort(np.concatenate([drawn, borrowed]))
        self.report_ = report_match(
            bands, values, pool, reference, self.selected_, num_borrowed=len(borrowed)
        )
        return self


def _check_lengths(lengths: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(lengths)
    if values.ndim != 1 or len(values) == 0 or values.dtype.kind not in "iuf":
        raise InputError(
            f"lengths must be one number an example, got {values.dtype} of shape {values.shape}"
        )
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        num_bad = int((~np.isfinite(values)).sum())
        raise InputError(f"lengths must be finite, got NaN or infinity in {num_bad} rows")
    return values


def _check_reference(reference_indices: ArrayLike, num_examples: int) -> NDArray[np.int64]:
    rows = np.asarray(reference_indices)
    if rows.ndim != 1 or len(rows) == 0 or rows.dtype.kind not in "iu":
        raise InputError(
            "reference_indices must be at least one row index, "
            f"got {rows.dtype} of shape {rows.shape}"
        )
    if rows.min() < 0 or rows.max() >= num_examples or len(np.unique(rows)) < len(rows):
        raise InputError(
            f"reference_indices must be distinct and from 0 to {num_examples - 1}, got "
            f"{len(rows)} ({len(np.unique(rows))} distinct) from {rows.min()} to {rows.max()}"
        )
    return rows.astype(np.int64)


def _check_eligible(
    eligible: ArrayLike | None, num_examples: int, num_needed: int
) -> NDArray[np.int64]:
    """Row indices of the pool."""
    mask = np.ones(num_examples, dtype=bool) if eligible is None else np.asarray(eligible)
    if mask.dtype != bool or mask.shape != (num_examples,):
        raise InputError(
            f"eligible must be {num_examples} booleans, got {mask.dtype} of shape {mask.shape}"
        )
    pool = np.flatnonzero(mask)
    if len(pool) < num_needed:
        raise InputError(
            f"eligible must leave at least the {num_needed} rows of the reference, got {len(pool)}"
        )
    return pool
