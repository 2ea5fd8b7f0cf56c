"""Selections by one score of the whole set: the top IFD, perplexity or length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.budget import Budget
from codeact.selection.rows import Rows
from codeact.selection.selector import Selector, check_scores

if TYPE_CHECKING:
    from typing import Self

Keep = Literal["highest", "lowest", "middle"]


class TopIFD(Selector):
    """The rows with the highest IFD below a cap.

    With the cap of 1 it is Superfiltering (arXiv:2402.00530) without its diverse variant; the
    published script multiplies its rate with 52,002 rows whatever the set, here the budget is of
    the set. Without a cap (``cap=None``) it is the baseline that the CodeACT authors found to lose
    against random rows on code; it is here to be compared with.

    Args:
        budget: Share, count or :class:`TokenBudget`, met exactly.
        cap: Rows of this IFD or more are not eligible: there the prompt does not help. None keeps
            them.

    Attributes:
        ranks_: Places from the highest IFD among the eligible rows of the set.
    """

    def __init__(self, budget: Budget = 0.4, cap: float | None = 1.0) -> None:
        self.budget = budget
        self.cap = cap

    def fit(
        self,
        ifd: ArrayLike,
        *,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> Self:
        """Choose.

        Args:
            ifd: (num_examples,) ``ifd_ppl`` or ``ifd_loss``; NaN or None where there is none.
            ids: Names of the rows, which order ties.
            num_tokens: (num_examples,) tokens of each row, for a budget in tokens.

        Raises:
            InputError: An IFD is negative, or the budget asks for more than is eligible.
        """
        scores = check_ifd(ifd)
        rows = Rows(len(scores), ids, num_tokens=num_tokens)
        below = below_cap(scores, self.cap)
        order = rank_rows(rows, -scores, below)
        too_high = int((~below & ~np.isnan(scores)).sum())
        no_score = int(np.isnan(scores).sum())
        why = f"{no_score} rows have no score"
        if self.cap is not None:
            why += f", {too_high} have an IFD of {self.cap:g} or more"
        self._settle(rows, order, rows.take(order, self.budget, why), "IFD")
        self.reasons_ = name_failures(
            self.reasons_, scores, "IFD", np.where(~below, f"is not below {self.cap}", "")
        )
        return self


class TopPerplexity(Selector):
    """The rows whose response has the highest, lowest or most ordinary perplexity.

    Perplexity pruning of pre-training data (arXiv:2309.04564) keeps one end or the middle of the
    distribution; as a baseline for code instructions the highest is taken.

    Args:
        budget: Share, count or :class:`TokenBudget`, met exactly.
        keep: ``highest``, ``lowest``, or ``middle``: those nearest in rank to the median.

    Attributes:
        ranks_: Places from the highest, the lowest or the median.
    """

    def __init__(self, budget: Budget = 0.4, keep: Keep = "highest") -> None:
        self.budget = budget
        self.keep = keep

    def fit(
        self,
        ppl: ArrayLike,
        *,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> Self:
        """Choose.

        Args:
            ppl: (num_examples,) ``ppl_response``; NaN or None where there is none.
            ids: Names of the rows, which order ties.
            num_tokens: (num_examples,) tokens of each row, for a budget in tokens.

        Raises:
            InputError: The budget asks for more rows than have a score.
        """
        if self.keep not in ("highest", "lowest", "middle"):
            raise InputError(f"keep must be highest, lowest or middle, got {self.keep!r}")
        scores = check_scores(ppl, "ppl")
        rows = Rows(len(scores), ids, num_tokens=num_tokens)
        known = ~np.isnan(scores)
        order = rank_rows(rows, -scores if self.keep == "highest" else scores, known)
        if self.keep == "middle":
            from_middle = np.abs(2 * np.arange(len(order)) - (len(order) - 1))
            order = order[np.argsort(from_middle, kind="stable")]  # of two, the lower first
        why = f"{(~known).sum()} rows have no score"
        self._settle(
            rows, order, rows.take(order, self.budget, why), f"perplexity, {self.keep} first"
        )
        self.reasons_ = name_failures(self.reasons_, scores, "perplexity")
        return self


class LongestResponse(Selector):
    """The rows with the longest responses (arXiv:2402.04833), a baseline that is hard to beat.

    Args:
        budget: Share, count or :class:`TokenBudget`, met exactly.

    Attributes:
        ranks_: Places from the longest among the rows that have a response.
    """

    def __init__(self, budget: Budget = 0.4) -> None:
        self.budget = budget

    def fit(
        self,
        response_tokens: ArrayLike,
        *,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> Self:
        """Choose.

        Args:
            response_tokens: (num_examples,) tokens of the response; a row of 0 is not eligible.
            ids: Names of the rows, which order ties.
            num_tokens: (num_examples,) tokens of each row, for a budget in tokens.

        Raises:
            InputError: A length is negative, or the budget asks for more rows than have a response.
        """
        lengths = check_scores(response_tokens, "response_tokens")
        if (lengths < 0).any():
            raise InputError(f"response_tokens must be 0 or more, got {np.nanmin(lengths):g}")
        lengths = np.where(lengths == 0, np.nan, lengths)
        rows = Rows(len(lengths), ids, num_tokens=num_tokens)
        known = ~np.isnan(lengths)
        order = rank_rows(rows, -lengths, known)
        why = f"{(~known).sum()} rows have no response"
        self._settle(rows, order, rows.take(order, self.budget, why), "length of the response")
        self.reasons_ = name_failures(self.reasons_, lengths, "response")
        return self


def check_ifd(ifd: ArrayLike, num_examples: int | None = None) -> NDArray[np.float64]:
    """IFD as :func:`check_scores` gives it, refused where it is negative."""
    scores = check_scores(ifd, "ifd", num_examples)
    if (scores < 0).any():
        row = int(np.flatnonzero(scores < 0)[0])
        raise InputError(f"ifd must be 0 or more, got {scores[row]:g} in row {row}")
    return scores


def below_cap(scores: NDArray[np.float64], cap: float | None) -> NDArray[np.bool_]:
    """Which rows have a score, and one below the cap; None is no cap."""
    if cap is not None and not cap > 0:
        raise InputError(f"cap must be above 0 or None, got {cap!r}")
    return scores < (np.inf if cap is None else cap)  # NaN is never below


def rank_rows(
    rows: Rows, key: NDArray[np.float64], eligible: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Eligible rows by rising key; equal keys by place, so not by where they stand."""
    members = np.flatnonzero(eligible)
    return members[np.lexsort((rows.place[members], key[members]))]


def name_failures(
    reasons: Sequence[str],
    scores: NDArray[np.float64],
    name: str,
    refused: NDArray[np.str_] | None = None,
) -> list[str]:
    """Reasons with more to say where a row was not eligible: no score, or one that is refused."""
    named = list(reasons)
    for row in np.flatnonzero(np.isnan(scores)).tolist():
        named[row] = f"dropped: no {name}"
    if refused is not None:
        for row in np.flatnonzero((refused != "") & ~np.isnan(scores)).tolist():
            named[row] = f"dropped: {name} {scores[row]:.4g} {refused[row]}"
    return named
