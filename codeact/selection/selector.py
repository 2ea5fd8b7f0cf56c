"""What every selector has in common: its attributes, its report, its reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from codeact.errors import InputError
from codeact.selection.budget import Budget, TokenBudget
from codeact.selection.rows import Rows


@dataclass(frozen=True, kw_only=True)
class SelectionReport:
    """What every method reports; methods add fields of their own.

    ``num_asked`` and ``tokens_asked`` are what the budget stands for, one of them None. With a
    budget of rows ``num_kept == num_asked``; with one of tokens ``tokens_kept <= tokens_asked``.
    """

    num_examples: int
    num_eligible: int
    num_kept: int
    num_asked: int | None = None
    tokens_asked: int | None = None
    tokens_kept: int | None = None


class Selector(BaseEstimator):  # type: ignore[misc]
    """A way to choose rows, in scikit-learn's shape: options at construction, data in ``fit``.

    ``fit`` takes what the method needs by position, then ``ids`` (names of the rows) and
    ``num_tokens`` (for a :class:`TokenBudget`) by keyword, and returns itself. The kept set depends
    on the rows, the options and the seed, not on the order in which rows are listed.

    Attributes:
        selected_: (num_kept,) int64 row indices, best first as the method sees it.
        ranks_: (num_examples,) int32 place of each row in the method's order, from 0; -1 for rows
            that it does not rank. What the places are counted in (the set, a cluster, a band) the
            class says.
        reasons_: (num_examples,) one plain-word reason a row; places count from 1 there.
        report_: A :class:`SelectionReport`.
    """

    budget: Budget
    selected_: NDArray[np.int64]
    ranks_: NDArray[np.int32]
    reasons_: Sequence[str]
    report_: SelectionReport

    def _counts(self, rows: Rows, num_eligible: int) -> dict[str, Any]:
        """The fields of :class:`SelectionReport`, once ``selected_`` is there."""
        counts: dict[str, Any] = {
            "num_examples": len(rows),
            "num_eligible": num_eligible,
            "num_kept": len(self.selected_),
        }
        if rows.num_tokens is not None:
            counts["tokens_kept"] = int(rows.num_tokens[self.selected_].sum())
        if isinstance(self.budget, TokenBudget):
            counts["tokens_asked"] = rows.asked(self.budget)
        else:  # None is a budget that follows another selection
            asked = len(self.selected_) if self.budget is None else rows.asked(self.budget)
            counts["num_asked"] = asked
        return counts

    def _settle(
        self, rows: Rows, order: NDArray[np.int64], selected: NDArray[np.int64], what: str
    ) -> None:
        """Set all attributes of a method that ranks the whole set in one order.

        Args:
            rows: Of the set.
            order: Eligible rows, best first.
            selected: Those kept, best first.
            what: What places are by: "perplexity", "distance to the rows kept before".
        """
        self.selected_ = selected.astype(np.int64)
        self.ranks_ = np.full(len(rows), -1, dtype=np.int32)
        self.ranks_[order] = np.arange(len(order))
        self.report_ = SelectionReport(**self._counts(rows, len(order)))
        kept = np.zeros(len(rows), dtype=bool)
        kept[selected] = True
        self.reasons_ = [
            f"{'kept' if is_kept else 'dropped'}: place {rank + 1} of {len(order)} by {what}"
            if rank >= 0
            else "dropped: not eligible"
            for rank, is_kept in zip(self.ranks_.tolist(), kept.tolist(), strict=True)
        ]


def rank_groups(num_rows: int, groups: Sequence[NDArray[np.int64]]) -> NDArray[np.int32]:
    """``ranks_`` counted in groups: the place of each row in its group, -1 for a row in none."""
    ranks = np.full(num_rows, -1, dtype=np.int32)
    for members in groups:
        ranks[members] = np.arange(len(members))
    return ranks


def check_scores(
    scores: ArrayLike, name: str, num_examples: int | None = None
) -> NDArray[np.float64]:
    """Scores as (num_examples,) float64, NaN where there is none.

    Raises:
        InputError: Not one number or None an example, another number of examples, an infinity, or
            no score at all.
    """
    try:
        values = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be one number or None an example") from None
    if values.ndim != 1 or (num_examples is not None and len(values) != num_examples):
        wanted = "one number an example" if num_examples is None else f"{num_examples} numbers"
        raise InputError(f"{name} must be {wanted}, got shape {values.shape}")
    if np.isinf(values).any():
        raise InputError(f"{name} must be finite or null, got {np.isinf(values).sum()} infinities")
    if np.isnan(values).all():
        raise InputError(f"{name} must hold at least one score, all {len(values)} are null")
    return values
