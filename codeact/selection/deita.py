"""DEITA: complex and good rows first, without those that resemble one kept before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.budget import Budget
from codeact.selection.clustering import check_embeddings
from codeact.selection.room import Room
from codeact.selection.rows import Rows
from codeact.selection.selector import SelectionReport, Selector, check_scores, rank_groups


@dataclass(frozen=True, kw_only=True)
class DeitaReport(SelectionReport):
    """What the similarity filter did.

    ``num_no_score`` rows lack a score; ``num_alike`` were looked at and too similar, of which
    ``num_refilled`` are kept all the same, because rows below the threshold did not fill the
    budget; ``num_not_reached`` come behind the last row that fits.
    """

    num_no_score: int
    num_alike: int
    num_refilled: int
    num_not_reached: int


class Deita(Selector):
    """Score-first, diversity-aware selection (DEITA, arXiv:2312.15685).

    Rows are sorted by ``complexity * quality``; each is kept if its cosine to every row kept before
    is at most ``threshold``, until the budget is met. Rows are compared one by one, as DEITA's code
    does by default; with a batch size it also drops rows for resembling dropped ones of their
    batch. When rows are left over but none below the threshold, the budget is filled from the
    dropped ones in their order (the rule of the CodeACT authors' follow-up) and the report counts
    them. Rows without one of the scores are never kept.

    Args:
        budget: Share, count or TokenBudget; with tokens a row that no longer fits is passed over.
        threshold: Cosine above which a row is too similar, in (-1, 1].
        device: ``"auto"`` is a GPU if there is one.

    Attributes:
        scores_: (num_examples,) float64, the products; NaN where there is none.
        similarities_: (num_examples,) float32, the largest cosine to a row kept before, when the
            row was looked at; NaN where it was not.
        ranks_: Places among the kept rows; -1 for others.
        report_: DeitaReport.
    """

    report_: DeitaReport
    scores_: NDArray[np.float64]
    similarities_: NDArray[np.float32]

    def __init__(self, budget: Budget = 0.1, threshold: float = 0.9, device: str = "auto") -> None:
        self.budget = budget
        self.threshold = threshold
        self.device = device

    def fit(
        self,
        complexity: ArrayLike,
        quality: ArrayLike,
        embeddings: ArrayLike,
        *,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> Deita:
        """Choose rows by two scores, larger is better, and (num_examples, dim) embeddings.

        Raises:
            InputError: Lengths differ, a row of the embeddings is zeros, the threshold or the
                budget is out of range, or too few rows have both scores.
        """
        from codeact.selection.arranged_points import arranged_points  # brings torch
        from codeact.selection.unlike_kept import unlike_kept

        vectors = check_embeddings(embeddings)
        first = check_scores(complexity, "complexity", len(vectors))
        second = check_scores(quality, "quality", len(vectors))
        if not -1 < self.threshold <= 1:
            raise InputError(f"threshold must be above -1 and at most 1, got {self.threshold!r}")
        rows = Rows(len(vectors), ids, vectors, num_tokens)
        self.scores_ = first * second
        eligible = np.flatnonzero(~np.isnan(self.scores_))
        num_none = len(rows) - len(eligible)
        room = Room.of(rows, self.budget, eligible, f"{num_none} rows lack a score")
        order = np.lexsort((rows.place[eligible], -self.scores_[eligible]))
        points = arranged_points(rows, vectors, self.device, "unit")
        found = unlike_kept(points, rows.place[eligible[order]], self.threshold, room)
        refilled = room.fill(found.alike)

        self.selected_ = rows.order[np.concatenate([found.kept, refilled])]
        self.ranks_ = rank_groups(len(rows), [self.selected_])
        self.similarities_ = found.similarities[rows.place]
        self.report_ = DeitaReport(
            num_no_score=num_none,
            num_alike=len(found.alike),
            num_refilled=len(refilled),
            num_not_reached=len(eligible) - len(found.kept) - len(found.alike),
            **self._counts(rows, len(eligible)),
        )
        self.reasons_ = self._explain(rows.order[found.alike])
        return self

    def _explain(self, alike: NDArray[np.int64]) -> list[str]:
        is_alike = np.isin(np.arange(len(self.ranks_)), alike)
        reasons = []
        for row, rank in enumerate(self.ranks_.tolist()):
            score, cosine = self.scores_[row], self.similarities_[row]
            near = f"cosine {cosine:.4f} to a row kept before"
            if rank >= 0:
                how = f", though {near}: the budget was not full" if is_alike[row] else ""
                place = f"place {rank + 1} of {len(self.selected_)}"
                reasons.append(f"kept: {place} by complexity times quality, {score:.4g}{how}")
            elif np.isnan(score):
                reasons.append("dropped: no score")
            elif is_alike[row]:
                reasons.append(f"dropped: {near}, above the threshold of {self.threshold}")
            else:
                reasons.append(f"dropped: score {score:.4g}, when the budget was full")
        return reasons
