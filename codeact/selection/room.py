"""What a budget still has room for, while a greedy method takes one row after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codeact.selection.budget import (
    Budget,
    TokenBudget,
    fill_tokens,
    resolve_budget,
    resolve_tokens,
)
from codeact.selection.rows import Rows


class Room:
    """The free part of a budget: rows cost 1 each, or their tokens.

    Args:
        costs: (num_rows,) int64, at least 1.
        total: What the budget stands for.

    Attributes:
        left: What is free: ``total`` less the costs of the rows taken.
    """

    def __init__(self, costs: NDArray[np.int64], total: int) -> None:
        self.costs = costs
        self.total = total
        self.left = total

    @classmethod
    def of(
        cls,
        rows: Rows,
        budget: Budget,
        eligible: NDArray[np.int64] | None = None,
        why: str = "all are eligible",
    ) -> Room:
        """The room that ``budget`` gives, for the rows in the order of places.

        Args:
            rows: Of the set.
            budget: Of the whole set.
            eligible: Indices of the rows that may be kept; None is all of them.
            why: Why others are not eligible.

        Raises:
            InputError: The budget cannot be met from the eligible rows, see :meth:`Rows.take`.
        """
        rows.take(rows.order if eligible is None else eligible, budget, why)
        if not isinstance(budget, TokenBudget):
            return cls(np.ones(len(rows), dtype=np.int64), resolve_budget(budget, len(rows)))
        num_tokens = np.asarray(rows.num_tokens)  # not None, or take had refused it
        return cls(rows.arranged(num_tokens), resolve_tokens(budget, num_tokens))

    def among(self, places: NDArray[np.int64], total: int) -> Room:
        """A room of ``total`` for these rows alone, numbered anew in the order given."""
        return Room(self.costs[places], total)

    def fits(self, row: int) -> bool:
        """Whether there is room for ``row``."""
        return bool(self.costs[row] <= self.left)

    def fitting(self) -> NDArray[np.bool_]:
        """(num_rows,) whether there is room for each row by itself."""
        return self.costs <= self.left

    def take(self, row: int) -> None:
        """Take ``row``, which fits."""
        self.left -= int(self.costs[row])

    def fill(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Take what fits of ``rows``, one after the other; returns the rows taken."""
        taken = fill_tokens(rows, self.costs, self.left)
        self.left -= int(self.costs[taken].sum())
        return taken
