"""RDS+: the rows most like a set of queries, by the model's own hidden states."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.budget import Budget
from codeact.selection.clustering import check_embeddings
from codeact.selection.rows import Rows
from codeact.selection.selector import SelectionReport, Selector

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

    from codeact.selection.query_turns import Turns

Aggregation = Literal["round-robin", "mean"]

# Float32 products of unit vectors err by 1e-6; two texts that differ are far below this.
_COPY = 0.9999


@dataclass(frozen=True, kw_only=True)
class RDSReport(SelectionReport):
    """What RDS+ reports besides.

    Attributes:
        num_queries: How many queries there were.
        pickers: Names of those that took turns: ``task NAME``, ``query NUMBER`` (from 0), or, with
            ``aggregation="mean"`` and no tasks, ``all queries`` alone.
        kept_by_picker: How many rows each of them brought in.
        num_kept_copies: Kept rows whose vector is that of a query (cosine at least 0.9999). Above
            0, look whether the queries are test data that the candidates contain.
    """

    num_queries: int
    pickers: tuple[str, ...]
    kept_by_picker: tuple[int, ...]
    num_kept_copies: int


class RDSPlus(Selector):
    """Rows nearest to the queries, which take turns (RDS+, Ivison et al., arXiv:2503.01807).

    Vectors are the position-weighted means of a language model's last hidden states
    (:meth:`codeact.scoring.Scorer.embed` with ``pool="rds"``), of rows and queries alike, with the
    model that is to be trained; any other vectors will do. Similarity is the cosine.

    Round robin, as published: every query picks the row nearest to it, then every query the second
    nearest, and so on until the budget is met; a row picked before is not picked again, and that
    turn is lost. With tasks, a row's similarity to a task is that to its nearest query, and the
    tasks take the turns: each gets an equal share of them, however many queries it has.

    Unlike the published script, a mean over several tasks is ranked from the highest down (the
    script, asked for the mean with turns, starts at the lowest), rows of equal similarity go by
    name and not by position, and similarities are ranked a block of queries at a time, so that no
    matrix of rows by queries exists.

    Queries decide what is kept: test items of a benchmark that will judge the model leak into its
    training. Take them from a development split; ``report_.num_kept_copies`` counts rows that
    are a query.

    Args:
        budget: Rows to keep, see :data:`codeact.selection.Budget`.
        aggregation: ``"round-robin"``, or ``"mean"``: by the mean similarity to all queries
            (``mean_max`` in the script), where tasks take turns too.
        seed: Without effect, as nothing is random; here so that all selectors are made alike.
        device: ``"auto"`` is the GPU when there is one.

    Attributes:
        ranks_: Places in the order in which rows are picked; all rows have one.
        pickers_: (num_examples,) int32, the query or task (by number, as in the report) that
            picks the row.
        similarities_: (num_examples,) float32, the row's similarity to it.
        report_: A :class:`RDSReport`.
    """

    def __init__(
        self,
        budget: Budget = 0.4,
        aggregation: Aggregation = "round-robin",
        seed: int = 42,
        device: str = "auto",
    ) -> None:
        self.budget = budget
        self.aggregation = aggregation
        self.seed = seed
        self.device = device

    def fit(
        self,
        embeddings: ArrayLike,
        queries: ArrayLike,
        *,
        query_tasks: Sequence[Hashable] | None = None,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> Self:
        """Choose rows.

        Args:
            embeddings: (num_examples, dim).
            queries: (num_queries, dim), vectors of the same kind.
            query_tasks: The task of each query; tasks take turns as they first appear.
            ids: Names of the rows; without them their embeddings name them.
            num_tokens: Tokens of each row, for a budget in tokens.

        Raises:
            InputError: Shapes that do not fit, a row or query without a direction, another
                aggregation, or a budget that cannot be met.
        """
        if self.aggregation not in ("round-robin", "mean"):
            raise InputError(f"aggregation must be round-robin or mean, got {self.aggregation!r}")
        points = _check_vectors(embeddings, "embeddings")
        targets = _check_vectors(queries, "queries", points.shape[1])
        rows = Rows(len(points), ids, points, num_tokens)
        pickers, names = self._pickers(query_tasks, len(targets))
        turns = self._turns(rows.arranged(points), targets, pickers).of(rows.place)
        order = turns.order
        selected = rows.take(order, self.budget, "all are eligible")
        self._settle(rows, order, selected, "turn")
        self.reasons_ = [
            f"{reason}, number {rank + 1} of those nearest to {names[picker]}"
            for reason, rank, picker in zip(
                self.reasons_, turns.ranks.tolist(), turns.pickers.tolist(), strict=True
            )
        ]
        self.pickers_, self.similarities_ = turns.pickers.astype(np.int32), turns.scores
        kept = np.bincount(turns.pickers[selected], minlength=len(names))
        self.report_ = RDSReport(
            **self._counts(rows, len(rows)),
            num_queries=len(targets),
            pickers=names,
            kept_by_picker=tuple(kept.tolist()),
            num_kept_copies=self._count_copies(points[selected], targets),
        )
        return self

    def _pickers(
        self, query_tasks: Sequence[Hashable] | None, num_queries: int
    ) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Whose turn each query speaks for, and the names of those who take turns."""
        if query_tasks is not None:
            if len(query_tasks) != num_queries:
                raise InputError(
                    f"query_tasks must name the task of all {num_queries} queries, "
                    f"got {len(query_tasks)}"
                )
            numbers = {task: number for number, task in enumerate(dict.fromkeys(query_tasks))}
            tasks = np.array([numbers[task] for task in query_tasks], dtype=np.int64)
            return tasks, tuple(f"task {task}" for task in numbers)
        if self.aggregation == "mean":
            return np.zeros(num_queries, dtype=np.int64), ("all queries",)
        return np.arange(num_queries), tuple(f"query {number}" for number in range(num_queries))

    def _turns(
        self, points: NDArray[np.float32], queries: NDArray[np.float32], tasks: NDArray[np.int64]
    ) -> Turns:
        from codeact.selection import query_turns  # torch

        device_points, device_queries = self._on_device(points, queries)
        num_pickers = int(tasks.max()) + 1
        if num_pickers == len(tasks):  # a query for each: many of them in one product
            scores = query_turns.query_scores(device_points, device_queries)
        else:
            mean = self.aggregation == "mean"
            scores = query_turns.task_scores(device_points, device_queries, tasks, mean=mean)
        return query_turns.take_turns(scores, num_pickers)

    def _count_copies(self, kept: NDArray[np.float32], queries: NDArray[np.float32]) -> int:
        from codeact.selection.query_turns import count_copies

        return count_copies(*self._on_device(kept, queries), _COPY)

    def _on_device(
        self, points: NDArray[np.float32], queries: NDArray[np.float32]
    ) -> tuple[Tensor, Tensor]:
        """Both as tensors, the queries of length 1."""
        import torch

        from codeact.ops.device import resolve_device

        device = resolve_device(self.device)
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
        unit = torch.from_numpy((queries / lengths).astype(np.float32))
        # A copy only of what cannot be written to: torch warns of it, though nothing here writes.
        writable = np.require(points, requirements="W")
        return torch.from_numpy(writable).to(device), unit.to(device)


def _check_vectors(vectors: ArrayLike, name: str, dim: int | None = None) -> NDArray[np.float32]:
    """Finite (num, dim) float32 rows, none of them all 0."""
    try:
        checked = check_embeddings(vectors)
    except InputError as error:
        raise InputError(str(error).replace("embeddings", name, 1)) from None
    if len(checked) == 0:
        raise InputError(f"{name} must hold at least one row, got none")
    if dim is not None and checked.shape[1] != dim:
        raise InputError(
            f"{name} must have the {dim} columns of embeddings, got {checked.shape[1]}"
        )
    if len(blank := np.flatnonzero(~checked.any(axis=1))):
        raise InputError(
            f"{name} must point somewhere, got only zeros in {len(blank)} rows, first in row "
            f"{blank[0]}"
        )
    return checked
