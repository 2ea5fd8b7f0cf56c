"""Parametric selection: the rows nearest to centroids that are trained to follow the set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.budget import Budget, TokenBudget
from codeact.selection.clustering import check_embeddings
from codeact.selection.room import Room
from codeact.selection.rows import Rows
from codeact.selection.selector import SelectionReport, Selector, rank_groups

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ParametricReport(SelectionReport):
    """``first_loss`` and ``last_loss``: before the first and the last step, of the rows read."""

    num_centroids: int
    first_loss: float
    last_loss: float


class Parametric(Selector):
    """Distribution-consistent selection of the CodeACT authors' follow-up (ActiveFT's objective).

    On embeddings of unit length, as many centroids as rows asked for start at random rows and take
    ``num_steps`` steps of Adam that pull each to the rows nearest to it and push them apart
    (arXiv:2303.14382; :mod:`codeact.selection.centroid_descent` has the formula). Then, centroid by
    centroid, the nearest row that is not taken yet is kept.

    It costs about ``2 * num_steps * k * (n + 2 * k) * dim`` operations: a matter for a GPU when ``n
    * k`` is large, or for ``batch_rows``, which lets a step read that many rows instead of all (a
    departure from the source: noisier steps, ``n / batch_rows`` times cheaper).

    With a budget in tokens there are as many centroids as rows of mean length would fit; those
    whose centroids have the most rows come first, then the rows farthest from all centroids.

    Args:
        budget: Share, count or TokenBudget.
        temperature: Of the similarities.
        balance: Weight of the repulsion among centroids.
        num_steps: Steps of Adam.
        learning_rate: Of Adam.
        init: ``"random"`` rows, or ``"farthest"``: the k-center order from a random row.
        batch_rows: Rows a step reads; None is all.
        seed: Of start and batches.
        device: ``"auto"`` is a GPU if there is one.

    Attributes:
        centroids_: (num_centroids, dim) float32, of unit length.
        similarities_: (num_examples,) float32 cosine to the nearest centroid.
        selected_: Rows by how many rows of the set are nearest to their centroid, most first.
        ranks_: Places in that order; -1 for rows not kept.
        report_: ParametricReport.
    """

    report_: ParametricReport
    centroids_: NDArray[np.float32]
    similarities_: NDArray[np.float32]

    def __init__(
        self,
        budget: Budget = 0.1,
        temperature: float = 0.07,
        balance: float = 1.0,
        num_steps: int = 300,
        learning_rate: float = 1e-3,
        init: Literal["random", "farthest"] = "random",
        batch_rows: int | None = None,
        seed: int = 42,
        device: str = "auto",
    ) -> None:
        self.budget = budget
        self.temperature = temperature
        self.balance = balance
        self.num_steps = num_steps
        self.learning_rate = learning_rate
        self.init = init
        self.batch_rows = batch_rows
        self.seed = seed
        self.device = device

    def fit(
        self,
        embeddings: ArrayLike,
        *,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> Parametric:
        """Choose rows by their (num_examples, dim) embeddings.

        Raises:
            InputError: The embeddings are no finite matrix or have a row of zeros, the budget is
                out of range, or an option is.
        """
        from codeact.selection.arranged_points import arranged_points  # brings torch
        from codeact.selection.centroid_descent import descend, loss_gradient
        from codeact.selection.nearest_untaken import nearest_untaken

        vectors = check_embeddings(embeddings)
        rows = Rows(len(vectors), ids, vectors, num_tokens)
        room = Room.of(rows, self.budget)
        self._check()
        points = arranged_points(rows, vectors, self.device, "unit")
        shuffled = np.argsort(rows.keys(self.seed, "parametric")[rows.order])
        shape = {"temperature": self.temperature, "balance": self.balance}
        centroids, losses = descend(
            points,
            points[self._start(points, shuffled, _num_centroids(room, self.budget))],
            learning_rate=self.learning_rate,
            num_steps=self.num_steps,
            batches=_batches(rows.keys(self.seed, "batches")[rows.order], self.batch_rows, points),
            **shape,
        )
        end = loss_gradient(points, centroids, **shape)
        taken = nearest_untaken(points, centroids)
        sizes = np.bincount(end.labels.cpu().numpy(), minlength=len(centroids))
        similarities = end.similarities.cpu().numpy()
        order = rows.order[_order(taken, sizes, similarities)]
        self.selected_ = rows.take(order, self.budget, "all are eligible")
        self.ranks_ = rank_groups(len(rows), [self.selected_])
        self.centroids_ = centroids.cpu().numpy()
        self.similarities_ = similarities[rows.place]
        self.report_ = ParametricReport(
            num_centroids=len(centroids),
            first_loss=losses[0],
            last_loss=losses[-1],
            **self._counts(rows, len(rows)),
        )
        self.reasons_ = self._explain(dict(zip(rows.order[taken].tolist(), sizes, strict=True)))
        return self

    def _check(self) -> None:
        for name in ("temperature", "balance", "learning_rate"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)!r}")
        if self.num_steps < 1:
            raise InputError(f"num_steps must be at least 1, got {self.num_steps}")
        if self.batch_rows is not None and self.batch_rows < 1:
            raise InputError(f"batch_rows must be at least 1 or None, got {self.batch_rows}")
        if self.init not in ("random", "farthest"):
            raise InputError(f"init must be random or farthest, got {self.init!r}")

    def _start(self, points: Tensor, shuffled: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """The rows at which the centroids start."""
        if self.init == "random":
            return shuffled[:count]
        from codeact.selection.farthest_first import farthest_first

        room = Room(np.ones(len(points), dtype=np.int64), count)
        return farthest_first(points, int(shuffled[0]), room).order

    def _explain(self, sizes: dict[int, int]) -> list[str]:
        """``sizes``: by row, how many rows belong to the centroid that took it."""
        reasons = [
            f"dropped: cosine {value:.4f} to the nearest centroid, which took another row"
            for value in self.similarities_.tolist()
        ]
        for place, row in enumerate(self.selected_.tolist()):
            how = (
                f"nearest free row of a centroid of {sizes[row]} rows"
                if row in sizes
                else "fills what was free"
            )
            reasons[row] = f"kept: place {place + 1} of {len(self.selected_)}, {how}"
        return reasons


def _num_centroids(room: Room, budget: Budget) -> int:
    if not isinstance(budget, TokenBudget):
        return room.total
    return min(len(room.costs), max(1, round(room.total / float(room.costs.mean()))))


def _batches(
    keys: NDArray[np.uint64], batch_rows: int | None, points: Tensor
) -> list[Tensor] | None:
    """Slices of one random order of the rows, each of ``batch_rows`` but perhaps the last."""
    import torch

    if batch_rows is None or batch_rows >= len(points):
        return None
    return list(torch.from_numpy(np.argsort(keys)).to(points.device).split(batch_rows))


def _order(
    taken: NDArray[np.int64], sizes: NDArray[np.int64], similarities: NDArray[np.float32]
) -> NDArray[np.int64]:
    """All places: the taken ones by falling size of their centroid, then the least similar."""
    kept = taken[np.lexsort((taken, -sizes))]
    rest = np.setdiff1d(np.arange(len(similarities)), taken)
    return np.concatenate([kept, rest[np.lexsort((rest, similarities[rest]))]])
