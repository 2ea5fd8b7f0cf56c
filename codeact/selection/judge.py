"""Selection by the ratings of a judge, such as a language model that was asked for grades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from codeact.selection.budget import Budget
from codeact.selection.ranked import name_failures, rank_rows
from codeact.selection.rows import Rows
from codeact.selection.selector import SelectionReport, Selector, check_scores

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True, kw_only=True)
class RatingReport(SelectionReport):
    """How much of the choice the ratings made, and how much their ties left to chance.

    Attributes:
        lowest_kept: Smallest rating among the rows kept.
        num_tied: Rows with that very rating.
        num_tied_kept: How many of them were kept. Where that is fewer than ``num_tied``, the hash
            of a row's name decided, which is as good as a draw.
    """

    lowest_kept: float
    num_tied: int
    num_tied_kept: int


class TopRating(Selector):
    """The rows that a judge rated highest, by a table of one's own.

    The baseline of selection by a language model's grades (AlpaGasus, arXiv:2307.08701, keeps
    ratings of 4.5 and more of 5). Here the budget decides and not a grade, so that it can be held
    against other methods. Grades on a scale of 1 to 5 tie a lot: rows of one rating go by the hash
    of their name, a draw that is the same each time, and the report says how many it decided on.

    Args:
        budget: Share, count or :class:`TokenBudget`, met exactly.

    Attributes:
        ranks_: Places from the highest rating among the rated rows.
        report_: A :class:`RatingReport`.
    """

    report_: RatingReport

    def __init__(self, budget: Budget = 0.4) -> None:
        self.budget = budget

    def fit(
        self,
        rating: ArrayLike,
        *,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> Self:
        """Choose.

        Args:
            rating: (num_examples,) on any scale, larger = better; NaN or None where there is none.
            ids: Names of the rows, which order ties; without them ties go by position.
            num_tokens: (num_examples,) tokens of each row, for a budget in tokens.

        Raises:
            InputError: The budget asks for more rows than are rated.
        """
        ratings = check_scores(rating, "rating")
        rows = Rows(len(ratings), ids, num_tokens=num_tokens)
        rated = ~np.isnan(ratings)
        order = rank_rows(rows, -ratings, rated)
        why = f"{(~rated).sum()} rows have no rating"
        selected = rows.take(order, self.budget, why)
        self._settle(rows, order, selected, "rating")
        self.reasons_ = [
            f"{reason}, {value:.4g}"
            for reason, value in zip(self.reasons_, ratings.tolist(), strict=True)
        ]
        self.reasons_ = name_failures(self.reasons_, ratings, "rating")
        lowest = float(ratings[selected].min())
        self.report_ = RatingReport(
            **self._counts(rows, len(order)),
            lowest_kept=lowest,
            num_tied=int((ratings == lowest).sum()),
            num_tied_kept=int((ratings[selected] == lowest).sum()),
        )
        return self
