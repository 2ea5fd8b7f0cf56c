"""From what a user asks for, "40 %", "500 rows" or "2 million tokens", to which rows that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from codeact.errors import InputError

QuotaPolicy = Literal["proportional", "sqrt", "equal"]


@dataclass(frozen=True)
class TokenBudget:
    """A budget in tokens: a count, or a float share in (0, 1] of the tokens of all rows.

    It is never exceeded. Rows come in the order of the method, one that no longer fits is passed
    over, and what stays free is less than the shortest row left over.
    """

    tokens: int | float


Budget: TypeAlias = int | float | TokenBudget


def parse_budget(text: str) -> Budget:
    """A budget as a person writes it: ``"500"`` rows, a share such as ``"0.4"``, or either in
    tokens: ``"250000tokens"``, ``"0.4tokens"``.

    Raises:
        InputError: It is none of these. Whether the set is large enough is not checked here.
    """
    number = text.strip().removesuffix("tokens").rstrip()
    in_tokens = number != text.strip()
    value: int | float
    try:
        value = int(number)
    except ValueError:
        try:
            value = float(number)
        except ValueError:
            value = math.nan
    if not (value >= 1 if isinstance(value, int) else 0 < value <= 1):  # NaN fails here
        raise InputError(
            "budget must be a count, a share in (0, 1], or either of them in tokens "
            f"(250000tokens, 0.4tokens), got {text!r}"
        )
    return TokenBudget(value) if in_tokens else value


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
    return _resolve(budget, num_examples, "set", "example")


def resolve_tokens(budget: TokenBudget, num_tokens: NDArray[np.int64]) -> int:
    """Number of tokens that ``budget`` stands for; ``num_tokens`` are those of each row.

    Raises:
        InputError: As for :func:`resolve_budget`, of tokens.
    """
    return _resolve(budget.tokens, int(num_tokens.sum()), "set in tokens", "token")


def _resolve(budget: int | float, available: int, of: str, unit: str) -> int:
    if available < 1:
        raise InputError(f"budget needs a set of at least 1 {unit}, got {available}")
    if isinstance(budget, Integral) and not isinstance(budget, bool):
        if 1 <= budget <= available:
            return int(budget)
    elif (
        isinstance(budget, Real)
        and not isinstance(budget, (bool, np.bool_))
        and 0 < float(budget) <= 1  # NaN fails here
    ):
        return max(1, math.floor(float(budget) * available + 0.5))
    raise InputError(
        f"budget must be a count from 1 to {available} (the size of the {of}) "
        f"or a float share in (0, 1], got {budget!r}"
    )


def fill_tokens(
    order: NDArray[np.int64], num_tokens: NDArray[np.int64], total: int
) -> NDArray[np.int64]:
    """The rows of ``order``, best first, that fit into ``total`` tokens one after the other.

    Args:
        order: Row indices, best first.
        num_tokens: (num_examples,) int64 tokens of each row.
        total: Tokens to fill; may be 0.

    Returns:
        A subsequence of ``order``. No row left out would fit into what stays free.
    """
    costs = num_tokens[order]
    num_whole = int(np.searchsorted(np.cumsum(costs), total, side="right"))
    left = total - int(costs[:num_whole].sum())
    taken = list(range(num_whole))
    # The shortest row from each place on: when it does not fit, none behind it does.
    shortest = np.minimum.accumulate(costs[::-1])[::-1]
    place = num_whole
    while place < len(order) and shortest[place] <= left:
        place += int(np.argmax(costs[place:] <= left))
        taken.append(place)
        left -= int(costs[place])
        place += 1
    return order[taken]


def split_by_largest_remainder(
    total: int, sizes: NDArray[np.int64], preference: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Quotas that sum to ``total``, proportional to ``sizes``, none above its size.

    Each group gets ``total * size // sum(sizes)``; what is left goes, one each, to the largest
    remainders (Hamilton's method). Whole numbers of any length throughout: no float rounding
    decides, and products of two counts of tokens do not overflow.

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
    return _hand_out(total, sizes.astype(object), preference)


def split_by_policy(
    total: int, sizes: NDArray[np.int64], preference: NDArray[np.int64], policy: QuotaPolicy
) -> NDArray[np.int64]:
    """Quotas that sum to ``total`` by a policy, none above its size.

    ``proportional`` is :func:`split_by_largest_remainder`. ``sqrt`` and ``equal`` give each group a
    share in proportion to the root of its size, or the same share; what a group is too small for
    goes to the others by the same rule.

    Raises:
        InputError: Another policy.
    """
    if policy == "proportional":
        return split_by_largest_remainder(total, sizes, preference)
    if policy not in ("sqrt", "equal"):
        raise InputError(f"quotas must be proportional, sqrt or equal, got {policy!r}")
    # Roots in millionths: integers, so that no float rounding decides.
    root = [math.isqrt(int(size) * 10**12) if policy == "sqrt" else 1 for size in sizes]
    weights, exact_sizes = np.array(root, dtype=object), sizes.astype(object)
    quotas = np.zeros_like(sizes)
    open_groups = np.flatnonzero(sizes > 0)
    while total > 0 and len(open_groups):
        whole = int(weights[open_groups].sum())
        over = (exact_sizes[open_groups] * whole <= total * weights[open_groups]).astype(bool)
        if not over.any():  # nobody is too small for its share: the last step
            quotas[open_groups] = _hand_out(total, weights[open_groups], preference[open_groups])
            return quotas
        full = open_groups[over]
        quotas[full] = sizes[full]
        total -= int(sizes[full].sum())
        open_groups = open_groups[~over]
    return quotas


def _hand_out(
    total: int, weights: NDArray[np.object_], preference: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Whole shares of ``total``, and one more for the largest remainders until they sum to it."""
    shares, whole = total * weights, int(weights.sum())
    quotas: NDArray[np.int64] = (shares // whole).astype(np.int64)
    remainders = shares % whole
    order = sorted(range(len(quotas)), key=lambda group: (-remainders[group], preference[group]))
    quotas[order[: total - int(quotas.sum())]] += 1
    return quotas


def fill_groups(
    groups: Sequence[NDArray[np.int64]],
    num_tokens: NDArray[np.int64],
    total: int,
    preference: NDArray[np.int64],
    policy: QuotaPolicy = "proportional",
) -> NDArray[np.int64]:
    """Rows of several groups within ``total`` tokens, each group with its quota of them.

    Quotas are those of :func:`split_by_policy` over the tokens of the groups. Each group fills its
    own in its order; what stays free is then filled from the leftovers, the best of every group
    before the second best of any.

    Args:
        groups: Row indices of each group, best first.
        num_tokens: (num_examples,) int64 tokens of each row.
        total: At most the tokens of all groups.
        preference: (num_groups,) int64; groups with the smallest value go first.
        policy: How quotas follow the groups' sizes.

    Returns:
        Rows by group, in the order of the group.
    """
    sizes = np.array([int(num_tokens[rows].sum()) for rows in groups], dtype=np.int64)
    quotas = split_by_policy(total, sizes, preference, policy)
    taken = [fill_tokens(g, num_tokens, int(q)) for g, q in zip(groups, quotas, strict=True)]
    rest = [g[~np.isin(g, t)] for g, t in zip(groups, taken, strict=True)]
    depth = np.concatenate([np.zeros(0, np.int64), *(np.arange(len(rows)) for rows in rest)])
    first = np.concatenate([np.zeros(0, np.int64), *(
        np.full(len(rows), preference[group]) for group, rows in enumerate(rest)
    )])  # fmt: skip
    left = np.concatenate([np.zeros(0, np.int64), *rest])[np.lexsort((first, depth))]
    free = total - sum(int(num_tokens[rows].sum()) for rows in taken)
    kept = np.zeros(len(num_tokens), dtype=bool)
    for rows in (*taken, fill_tokens(left, num_tokens, free)):
        kept[rows] = True
    return np.concatenate([np.zeros(0, np.int64), *(rows[kept[rows]] for rows in groups)])
