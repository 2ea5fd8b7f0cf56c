"""Facility location: rows such that every row of the set has a similar one among them."""

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
class FacilityLocationReport(SelectionReport):
    """``objective``: sum over all rows of the similarity to the most similar kept row.

    With partitions, to the most similar kept row of the same part: a lower bound of that.
    """

    objective: float
    num_partitions: int


class FacilityLocation(Selector):
    """Greedy ``max_S sum_i max_{j in S} similarity(i, j)``, the diversity step of Superfiltering.

    ``similarity="euclidean"`` is ``exp(-distance / dim)`` on the embeddings as they are: what the
    dense kernel of that name in submodlib holds, which the published code (arXiv:2402.00530) calls.
    ``"cosine"`` is ``max(0, cosine)``. The greedy order is exact up to ties within float32 rounding
    and at least ``1 - 1/e`` of the best value (Nemhauser et al., 1978), by lazy evaluation (Minoux,
    1978) on streamed products: no matrix of similarities. It costs two to three times
    ``n^2 * dim`` operations.

    ``partitions=p`` splits the rows at random into ``p`` parts of equal size, each with its share
    of the budget, and is exact within a part: a ``p``-th of the operations. Rows of all parts are
    then ordered by their gain. With a budget in tokens the row of the largest gain that still fits
    comes next; what parts leave free is filled with the rows that are covered worst.

    Args:
        budget: Share, count or TokenBudget.
        similarity: ``"euclidean"`` or ``"cosine"``.
        partitions: 1 is the exact greedy order of the whole set.
        seed: Of the split; without effect on one part.
        device: ``"auto"`` is a GPU if there is one.

    Attributes:
        similarities_: (num_examples,) float32, to the most similar kept row (of the same part); 1
            for kept rows.
        gains_: (num_kept,) float64, what each kept row added to the sum when it was taken; NaN for
            rows that fill what parts left free.
        ranks_: Places in the greedy order; -1 for rows not kept.
        report_: FacilityLocationReport.
    """

    report_: FacilityLocationReport
    similarities_: NDArray[np.float32]
    gains_: NDArray[np.float64]

    def __init__(
        self,
        budget: Budget = 0.1,
        similarity: Literal["euclidean", "cosine"] = "euclidean",
        partitions: int = 1,
        seed: int = 42,
        device: str = "auto",
    ) -> None:
        self.budget = budget
        self.similarity = similarity
        self.partitions = partitions
        self.seed = seed
        self.device = device

    def fit(
        self,
        embeddings: ArrayLike,
        *,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> FacilityLocation:
        """Choose rows by their (num_examples, dim) embeddings.

        Raises:
            InputError: The embeddings are no finite matrix or have a row of zeros under cosine, the
                budget is out of range, the similarity unknown, or there are more parts than rows.
        """
        from codeact.selection.partitioned_greedy import partitioned_greedy  # brings torch

        vectors = check_embeddings(embeddings)
        rows = Rows(len(vectors), ids, vectors, num_tokens)
        room = Room.of(rows, self.budget)
        self._check(len(rows))
        parts = np.array_split(
            np.argsort(rows.keys(self.seed, "partitions")[rows.order]), self.partitions
        )
        found = partitioned_greedy(rows, vectors, room, parts, self.similarity, self.device)

        self.selected_ = rows.order[found.order]
        self.gains_ = found.gains
        self.ranks_ = rank_groups(len(rows), [self.selected_])
        self.similarities_ = (1 - found.losses)[rows.place]
        self.report_ = FacilityLocationReport(
            objective=len(rows) - float(found.losses.sum(dtype=np.float64)),
            num_partitions=self.partitions,
            **self._counts(rows, len(rows)),
        )
        self.reasons_ = explain_coverage(self.selected_, self.gains_, self.similarities_)
        return self

    def _check(self, num_rows: int) -> None:
        if self.similarity not in ("euclidean", "cosine"):
            raise InputError(f"similarity must be euclidean or cosine, got {self.similarity!r}")
        if not 1 <= self.partitions <= num_rows:
            raise InputError(
                f"partitions must be from 1 to {num_rows}, the rows, got {self.partitions}"
            )


def explain_coverage(
    selected: NDArray[np.int64], gains: NDArray[np.float64], similarities: NDArray[np.float32]
) -> list[str]:
    """A reason for every row of a facility location."""
    reasons = [
        f"dropped: a kept row is similar to it by {value:.5f}" for value in similarities.tolist()
    ]
    for place, (row, gain) in enumerate(zip(selected, gains.tolist(), strict=True)):
        how = f"adds {gain:.4g} to the coverage" if np.isfinite(gain) else "fills what was free"
        reasons[row] = f"kept: place {place + 1} of {len(selected)}, {how}"
    return reasons
