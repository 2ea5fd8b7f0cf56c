"""Random rows at the lengths of another selection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.budget import Budget, TokenBudget
from codeact.selection.length_bands import (
    LengthBands,
    LengthMatchReport,
    borrow_nearest,
    compare_lengths,
    draw_from_bands,
    order_in_turn,
)
from codeact.selection.random_selection import check_eligible, shuffle_rows
from codeact.selection.rows import Rows
from codeact.selection.selector import Selector

if TYPE_CHECKING:
    from typing import Self

_LEAST_IN_BAND = 5


class LengthMatchedRandom(Selector):
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
        num_strata: Most bands to use. There are fewer where equal lengths cannot be split, or where
            a band would have fewer than 5 rows of the reference: bands of one row would draw the
            reference itself.
        budget: None draws as many rows as the reference has. A share or count draws that many, the
            bands in proportion; a :class:`TokenBudget` draws from the bands in turn, each as often
                as its share of the reference, until no row of these lengths fits. Rows of other
                lengths come in only where these have too few tokens.

    Attributes:
        selected_: From the shortest band to the longest, within a band as drawn; with a budget in
            tokens in turn.
        ranks_: Places in the draw of the band; -1 outside the lengths of the reference.
        report_: LengthMatchReport.
    """

    budget: Budget | None  # type: ignore[assignment]  # None: as the reference
    report_: LengthMatchReport

    def __init__(self, seed: int = 42, num_strata: int = 20, budget: Budget | None = None) -> None:
        self.seed = seed
        self.num_strata = num_strata
        self.budget = budget

    def fit(
        self,
        lengths: ArrayLike,
        reference_indices: ArrayLike,
        eligible: ArrayLike | None = None,
        *,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> Self:
        """Draw.

        Args:
            lengths: (num_examples,) e.g. response tokens.
            reference_indices: Distinct row indices of the selection to match.
            eligible: (num_examples,) bool, the rows that may be drawn; all by default.
            ids: Names of the rows; without them the draw is by position.
            num_tokens: (num_examples,) tokens of each row, for a budget in tokens.

        Raises:
            InputError: Shapes or indices are wrong, or fewer rows are eligible than needed.
        """
        if self.num_strata < 1:
            raise InputError(f"num_strata must be at least 1, got {self.num_strata}")
        values = _check_lengths(lengths)
        reference = _check_reference(reference_indices, len(values))
        rows = Rows(len(values), ids, num_tokens=num_tokens)
        pool = shuffle_rows(
            rows, check_eligible(eligible, len(values)), self.seed, "length-matched"
        )
        bands = LengthBands(values[reference], _num_bands(self.num_strata, len(reference)))
        drawn, borrowed = self._draw(rows, bands, values, pool)
        self.selected_ = np.concatenate([drawn, borrowed])
        self.report_ = LengthMatchReport(
            **self._counts(rows, len(pool)),
            **compare_lengths(bands, values, pool, reference, self.selected_),
            num_borrowed=len(borrowed),
        )
        self._explain(rows, bands, values, pool, borrowed)
        return self

    def _draw(
        self, rows: Rows, bands: LengthBands, lengths: NDArray[np.float64], pool: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows from their own bands, and rows borrowed for bands that ran out."""
        why = f"{len(lengths) - len(pool)} rows are not in the pool"
        if isinstance(self.budget, TokenBudget):
            order = order_in_turn(bands, lengths, pool)
            inside = order[bands.place(lengths[order]) >= 0]
            # Short rows of other lengths would fill the last gap, and be what a control must not
            # have: rows that the reference could not hold.
            if rows.num_tokens is not None:
                tokens = rows.num_tokens[inside]
                if tokens.sum() >= rows.asked(self.budget) >= tokens.min():
                    order = inside
            return rows.take(order, self.budget, why), np.zeros(0, np.int64)
        total = int(bands.sizes.sum())
        if self.budget is not None:
            total = rows.asked(self.budget)
        if len(pool) < total:
            raise InputError(
                f"eligible must leave at least the {total} rows to draw, got {len(pool)}"
            )
        wanted = bands.share(total)
        drawn = draw_from_bands(bands, wanted, lengths, pool)
        free = pool[~np.isin(pool, drawn)]
        return drawn, borrow_nearest(bands, wanted, lengths, free, drawn)

    def _explain(
        self,
        rows: Rows,
        bands: LengthBands,
        lengths: NDArray[np.float64],
        pool: NDArray[np.int64],
        borrowed: NDArray[np.int64],
    ) -> None:
        """Ranks and reasons: the place of each row in the draw of its band."""
        placed = bands.place(lengths[pool])
        self.ranks_ = np.full(len(rows), -1, dtype=np.int32)
        self.reasons_ = reasons = ["dropped: not eligible"] * len(rows)
        kept = set(self.selected_.tolist())
        for band in range(len(bands)):
            members = pool[placed == band]
            self.ranks_[members] = np.arange(len(members))
            span = f"of length {bands.low[band]:g} to {bands.high[band]:g}"
            for place, row in enumerate(members.tolist()):
                word = "kept" if row in kept else "dropped"
                reasons[row] = f"{word}: place {place + 1} of {len(members)} {span} by a draw"
        for row in pool[placed < 0].tolist():
            word = "kept" if row in kept else "dropped"
            reasons[row] = f"{word}: length {lengths[row]:g} is outside the reference's"
        for row in borrowed.tolist():
            reasons[row] = f"kept: length {lengths[row]:g} is nearest to a band that ran out"


def _num_bands(num_strata: int, num_reference: int) -> int:
    return min(num_strata, max(1, num_reference // _LEAST_IN_BAND))


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
