"""What the influence report is about: the table, its rows, and what was checked beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codeact.data import Examples
from codeact.data.language import detect_language
from codeact.errors import InputError

if TYPE_CHECKING:
    from codeact.scoring.influence.history import InfluenceHistory

Floats = NDArray[np.float64]

_OTHER_SCORES = ("ifd_ppl", "ifd_loss", "s_ifd", "rmi", "rating")


class Prediction(Protocol):
    """A fitted predictor of influence, as :mod:`codeact.scoring.influence.predictor` makes it."""

    spearman_: float
    interval_: tuple[float, float]
    passes_: bool
    verdict_: str


@dataclass(frozen=True, kw_only=True)
class InfluenceFacts:
    """An influence table with everything that its page shows.

    Attributes:
        table: Columns of an influence table (see :class:`codeact.scoring.Scorer`), one row an
            example, also as :meth:`InfluenceHistory.combined` gives it.
        examples: The rows of the table, in its order.
        history: Influence at several checkpoints; None reads it from the table.
        settings: What was asked, in words, by what it is: model, validation tasks with their
            sizes, optimizer, parameters, derivative, ... in the order of the page.
        canary: The line of the start-up check against finite differences; None if there was none.
        oracle: (fast, exact) influence of the same rows by task, each (num_checked,) float64; the
            exact one is the fall of the loss after a step divided by its learning rate.
        predictor: Fitted, or several by the task that they predict.
        columns: Other scores of the rows, (num_rows,) each with NaN where there is none, by name;
            IFD columns of the table itself need not be given.
        seconds: Wall time of the passes.
        scoring_seconds: Wall time of a plain scoring pass over the same rows.
        command: That made the table, in words of a shell; "" if none did.
    """

    table: pa.Table
    examples: Examples
    history: InfluenceHistory | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    canary: str | None = None
    oracle: Mapping[str, tuple[Floats, Floats]] | None = None
    predictor: Prediction | Mapping[str, Prediction] | None = None
    columns: Mapping[str, Floats] = field(default_factory=dict)
    seconds: float | None = None
    scoring_seconds: float | None = None
    command: str = ""

    @cached_property
    def over_time(self) -> InfluenceHistory:
        """The history, that of the table if none was given."""
        from codeact.scoring.influence.history import InfluenceHistory  # loads PyTorch

        return self.history if self.history is not None else InfluenceHistory.of_table(self.table)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the validation tasks."""
        return self.over_time.tasks

    @property
    def num_rows(self) -> int:
        """Rows of the pool."""
        return len(self.examples)

    def column(self, name: str) -> Floats:
        """(num_rows,) float64 column of the table, NaN for null."""
        values: Floats = self.table[name].cast(pa.float64()).to_numpy().astype(np.float64)
        return values

    @cached_property
    def influence(self) -> Floats:
        """(num_rows,) mean over tasks."""
        return self.column("influence")

    @cached_property
    def by_task(self) -> Floats:
        """(num_rows, num_tasks)."""
        return np.stack([self.column(f"influence_{task}") for task in self.tasks], axis=1)

    @cached_property
    def others(self) -> dict[str, Floats]:
        """Numbers of a row that influence is held against, by their name for a reader."""
        found: dict[str, Floats] = {}
        for name, words in (
            ("num_response_tokens", "answer length (tokens)"),
            ("nll_response", "loss of the answer (nats per token)"),
        ):
            if name in self.table.column_names:
                found[words] = self.column(name)
        for name in _OTHER_SCORES:
            if name in self.table.column_names:
                found[name] = self.column(name)
        return found | {name: np.asarray(v, np.float64) for name, v in self.columns.items()}

    @cached_property
    def languages(self) -> list[str]:
        """(num_rows,) programming language of each row."""
        return [detect_language(example) for example in self.examples]

    @property
    def num_predicted(self) -> int:
        """Rows whose mean over tasks is predicted."""
        if "influence_source" not in self.table.column_names:
            return 0
        sources: list[str | None] = self.table["influence_source"].to_pylist()
        return sources.count("predicted")

    @property
    def predictors(self) -> Mapping[str, Any]:
        """By task, "" for one of the mean over tasks; empty if there is none."""
        if self.predictor is None:
            return {}
        return self.predictor if isinstance(self.predictor, Mapping) else {"": self.predictor}


def check_facts(facts: InfluenceFacts) -> None:
    """Refuse what does not belong together.

    Raises:
        InputError: The table has no influence, or is of other rows than the examples; a column or
            the history is of another number of rows; arrays of the oracle differ in length.
    """
    for name in ("id", "influence"):
        if name not in facts.table.column_names:
            raise InputError(
                f"table must have a column {name}, got {', '.join(facts.table.column_names)}"
            )
    ids = tuple(str(name) for name in facts.table["id"].to_pylist())
    if ids != facts.examples.ids:
        raise InputError(
            "table must be of the examples in their order, got "
            f"{len(ids)} rows for {facts.num_rows} examples or other ids"
        )
    if facts.over_time.ids != ids:
        raise InputError("history must be of the rows of the table in their order, got others")
    for name, values in facts.columns.items():
        if np.shape(values) != (facts.num_rows,):
            raise InputError(
                f"columns[{name!r}] must be ({facts.num_rows},), got {np.shape(values)}"
            )
    for task, (fast, exact) in (facts.oracle or {}).items():
        if np.ndim(fast) != 1 or np.shape(fast) != np.shape(exact):
            raise InputError(
                f"oracle[{task!r}] must be two 1-D arrays of one length, "
                f"got {np.shape(fast)} and {np.shape(exact)}"
            )
