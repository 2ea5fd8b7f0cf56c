"""QAQ: how much an answer tells of its question, neither too little nor too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from codeact.errors import InputError
from codeact.selection.budget import Budget
from codeact.selection.ranked import rank_rows
from codeact.selection.rows import Rows
from codeact.selection.selector import SelectionReport, Selector, check_scores, rank_groups

if TYPE_CHECKING:
    from typing import Self

Rule = Literal["band", "difference"]


@dataclass(frozen=True, kw_only=True)
class QAQReport(SelectionReport):
    """``num_bins`` hold rows.

    ``lowest`` and ``highest`` are of what ranks the kept rows: rank, or difference of ranks.
    """

    num_no_score: int
    num_bins: int
    lowest: float
    highest: float


class QAQ(Selector):
    """QAQ (arXiv:2603.12165): by reverse mutual information, compared at equal difficulty.

    ``rmi = log PPL(question) - log PPL(question | answer)``. Rows are cut by ``ppl_direct``, the
    perplexity of the question alone, into bins of equal size, and within each bin they are ranked
    by ``rmi``: ``(place + 1/2) / size of the bin``, from 0 for what tells least to 1. By rule:

    - ``band``: low ranks are answers that do not fit, the highest ones are copies and templates;
      the paper keeps ranks 0.5 to 0.75, a quarter of the set. Here each bin gives its share of the
      budget, the ranks nearest to the middle of ``band`` first: a budget of a quarter is that band,
      other budgets narrow or widen it.
    - ``difference``: the rows that a strong model ranks highest above a weak one
      (``rank_strong - rank_weak``, the paper takes those above 0.1), over the whole set. Both are
      ranked within the bins of the strong model's ``ppl_direct``.

    No code is published: that bins are of equal size, how ranks are counted, whose bins a
    difference uses and how a budget is met are ours.

    Args:
        budget: Share, count or :class:`TokenBudget`, met exactly.
        rule: ``band`` or ``difference``.
        band: Ranks to aim at.
        num_bins: 10 in the paper; with fewer rows than that, each is a bin.
        min_difference: Rows whose difference is not above it are not eligible; None takes all.

    Attributes:
        rmi_ranks_: (num_examples,) float64, rank of ``rmi`` within the bin; NaN without a score.
        differences_: (num_examples,) float64, for ``difference``; else None.
        ranks_: Places in the bin for ``band``, in the set for ``difference``.
        report_: QAQReport.
    """

    def __init__(
        self,
        budget: Budget = 0.25,
        rule: Rule = "band",
        band: tuple[float, float] = (0.5, 0.75),
        num_bins: int = 10,
        min_difference: float | None = None,
    ) -> None:
        self.budget = budget
        self.rule = rule
        self.band = band
        self.num_bins = num_bins
        self.min_difference = min_difference

    def fit(
        self,
        rmi: ArrayLike,
        ppl_direct: ArrayLike,
        *,
        weak_rmi: ArrayLike | None = None,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> Self:
        """Choose; the columns are those of ``Scorer.rmi``.

        Args:
            rmi: (num_examples,) by the strong model; NaN or None where there is none.
            ppl_direct: (num_examples,) perplexity of the question alone.
            weak_rmi: (num_examples,) by a weak model; ``difference`` needs it.
            ids: Names of the rows, which order ties.
            num_tokens: (num_examples,) tokens of each row, for a budget in tokens.

        Raises:
            InputError: An option has no meaning, ``weak_rmi`` is missing, the columns differ in
                length, or the budget asks for more than is eligible.
        """
        self._check_options()
        strong = check_scores(rmi, "rmi")
        difficulty = check_scores(ppl_direct, "ppl_direct", len(strong))
        known = ~np.isnan(strong) & ~np.isnan(difficulty)
        rows = Rows(len(strong), ids, num_tokens=num_tokens)
        self.differences_ = None
        if self.rule == "difference":
            if weak_rmi is None:
                raise InputError(
                    "weak_rmi, the RMI by a weaker model, must be given with rule = 'difference'"
                )
            weak = check_scores(weak_rmi, "weak_rmi", len(strong))
            known &= ~np.isnan(weak)
        bins = _bins(rows, difficulty, known, self.num_bins)
        self.rmi_ranks_ = _ranks_within(rows, strong, bins)
        if self.rule == "difference":
            self.differences_ = self.rmi_ranks_ - _ranks_within(rows, weak, bins)
            self._by_difference(rows, self.differences_, known, len(bins))
        else:
            self._by_band(rows, bins, int((~known).sum()))
        return self

    def _check_options(self) -> None:
        low, high = self.band
        if self.rule not in ("band", "difference"):
            raise InputError(f"rule must be band or difference, got {self.rule!r}")
        if not 0 <= low < high <= 1:
            raise InputError(f"band must be two rising ranks from 0 to 1, got {self.band}")
        if self.num_bins < 1:
            raise InputError(f"num_bins must be at least 1, got {self.num_bins}")

    def _by_band(self, rows: Rows, bins: list[NDArray[np.int64]], no_score: int) -> None:
        """Every bin its share, nearest to the middle of the band first."""
        middle = sum(self.band) / 2
        groups = []
        for members in bins:
            away = _steps(np.abs(self.rmi_ranks_[members] - middle))
            groups.append(members[np.lexsort((rows.place[members], away))])
        why = f"{no_score} rows have no score"
        self.selected_ = rows.take_groups(groups, self.budget, why).astype(np.int64)
        self.ranks_ = rank_groups(len(rows), groups)
        self._report(rows, self.rmi_ranks_, no_score, len(bins))
        reasons = ["dropped: no RMI"] * len(rows)
        kept = set(self.selected_.tolist())
        for index, members in enumerate(groups):
            for row in members.tolist():
                reasons[row] = (
                    f"{'kept' if row in kept else 'dropped'}: RMI rank {self.rmi_ranks_[row]:.3f} "
                    f"in bin {index + 1} of {len(groups)}, place {self.ranks_[row] + 1} of "
                    f"{len(members)} from {middle:g}"
                )
        self.reasons_ = reasons

    def _by_difference(
        self,
        rows: Rows,
        differences: NDArray[np.float64],
        known: NDArray[np.bool_],
        num_bins: int,
    ) -> None:
        """The highest differences of the set."""
        eligible = known.copy()
        why = f"{(~known).sum()} rows have no score of both models"
        if self.min_difference is not None:
            eligible &= _steps(differences) > _steps(self.min_difference)  # NaN is not
            low = int((known & ~eligible).sum())
            why += f", {low} have a difference of {self.min_difference:g} or less"
        order = rank_rows(rows, -_steps(differences), eligible)
        selected = rows.take(order, self.budget, why)
        self._settle(rows, order, selected, "rank by the strong model above the weak one")
        self._report(rows, differences, int((~known).sum()), num_bins)
        reasons = list(self.reasons_)
        for row in np.flatnonzero(~known).tolist():
            reasons[row] = "dropped: no RMI of both models"
        for row in np.flatnonzero(known & ~eligible).tolist():
            reasons[row] = f"dropped: difference of ranks {differences[row]:.3f} is too low"
        self.reasons_ = reasons

    def _report(
        self, rows: Rows, values: NDArray[np.float64], no_score: int, num_bins: int
    ) -> None:
        kept = values[self.selected_]
        self.report_ = QAQReport(
            **self._counts(rows, int((self.ranks_ >= 0).sum())),
            num_no_score=no_score,
            num_bins=num_bins,
            lowest=float(kept.min()),
            highest=float(kept.max()),
        )


def _bins(
    rows: Rows, difficulty: NDArray[np.float64], known: NDArray[np.bool_], num_bins: int
) -> list[NDArray[np.int64]]:
    """Rows by rising difficulty, cut into parts whose sizes differ by at most one."""
    order = rank_rows(rows, difficulty, known)
    return [part for part in np.array_split(order, num_bins) if len(part)]


def _steps(ranks: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Ranks in whole steps, so that float rounding does not decide between equal ones."""
    return np.rint(np.asarray(ranks) * 2.0**40)


def _ranks_within(
    rows: Rows, scores: NDArray[np.float64], bins: Sequence[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """(num_examples,) rank of each score in its bin, in (0, 1); equal scores share their mean."""
    ranks = np.full(len(rows), np.nan)
    for members in bins:
        ranks[members] = (rankdata(scores[members]) - 0.5) / len(members)
    return ranks
