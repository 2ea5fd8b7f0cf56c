"""The rows of a set as selectors see them: a name for each, an order, tokens, random keys.

What a method keeps must not depend on the order in which a file lists its rows. So nothing is ever
decided by position: ties go by ``place``, matrices are walked in the order of places, and random
draws take the rows with the smallest keys, which are functions of name and seed alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.budget import (
    Budget,
    QuotaPolicy,
    TokenBudget,
    fill_groups,
    fill_tokens,
    resolve_budget,
    resolve_tokens,
    split_by_policy,
)


class Rows:
    """Names and token counts of the rows of one set.

    Args:
        num_rows: At least 1.
        ids: Unique names of the rows. Without them the bytes of ``content`` name a row (and tell
            it from an equal one: how many of these stand before it), without both its position.
        content: (num_rows, ...) array, read only when there are no ids.
        num_tokens: (num_rows,) tokens of each row, for a budget in tokens.

    Attributes:
        order: (num_rows,) int64 row indices from the first place to the last; the place of a row
            follows from the hash of its name.
        place: (num_rows,) int64, the inverse of ``order``.

    Raises:
        InputError: No row, ids that are not unique or too few, token counts that are no counts.
    """

    def __init__(
        self,
        num_rows: int,
        ids: Sequence[str] | None = None,
        content: NDArray[Any] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> None:
        if num_rows < 1:
            raise InputError(f"selection needs at least 1 example, got {num_rows}")
        self.num_rows = num_rows
        self.num_tokens = None if num_tokens is None else _check_tokens(num_tokens, num_rows)
        self.names = np.arange(num_rows, dtype=np.uint64)
        self.order = np.arange(num_rows)
        if ids is not None:
            _check_ids(ids, num_rows)
            self.names = _hashes(str(id_).encode() for id_ in ids)
        elif content is not None:
            self.names = _hashes(np.ascontiguousarray(row).tobytes() for row in content)
        if ids is not None or content is not None:
            self.order = np.argsort(self.names, kind="stable")
        self.place = np.empty_like(self.order)
        self.place[self.order] = np.arange(num_rows)
        if ids is None and content is not None:
            self._tell_equal_apart()

    def __len__(self) -> int:
        return self.num_rows

    def arranged(self, values: NDArray[Any]) -> NDArray[Any]:
        """``values`` in the order of places: a copy, unless that is the order they have."""
        return values if (self.order[1:] > self.order[:-1]).all() else values[self.order]

    def _tell_equal_apart(self) -> None:
        """Add to the names of equal rows, so that they are not all drawn or all left out."""
        ordered = self.names[self.order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        lengths = np.diff(np.append(starts, len(ordered)))
        number = np.arange(len(ordered)) - np.repeat(starts, lengths)
        self.names[self.order] = ordered + number.astype(np.uint64)

    def keys(self, seed: int, purpose: str) -> NDArray[np.uint64]:
        """(num_rows,) uniform 64-bit keys, a function of each row's name and the arguments alone.

        Draws for different purposes do not follow each other, even with one seed: a random control
        would otherwise share more rows with a selection that draws than chance would.
        """
        salt = _hashes([purpose.encode()]) ^ np.uint64(int(seed) % 2**64)
        return _mix(self.names + _mix(salt))

    def uniforms(self, seed: int, purpose: str) -> NDArray[np.float64]:
        """(num_rows,) uniform numbers in (0, 1), from :meth:`keys`."""
        return ((self.keys(seed, purpose) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def asked(self, budget: Budget) -> int:
        """The number of rows, or of tokens, that ``budget`` stands for.

        Raises:
            InputError: It is out of range, or in tokens and there are no counts.
        """
        if isinstance(budget, TokenBudget):
            return self._tokens(budget)[1]
        return resolve_budget(budget, self.num_rows)

    def take(self, order: NDArray[np.int64], budget: Budget, why: str) -> NDArray[np.int64]:
        """The rows that ``budget`` keeps of ``order``, which lists the eligible ones, best first.

        Args:
            order: Distinct row indices.
            budget: Of the whole set, not of the eligible rows.
            why: Why others are not eligible, for the error: "6 rows have no score".

        Raises:
            InputError: The budget is out of range or cannot be met: by how much, and ``why``.
        """
        if isinstance(budget, TokenBudget):
            num_tokens, total = self._tokens(budget)
            self._refuse_short(total, int(num_tokens[order].sum()), "tokens", why)
            return _not_empty(fill_tokens(order, num_tokens, total), total, num_tokens[order])
        count = self.asked(budget)
        self._refuse_short(count, len(order), "rows", why)
        return order[:count]

    def take_groups(
        self,
        groups: Sequence[NDArray[np.int64]],
        budget: Budget,
        why: str,
        *,
        preference: NDArray[np.int64] | None = None,
        policy: QuotaPolicy = "proportional",
    ) -> NDArray[np.int64]:
        """The same of several groups, each with a quota of the budget.

        Args:
            groups: Eligible row indices of each group, best first.
            budget: As in :meth:`take`.
            why: As in :meth:`take`.
            preference: (num_groups,) int64; among equal remainders the smallest goes first. By
                default the group whose best row has the first place.
            policy: How quotas follow the sizes of the groups.
        """
        if preference is None:
            best = [int(self.place[rows[0]]) if len(rows) else self.num_rows for rows in groups]
            preference = np.array(best, dtype=np.int64)
        if isinstance(budget, TokenBudget):
            num_tokens, total = self._tokens(budget)
            available = sum(int(num_tokens[rows].sum()) for rows in groups)
            self._refuse_short(total, available, "tokens", why)
            taken = fill_groups(groups, num_tokens, total, preference, policy)
            return _not_empty(taken, total, num_tokens[np.concatenate(groups)])
        count = self.asked(budget)
        sizes = np.array([len(rows) for rows in groups], dtype=np.int64)
        self._refuse_short(count, int(sizes.sum()), "rows", why)
        quotas = split_by_policy(count, sizes, preference, policy)
        kept = [rows[:quota] for rows, quota in zip(groups, quotas.tolist(), strict=True)]
        return np.concatenate([np.zeros(0, np.int64), *kept])

    def _tokens(self, budget: TokenBudget) -> tuple[NDArray[np.int64], int]:
        if self.num_tokens is None:
            raise InputError("a budget in tokens needs num_tokens, the tokens of each row")
        return self.num_tokens, resolve_tokens(budget, self.num_tokens)

    @staticmethod
    def _refuse_short(asked: int, available: int, unit: str, why: str) -> None:
        if available < asked:
            raise InputError(
                f"budget asks for {asked} {unit}, but only {available} are eligible, "
                f"{asked - available} too few: {why}"
            )


def _not_empty(
    taken: NDArray[np.int64], total: int, eligible_tokens: NDArray[np.int64]
) -> NDArray[np.int64]:
    if not len(taken):
        raise InputError(
            f"budget must hold the shortest eligible row, of {eligible_tokens.min()} tokens, "
            f"got {total} tokens"
        )
    return taken


def _check_ids(ids: Sequence[str], num_rows: int) -> None:
    if len(ids) != num_rows:
        raise InputError(f"ids must name all {num_rows} examples, got {len(ids)}")
    if len(set(map(str, ids))) < num_rows:
        seen: set[str] = set()
        twice = next(id_ for id_ in map(str, ids) if id_ in seen or seen.add(id_))  # type: ignore[func-returns-value]
        raise InputError(f"ids must be unique, {twice!r} occurs more than once")


def _check_tokens(num_tokens: ArrayLike, num_rows: int) -> NDArray[np.int64]:
    counts = np.asarray(num_tokens)
    if counts.dtype.kind not in "iu" or counts.shape != (num_rows,) or counts.min() < 1:
        raise InputError(
            f"num_tokens must be {num_rows} whole numbers of at least 1, one for each example, got "
            f"{counts.dtype} of shape {counts.shape}"
            + (f" from {counts.min()}" if counts.dtype.kind in "iu" and counts.size else "")
        )
    return counts.astype(np.int64)


def _hashes(names: Iterable[bytes]) -> NDArray[np.uint64]:
    digests = b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in names)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 of each value (Steele, Lea and Flood, 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
