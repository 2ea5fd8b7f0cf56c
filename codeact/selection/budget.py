"""From what a user asks for, "40 %" or "500 rows", to a number of examples."""

from __future__ import annotations

import math
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray

from codeact.errors import InputError


def resolve_budget(budget: int | float, num_examples: int) -> int:
    """Number of examples that ``budget`` asks for out of ``num_examples``.

    The type decides: the int 1 is one example, the float 1.0 is all of them. A share is rounded
    to the nearest count (a half goes up) and is at least one example.

    Args:
        budget: A count from 1 to ``num_examples``, or a float share in (0, 1].
        num_examples: Size of the set, at least 1.

    Raises:
        InputError: The set is empty, or the budget is 0, negative, above the set, NaN or no number.
    """
    if num_examples < 1:
        raise InputError(f"budget needs a set of at least 1 example, got {num_examples}")
    if isinstance(budget, Integral) and not isinstance(budget, bool):
        if 1 <= budget <= num_examples:
            return int(budget)
    elif (
        isinstance(budget, Real)
        and not isinstance(budget, (bool, np.bool_))
        and 0 < float(budget) <= 1  # NaN fails here
    ):
        return max(1, math.floor(float(budget) * num_examples + 0.5))
    raise InputError(
        f"budget must be a count from 1 to {num_examples} (the size of the set) "
        f"or a float share in (0, 1], got {budget!r}"
    )


def split_by_largest_remainder(
    total: int, sizes: NDArray[np.int64], preference: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Quotas that sum to ``total``, proportional to ``sizes``, none above its size.

    Each group gets ``total * size // sum(sizes)``; what is left goes, one each, to the largest
    remainders (Hamilton's method). Integer arithmetic throughout, so that no float rounding
    decides.

    Args:
        total: From 0 to ``sizes.sum()``.
        sizes: (num_groups,) int64.
        preference: (num_groups,) int64; among equal remainders the smallest value goes first.

    Returns:
        (num_groups,) int64.
    """
    num_all = int(sizes.sum())
    if not 0 <= total <= num_all:
        raise ValueError(f"total must be from 0 to {num_all}, the sum of sizes, got {total}")
    if num_all == 0:
        return np.zeros_like(sizes)
    quotas, remainders = np.divmod(total * sizes, num_all)
    left = total - int(quotas.sum())
    quotas[np.lexsort((preference, -remainders))[:left]] += 1
    return quotas
