"""T-SHIRT: high selective IFD that does not hang on the exact embedding of the text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.budget import Budget, TokenBudget
from codeact.selection.ranked import rank_rows
from codeact.selection.rows import Rows
from codeact.selection.selector import SelectionReport, Selector, check_scores

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True, kw_only=True)
class TShirtReport(SelectionReport):
    """``num_pool`` rows with the highest S-IFD were compared by its spread.

    Rows that were not eligible are counted once, by what was found first: no score, then a mean
    noisy IFD of 1 or more.
    """

    num_pool: int
    num_no_score: int
    num_ifd_too_high: int


class TShirt(Selector):
    """T-SHIRT (arXiv:2506.01317): of the best by selective IFD, those where it varies least.

    Rows whose mean IFD over the noisy copies is 1 or more are dropped. Of the others the
    ``pool_factor`` times as many as the budget with the highest mean S-IFD are the pool, and of
    these the rows with the lowest standard deviation of S-IFD over the copies are kept.

    Where we differ from the released script: ties go by the rows' names and not by their position,
    a row without a deviation is dropped before the pool is made and not after, and a budget that
    cannot be met is refused. For a budget in tokens the pool is the shortest run of rows, highest
    S-IFD first, that has ``pool_factor`` times the tokens; what it leaves free is filled from the
    rows behind it.

    Args:
        budget: Share, count or :class:`TokenBudget`, met exactly.
        pool_factor: 2 in the paper; at least 1.

    Attributes:
        selected_: By rising standard deviation, then what fills the rest by falling S-IFD.
        ranks_: Places in the pool, from the lowest deviation; behind it the other eligible rows,
            from the highest S-IFD.
        report_: TShirtReport.
    """

    def __init__(self, budget: Budget = 0.05, pool_factor: float = 2.0) -> None:
        self.budget = budget
        self.pool_factor = pool_factor

    def fit(
        self,
        s_ifd: ArrayLike,
        s_ifd_std: ArrayLike,
        ifd_noisy_mean: ArrayLike,
        *,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> Self:
        """Choose; the columns are those of ``Scorer.s_ifd``.

        Args:
            s_ifd: (num_examples,) mean over the noisy copies; NaN or None where there is none.
            s_ifd_std: (num_examples,) its standard deviation.
            ifd_noisy_mean: (num_examples,) mean IFD of the copies.
            ids: Names of the rows, which order ties.
            num_tokens: (num_examples,) tokens of each row, for a budget in tokens.

        Raises:
            InputError: The columns differ in length, or the budget asks for more than is eligible.
        """
        if not self.pool_factor >= 1:
            raise InputError(f"pool_factor must be at least 1, got {self.pool_factor!r}")
        mean = check_scores(s_ifd, "s_ifd")
        spread = check_scores(s_ifd_std, "s_ifd_std", len(mean))
        noisy = check_scores(ifd_noisy_mean, "ifd_noisy_mean", len(mean))
        rows = Rows(len(mean), ids, num_tokens=num_tokens)
        known = ~np.isnan(mean) & ~np.isnan(spread) & ~np.isnan(noisy)
        eligible = known & (noisy < 1)
        by_mean = rank_rows(rows, -mean, eligible)
        no_score, too_high = int((~known).sum()), int((known & ~eligible).sum())
        why = f"{no_score} rows have no S-IFD, {too_high} have a mean noisy IFD of 1 or more"
        rows.take(by_mean, self.budget, why)  # refuses, before the pool hides why
        size = self._pool_size(rows, by_mean)
        in_pool = np.zeros(len(mean), dtype=bool)
        in_pool[by_mean[:size]] = True
        pool = rank_rows(rows, spread, in_pool)
        order = np.concatenate([pool, by_mean[size:]])
        selected = rows.take(order, self.budget, why)

        self._settle(rows, order, selected, "spread of S-IFD")
        self.report_ = TShirtReport(
            **self._counts(rows, len(order)),
            num_pool=size,
            num_no_score=no_score,
            num_ifd_too_high=too_high,
        )
        self.reasons_ = _explain(self.ranks_, by_mean, size, selected, known, noisy)
        return self

    def _pool_size(self, rows: Rows, by_mean: NDArray[np.int64]) -> int:
        if isinstance(self.budget, TokenBudget) and rows.num_tokens is not None:
            wanted = self.pool_factor * rows.asked(self.budget)
            so_far = np.cumsum(rows.num_tokens[by_mean])
            return min(len(by_mean), int(np.searchsorted(so_far, wanted)) + 1)
        return min(len(by_mean), math.ceil(self.pool_factor * rows.asked(self.budget)))


def _explain(
    ranks: NDArray[np.int32],
    by_mean: NDArray[np.int64],
    size: int,
    selected: NDArray[np.int64],
    known: NDArray[np.bool_],
    noisy: NDArray[np.float64],
) -> list[str]:
    """A reason for every row."""
    kept = set(selected.tolist())
    reasons = [
        f"dropped: mean noisy IFD {value:.4g} is not below 1" if has else "dropped: no S-IFD"
        for has, value in zip(known.tolist(), noisy.tolist(), strict=True)
    ]
    for place, row in enumerate(by_mean.tolist()):
        word = "kept" if row in kept else "dropped"
        how = f"behind the {size} that are compared by spread"
        if place < size:
            how = f"spread place {ranks[row] + 1} of {size}"
        elif row in kept:
            how += ", whose tokens left room"
        reasons[row] = f"{word}: S-IFD place {place + 1} of {len(by_mean)}, {how}"
    return reasons
