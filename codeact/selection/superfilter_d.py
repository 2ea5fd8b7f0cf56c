"""Superfiltering.D: the top IFD below 1, thinned by facility location."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.budget import Budget, resolve_budget
from codeact.selection.clustering import check_embeddings
from codeact.selection.facility_location import explain_coverage
from codeact.selection.ranked import below_cap, check_ifd, rank_rows
from codeact.selection.room import Room
from codeact.selection.rows import Rows
from codeact.selection.selector import SelectionReport, Selector, rank_groups


@dataclass(frozen=True, kw_only=True)
class SuperfilterDReport(SelectionReport):
    """Which rows took part, and how well the kept ones cover those short-listed.

    ``objective``: sum over the short-listed rows of their similarity to the most similar kept row.
    ``lowest_ifd``: the lowest IFD on the list.
    """

    num_no_score: int
    num_over_cap: int
    num_short_listed: int
    lowest_ifd: float
    objective: float


class SuperfilterD(Selector):
    """IFD first, diversity second (Superfiltering.D, arXiv:2402.00530).

    Rows with an IFD of 1 or more are dropped, the ``share`` of the set with the highest IFD among
    the rest is short-listed, and :class:`FacilityLocation` keeps rows of the list. A list that does
    not hold the budget goes on down the order until it does, so that the budget is always met.
    Where fewer rows are below 1 than the share asks for, all of them are listed. What the list
    leaves free of a budget in tokens goes to the rows behind it that fit, by falling IFD.

    Args:
        budget: Share, count or TokenBudget, of the whole set; the paper keeps 2 %.
        share: Of the set that is short-listed, in (0, 1].
        cap: Rows of this IFD or more are dropped; None keeps them.
        similarity: Of :class:`FacilityLocation`.
        device: ``"auto"`` is a GPU if there is one.

    Attributes:
        short_listed_: Row indices of the list, by falling IFD.
        similarities_: (num_examples,) float32, to the most similar kept row; NaN off the list.
        gains_: (num_kept,) float64, of the facility location; NaN for rows that fill what was
            left free.
        ranks_: Places in the order of the facility location; -1 for rows not kept.
        report_: SuperfilterDReport.
    """

    report_: SuperfilterDReport
    short_listed_: NDArray[np.int64]
    similarities_: NDArray[np.float32]
    gains_: NDArray[np.float64]

    def __init__(
        self,
        budget: Budget = 0.02,
        share: float = 0.2,
        cap: float | None = 1.0,
        similarity: Literal["euclidean", "cosine"] = "euclidean",
        device: str = "auto",
    ) -> None:
        self.budget = budget
        self.share = share
        self.cap = cap
        self.similarity = similarity
        self.device = device

    def fit(
        self,
        ifd: ArrayLike,
        embeddings: ArrayLike,
        *,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> SuperfilterD:
        """Choose rows by their IFD, NaN or None where there is none, and embeddings.

        Raises:
            InputError: Lengths differ, an IFD is negative, share, cap, similarity or budget is out
                of range, or too few rows are below the cap.
        """
        from codeact.selection.partitioned_greedy import partitioned_greedy  # brings torch

        vectors = check_embeddings(embeddings)
        scores = check_ifd(ifd, len(vectors))
        self._check()
        rows = Rows(len(vectors), ids, vectors, num_tokens)
        below = below_cap(scores, self.cap)
        num_none = int(np.isnan(scores).sum())
        num_over = len(rows) - num_none - int(below.sum())
        why = f"{num_none} rows have no score"
        if self.cap is not None:
            why += f", {num_over} have an IFD of {self.cap:g} or more"
        order = rank_rows(rows, -scores, below)
        room = Room.of(rows, self.budget, order, why)
        self.short_listed_ = order[: self._length(rows.place[order], room)]
        listed = np.sort(rows.place[self.short_listed_])
        found = partitioned_greedy(rows, vectors, room, [listed], self.similarity, self.device)
        behind = room.fill(rows.place[order[len(listed) :]])

        self.selected_ = rows.order[np.concatenate([found.order, behind])]
        self.gains_ = np.concatenate([found.gains, np.full(len(behind), np.nan)])
        self.ranks_ = rank_groups(len(rows), [self.selected_])
        self.similarities_ = np.full(len(rows), np.nan, dtype=np.float32)
        self.similarities_[rows.order[listed]] = 1 - found.losses[listed]
        self.report_ = SuperfilterDReport(
            num_no_score=num_none,
            num_over_cap=num_over,
            num_short_listed=len(listed),
            lowest_ifd=float(scores[self.short_listed_[-1]]),
            objective=len(listed) - float(found.losses[listed].sum(dtype=np.float64)),
            **self._counts(rows, len(order)),
        )
        self.reasons_ = self._explain(scores)
        return self

    def _check(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"share must be above 0 and at most 1, got {self.share!r}")
        if self.similarity not in ("euclidean", "cosine"):
            raise InputError(f"similarity must be euclidean or cosine, got {self.similarity!r}")

    def _length(self, order: NDArray[np.int64], room: Room) -> int:
        """How many of the rows in ``order`` are listed: the share, or as many as fill the room."""
        enough = int(np.searchsorted(np.cumsum(room.costs[order]), room.total)) + 1
        return min(len(order), max(enough, resolve_budget(float(self.share), len(room.costs))))

    def _explain(self, scores: NDArray[np.float64]) -> list[str]:
        reasons = explain_coverage(self.selected_, self.gains_, self.similarities_)
        for row in np.flatnonzero(np.isnan(self.similarities_) & (self.ranks_ < 0)):
            if np.isnan(scores[row]):
                reasons[row] = "dropped: no score"
            elif self.cap is not None and scores[row] >= self.cap:
                reasons[row] = f"dropped: IFD {scores[row]:.4g} is not below {self.cap:g}"
            else:
                reasons[row] = (
                    f"dropped: IFD {scores[row]:.4g} is not among the {len(self.short_listed_)} "
                    "highest below the cap"
                )
        return reasons
