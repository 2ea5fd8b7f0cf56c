"""K-center: rows such that none of the set is far from the nearest kept one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.budget import Budget
from codeact.selection.clustering import check_embeddings
from codeact.selection.room import Room
from codeact.selection.rows import Rows
from codeact.selection.selector import SelectionReport, Selector, rank_groups


@dataclass(frozen=True, kw_only=True)
class KCenterReport(SelectionReport):
    """``radius`` and ``mean_distance``: Euclidean, of all rows to their nearest kept row."""

    radius: float
    mean_distance: float


class KCenter(Selector):
    """Greedy k-center (Gonzalez, 1985; Sener and Savarese, arXiv:1708.00489).

    After a first row, the row farthest from all kept rows comes next, by Euclidean distance on the
    embeddings as they are; the radius is at most twice the best possible. Exactly the plain greedy
    order up to ties within rounding, at the cost of about one product of all rows with all kept
    rows (``2 * n * k * dim`` operations).

    ``start="random"`` begins with a row drawn by the seed, as the code of the CodeACT authors'
    follow-up does; ``start="mean"`` with the row nearest to the mean, and then the seed has no
    effect. With a budget in tokens, the farthest row that still fits comes next.

    Args:
        budget: Share, count or TokenBudget.
        start: ``"random"`` or ``"mean"``.
        seed: Of the random start.
        device: ``"auto"`` is a GPU if there is one.

    Attributes:
        distances_: (num_examples,) float32, to the nearest kept row; 0 for kept rows.
        ranks_: Places in the greedy order; -1 for rows not kept.
        report_: KCenterReport.
    """

    report_: KCenterReport
    distances_: NDArray[np.float32]

    def __init__(
        self,
        budget: Budget = 0.1,
        start: Literal["random", "mean"] = "random",
        seed: int = 42,
        device: str = "auto",
    ) -> None:
        self.budget = budget
        self.start = start
        self.seed = seed
        self.device = device

    def fit(
        self,
        embeddings: ArrayLike,
        *,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> KCenter:
        """Choose rows by their (num_examples, dim) embeddings.

        Raises:
            InputError: The embeddings are no finite matrix, the budget is out of range, or the
                start is unknown.
        """
        from codeact.selection.arranged_points import arranged_points  # brings torch
        from codeact.selection.farthest_first import farthest_first

        vectors = check_embeddings(embeddings)
        rows = Rows(len(vectors), ids, vectors, num_tokens)
        room = Room.of(rows, self.budget)
        points = arranged_points(rows, vectors, self.device, "centred")
        if self.start == "random":
            start = int(np.argmin(rows.keys(self.seed, "kcenter")[rows.order]))
        elif self.start == "mean":
            start = int(points.square().sum(dim=1).argmin())
        else:
            raise InputError(f"start must be random or mean, got {self.start!r}")
        found = farthest_first(points, start, room)

        self.selected_ = rows.order[found.order]
        self.ranks_ = rank_groups(len(rows), [self.selected_])
        self.distances_ = found.distances[rows.place]
        self.report_ = KCenterReport(
            radius=float(found.distances.max()),
            mean_distance=float(found.distances.mean(dtype=np.float64)),
            **self._counts(rows, len(rows)),
        )
        self.reasons_ = self._explain(found.gaps)
        return self

    def _explain(self, gaps: NDArray[np.float32]) -> list[str]:
        count = len(self.selected_)
        reasons = [
            f"dropped: {distance:.4g} from the nearest kept row, within the radius of "
            f"{self.report_.radius:.4g}"
            for distance in self.distances_.tolist()
        ]
        for place, (row, gap) in enumerate(zip(self.selected_, gaps.tolist(), strict=True)):
            how = f"{gap:.4g} from the rows kept before" if place else f"the {self.start} start"
            reasons[row] = f"kept: place {place + 1} of {count}, {how}"
        return reasons
