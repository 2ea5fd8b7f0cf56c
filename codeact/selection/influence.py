"""Selection by influence: what one training step on a row does to the loss of coding tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeact.errors import InputError
from codeact.selection.budget import Budget
from codeact.selection.influence_report import InfluenceReport, explain, report_fields
from codeact.selection.random_selection import shuffle_rows
from codeact.selection.ranked import rank_rows
from codeact.selection.rows import Rows
from codeact.selection.selector import Selector, check_scores

if TYPE_CHECKING:
    from typing import Self

Keep = Literal["top", "band", "drop-bottom"]
Quotas = Literal["none", "tasks"]


class TopInfluence(Selector):
    """The rows on which a training step lowers the loss of validation tasks most.

    Influence is larger the more a row helps (DIScore, arXiv:2604.07769, to first order). The paper
    finds that its extremes matter: rows of extreme score keep their influence over checkpoints,
    while the useful rows differ by task, language and stage of training. So both ends can be
    treated by themselves (``keep``), and tasks can be given shares of their own (``quotas``).

    ``top`` keeps the largest influence. ``band`` leaves out what lies above the quantile ``high``
    (often rows that repeat the validation problems, or outliers of one step) and below ``low``, and
    keeps the largest of the rest. ``drop-bottom`` leaves out the worst ``drop`` of the rows and
    draws from the others at random: influence as a filter of harm alone. Quantiles are counted in
    ranks of the rows that have an influence: of n, the best ``n - round(high * n)`` are above.

    With ``quotas="tasks"``, tasks take turns, each picking the best row on its own scale that is
    not yet taken, so that their shares of a budget in rows are equal to one row; unlike in RDS+
    no turn is lost to a row that another task has picked before. A budget in tokens shares turns,
    not tokens. The band is then each task's own, and ``drop-bottom`` leaves out the worst of every
    task and draws from the others without turns.

    Where we differ from the paper: it selects from raw code for training from scratch, by the exact
    change of the loss; ranges and budgets of its filters are not known to us, so ``low``, ``high``
    and ``drop`` are ours. Ties go by the rows' names, and the budget is met exactly or refused.

    Args:
        budget: Share, count or :class:`TokenBudget` of all rows.
        keep: ``top``, ``band`` or ``drop-bottom``.
        low: Quantile below which ``band`` keeps nothing.
        high: Quantile above which ``band`` keeps nothing.
        drop: Share of the rows with an influence that ``drop-bottom`` never keeps.
        quotas: ``none`` ranks by the given column, ``tasks`` by every column of ``task_influence``.
        seed: Of the draw of ``drop-bottom``.

    Attributes:
        ranks_: Places by influence, in the turns of the tasks, or in the draw; -1 outside the band
            and in the dropped share.
        pickers_: (num_examples,) int32, the task (by number) that picks the row; -1 for none.
        report_: An :class:`InfluenceReport`.
    """

    report_: InfluenceReport

    def __init__(
        self,
        budget: Budget = 0.4,
        keep: Keep = "top",
        low: float = 0.5,
        high: float = 0.9,
        drop: float = 0.1,
        quotas: Quotas = "none",
        seed: int = 42,
    ) -> None:
        self.budget = budget
        self.keep = keep
        self.low = low
        self.high = high
        self.drop = drop
        self.quotas = quotas
        self.seed = seed

    def fit(
        self,
        influence: ArrayLike,
        *,
        task_influence: ArrayLike | None = None,
        task_names: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
        num_tokens: ArrayLike | None = None,
    ) -> Self:
        """Choose; the columns are those of ``Scorer.influence``.

        Args:
            influence: (num_examples,) mean over the tasks, larger = more helpful; NaN or None where
                there is none: such a row is never kept.
            task_influence: (num_examples, num_tasks) influence on each task, NaN where there is
                none; ``quotas="tasks"`` needs it, the report uses it otherwise.
            task_names: (num_tasks,) their names, "0", "1", ... by default.
            ids: Names of the rows, which order ties and decide draws.
            num_tokens: (num_examples,) tokens of each row, for a budget in tokens.

        Raises:
            InputError: An option has no meaning, shapes differ, ``task_influence`` is missing, or
                the budget asks for more than is eligible.
        """
        self._check_options()
        mean = check_scores(influence, "influence")
        tasks = _check_tasks(task_influence, task_names, len(mean))
        scales: Mapping[str, NDArray[np.float64]] = {"influence": mean}
        if self.quotas == "tasks":
            if not tasks:
                raise InputError(
                    "quotas = 'tasks' needs task_influence, the columns influence_<task> of "
                    "codeact influence"
                )
            scales = tasks
        rows = Rows(len(mean), ids, num_tokens=num_tokens)
        known = ~np.isnan(mean)
        eligible = [self._eligible(rows, value, known & ~np.isnan(value))
                    for value in scales.values()]  # fmt: skip
        order, pickers = self._order(rows, list(scales.values()), eligible)
        selected = rows.take(order, self.budget, self._why(known, len(order)))
        self._settle(rows, order, selected, self._what())
        self.pickers_ = pickers if self.keep != "drop-bottom" else np.full_like(pickers, -1)
        self.reasons_ = explain(self.reasons_, mean, scales, self.pickers_, self.ranks_, self.keep)
        self.report_ = InfluenceReport(
            **self._counts(rows, len(order)),
            **report_fields(selected, mean, scales, tasks, eligible, self.pickers_),
        )
        return self

    def _check_options(self) -> None:
        for name, value, known in (
            ("keep", self.keep, ("top", "band", "drop-bottom")),
            ("quotas", self.quotas, ("none", "tasks")),
        ):
            if value not in known:
                raise InputError(f"{name} must be {' or '.join(known)}, got {value!r}")
        if not 0 <= self.low < self.high <= 1:
            raise InputError(
                f"low and high must be quantiles, 0 <= low < high <= 1, got {self.low!r} and "
                f"{self.high!r}"
            )
        if not 0 <= self.drop < 1:
            raise InputError(f"drop must be a share from 0 to below 1, got {self.drop!r}")

    def _eligible(
        self, rows: Rows, values: NDArray[np.float64], known: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Rows that may be kept by one scale, best first."""
        falling = rank_rows(rows, -values, known)
        if self.keep == "band":
            above, below = (len(falling) - _part(edge, falling) for edge in (self.high, self.low))
            return falling[above:below]
        if self.keep == "drop-bottom":
            return falling[: len(falling) - _part(self.drop, falling)]
        return falling

    def _order(
        self, rows: Rows, values: list[NDArray[np.float64]], eligible: list[NDArray[np.int64]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Eligible rows, first to be kept first, and who picks each of all rows."""
        if self.keep != "drop-bottom":
            return _take_turns(eligible, len(rows))
        # Left out by any task is left out: a row without a value on a task is not judged by it.
        is_in = np.zeros(len(rows), dtype=bool)
        is_in[np.concatenate(eligible)] = True
        for value, left in zip(values, eligible, strict=True):
            out = ~np.isnan(value)
            out[left] = False
            is_in &= ~out
        pool = shuffle_rows(rows, np.flatnonzero(is_in), self.seed, "influence")
        return pool, np.full(len(rows), -1, dtype=np.int32)

    def _why(self, known: NDArray[np.bool_], num_eligible: int) -> str:
        why = f"{(~known).sum()} rows have no influence"
        if self.keep == "band":
            whose = "the bands of the tasks leave" if self.quotas == "tasks" else "the band leaves"
            why += f", {whose} {num_eligible} between the quantiles {self.low:g} and {self.high:g}"
        elif self.keep == "drop-bottom":
            every = " on every task" if self.quotas == "tasks" else ""
            why += f", the worst {self.drop:g} of the others{every} are dropped"
        return why

    def _what(self) -> str:
        if self.keep == "drop-bottom":
            return "a random draw"
        return "turn" if self.quotas == "tasks" else "influence"


def _part(share: float, rows: NDArray[np.int64]) -> int:
    """A share of the rows as their number, a half upwards; as budgets are counted."""
    return math.floor(share * len(rows) + 0.5)


def _take_turns(
    lists: Sequence[NDArray[np.int64]], num_rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Every list in turn gives its first row that none gave before, until all are empty.

    Returns:
        The rows in that order, and (num_rows,) the list that gave each row, -1 for none.
    """
    pickers = np.full(num_rows, -1, dtype=np.int32)
    if len(lists) == 1:
        pickers[lists[0]] = 0
        return lists[0], pickers
    queues = {number: iter(rows.tolist()) for number, rows in enumerate(lists)}
    order: list[int] = []
    while queues:
        for number in list(queues):
            row = next((row for row in queues[number] if pickers[row] < 0), None)
            if row is None:
                del queues[number]
                continue
            pickers[row] = number
            order.append(row)
    return np.array(order, dtype=np.int64), pickers


def _check_tasks(
    task_influence: ArrayLike | None, task_names: Sequence[str] | None, num_examples: int
) -> Mapping[str, NDArray[np.float64]]:
    """Influence on each task by its name; none if there is no matrix."""
    if task_influence is None:
        return {}
    matrix = np.asarray(task_influence, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) != num_examples or not matrix.shape[1]:
        raise InputError(
            f"task_influence must be ({num_examples}, num_tasks) numbers, got shape {matrix.shape}"
        )
    names = list(map(str, range(matrix.shape[1]) if task_names is None else task_names))
    if len(names) != matrix.shape[1] or len(set(names)) < len(names):
        raise InputError(
            f"task_names must be {matrix.shape[1]} different names, one for each column of "
            f"task_influence, got {', '.join(names)}"
        )
    return {
        name: check_scores(matrix[:, task], f"task_influence of {name}")
        for task, name in enumerate(names)
    }
