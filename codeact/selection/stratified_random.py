"""Random rows, so many of each stratum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.budget import Budget, QuotaPolicy
from codeact.selection.random_selection import check_eligible, shuffle_rows
from codeact.selection.rows import Rows
from codeact.selection.selector import SelectionReport, Selector, rank_groups

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True)
class StratumCounts:
    """One stratum: ``kept <= eligible <= size``."""

    stratum: str
    size: int
    eligible: int
    kept: int


@dataclass(frozen=True, kw_only=True)
class StratifiedReport(SelectionReport):
    """Counts of every stratum, by name."""

    strata: tuple[StratumCounts, ...]


class StratifiedRandom(Selector):
    """Random rows within strata such as languages or sources, drawn without replacement.

    Args:
        budget: Share, count or :class:`TokenBudget`, met exactly.
        quotas: ``proportional`` to the eligible rows of each stratum (by largest remainder), to
            their square root (``sqrt``), or ``equal``; what a stratum is too small for goes to the
            others. With a budget in tokens, of the tokens of the rows.
        seed: Of the draw.

    Attributes:
        selected_: By name of the stratum, then in the order of the draw.
        ranks_: Places in the draw of the stratum.
        report_: StratifiedReport.
    """

    def __init__(
        self, budget: Budget = 0.4, quotas: QuotaPolicy = "proportional", seed: int = 42
    ) -> None:
        self.budget = budget
        self.quotas = quotas
        self.seed = seed

    def fit(
        self,
        strata: Sequence[Any] | NDArray[Any],
        *,
        eligible: ArrayLike | None = None,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> Self:
        """Draw.

        Args:
            strata: (num_examples,) name of each row's stratum, compared as text; rows of None are
                a stratum of their own, "none".
            eligible: (num_examples,) bool, the rows that may be drawn; all by default.
            ids: Names of the rows; without them the draw is by position.
            num_tokens: (num_examples,) tokens of each row, for a budget in tokens.

        Raises:
            InputError: The budget is out of range, or asks for more than is eligible.
        """
        names = _check_strata(strata)
        rows = Rows(len(names), ids, num_tokens=num_tokens)
        pool = check_eligible(eligible, len(names))
        found, stratum = np.unique(names, return_inverse=True)
        drawn = shuffle_rows(rows, pool, self.seed, "stratified")
        by_stratum = drawn[np.argsort(stratum[drawn], kind="stable")]
        ends = np.cumsum(np.bincount(stratum[drawn], minlength=len(found)))
        groups = np.split(by_stratum, ends[:-1])
        why = f"{len(names) - len(pool)} rows are not in the pool"
        self.selected_ = rows.take_groups(
            groups, self.budget, why, preference=np.arange(len(found)), policy=self.quotas
        )
        self._explain(rows, found, stratum, groups)
        return self

    def _explain(
        self,
        rows: Rows,
        found: NDArray[np.str_],
        stratum: NDArray[np.int64],
        groups: list[NDArray[np.int64]],
    ) -> None:
        """Ranks, report and reasons."""
        self.ranks_ = rank_groups(len(rows), groups)
        kept = np.zeros(len(rows), dtype=bool)
        kept[self.selected_] = True
        sizes = np.bincount(stratum, minlength=len(found)).tolist()
        counts = [
            StratumCounts(str(name), size, len(members), int(kept[members].sum()))
            for name, size, members in zip(found, sizes, groups, strict=True)
        ]
        num_eligible = sum(map(len, groups))
        self.report_ = StratifiedReport(**self._counts(rows, num_eligible), strata=tuple(counts))
        self.reasons_ = [
            f"{'kept' if is_kept else 'dropped'}: place {rank + 1} of {counts[index].eligible} by "
            f"a random draw in {counts[index].stratum}"
            if rank >= 0
            else "dropped: not eligible"
            for is_kept, rank, index in zip(
                kept.tolist(), self.ranks_.tolist(), stratum.tolist(), strict=True
            )
        ]


def _check_strata(strata: Sequence[Any] | NDArray[Any]) -> NDArray[np.str_]:
    if isinstance(strata, str) or np.ndim(strata) != 1 or not len(strata):
        raise InputError(f"strata must be one name an example, got shape {np.shape(strata)}")
    return np.array(["none" if name is None else str(name) for name in strata])
