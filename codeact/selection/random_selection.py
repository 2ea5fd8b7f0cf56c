"""Uniform random rows: what every selection is measured against."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.budget import Budget
from codeact.selection.rows import Rows
from codeact.selection.selector import Selector

if TYPE_CHECKING:
    from typing import Self


class RandomSelection(Selector):
    """A uniform random subset without replacement.

    Every row has a key made of its name and the seed, and those with the smallest keys are kept. So
    a smaller budget in rows keeps a subset of what a larger one keeps.

    Args:
        budget: Share, count or :class:`TokenBudget`, met exactly.
        seed: Of the draw.

    Attributes:
        selected_: In the order in which they are drawn.
        ranks_: Places in the draw.
    """

    def __init__(self, budget: Budget = 0.4, seed: int = 42) -> None:
        self.budget = budget
        self.seed = seed

    def fit(
        self,
        examples: int | Sized,
        *,
        eligible: ArrayLike | None = None,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> Self:
        """Draw.

        Args:
            examples: Their number, or anything that has one (rows, lengths).
            eligible: (num_examples,) bool, the rows that may be drawn; all by default.
            ids: Names of the rows; without them the draw is by position.
            num_tokens: (num_examples,) tokens of each row, for a budget in tokens.

        Raises:
            InputError: The budget is out of range, or asks for more than is eligible.
        """
        num_examples = len(examples) if isinstance(examples, Sized) else int(examples)
        rows = Rows(num_examples, ids, num_tokens=num_tokens)
        pool = check_eligible(eligible, num_examples)
        order = shuffle_rows(rows, pool, self.seed, "random")
        why = f"{num_examples - len(pool)} rows are not in the pool"
        self._settle(rows, order, rows.take(order, self.budget, why), "a random draw")
        return self


def shuffle_rows(
    rows: Rows, members: NDArray[np.int64], seed: int, purpose: str
) -> NDArray[np.int64]:
    """Some rows in a random order that follows from their names and the seed."""
    return members[np.lexsort((rows.place[members], rows.keys(seed, purpose)[members]))]


def check_eligible(eligible: ArrayLike | None, num_examples: int) -> NDArray[np.int64]:
    """Row indices of the pool.

    Raises:
        InputError: Not one boolean an example.
    """
    mask = np.ones(num_examples, dtype=bool) if eligible is None else np.asarray(eligible)
    if mask.dtype != bool or mask.shape != (num_examples,):
        raise InputError(
            f"eligible must be {num_examples} booleans, got {mask.dtype} of shape {mask.shape}"
        )
    return np.flatnonzero(mask)
