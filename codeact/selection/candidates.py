"""What is known of the rows that a method chooses from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codeact.errors import InputError

if TYPE_CHECKING:
    from codeact.selection.clustering import Clusters

_COLUMN = "column:"

# Where an input comes from, in the words of a user of the command line.
_SOURCES = {
    "num_rows": "give any column of the rows, their ids or their embeddings",
    "embeddings": "codeact embed",
    "queries": "codeact embed of the examples to resemble",
    "query_tasks": "the task of each query",
    "response_tokens": "a table of codeact score, or a tokenizer to count with",
    "num_tokens": "a table of codeact score, or a tokenizer to count with",
    "strata": "a field of the examples, such as their language",
    "reference": "the rows of the selection to match",
    "clusters": "a clustering of the rows",
    "weak_rmi": "codeact score --preset qaq with a weaker model",
    "ifd_ppl": "codeact score",
    "ifd_loss": "codeact score",
    "influence": "codeact influence",
    "task_influence": "columns influence_<task> of codeact influence",
    "task_names": "the tasks of task_influence",
    "rating": "a table of your own, such as the grades of a language model",
    "ppl_response": "Scorer.perplexity, or score = ppl_cond of codeact score",
    "s_ifd": "codeact score --preset tshirt",
    "s_ifd_std": "codeact score --preset tshirt",
    "ifd_noisy_mean": "codeact score --preset tshirt",
    "rmi": "codeact score --preset qaq",
    "ppl_direct": "codeact score --preset qaq",
    "complexity": "a table of your own, such as DEITA's complexity scorer gives",
    "quality": "a table of your own, such as DEITA's quality scorer gives",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """The rows of a set; what is not known is None. A method asks for what it needs by name.

    Attributes:
        ids: Unique names of the rows.
        columns: Scores by the name of their column, (num_rows,) float64, NaN for null.
        embeddings: (num_rows, dim) float32.
        queries: (num_queries, dim) float32, of the examples that the kept rows should resemble.
        query_tasks: (num_queries,) the task of each query.
        num_tokens: (num_rows,) int64 tokens of prompt and response, for a budget in tokens.
        response_tokens: (num_rows,) int64 tokens of the response alone.
        strata: (num_rows,) group of each row, such as its language.
        reference: (num_reference,) int64 distinct row indices of a selection to match.
        clusters: A :class:`Clusters`, or (num_rows,) integer labels, -1 for noise.
        weak_rmi: (num_rows,) float64, ``rmi`` by a weaker model.
        task_influence: (num_rows, num_tasks) float64, influence on each validation task.
        task_names: (num_tasks,) names of its columns.

    Raises:
        InputError: Two of them do not hold the same rows.
    """

    ids: Sequence[str] | None = None
    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    embeddings: NDArray[np.float32] | None = None
    queries: NDArray[np.float32] | None = None
    query_tasks: Sequence[str] | None = None
    num_tokens: NDArray[np.int64] | None = None
    response_tokens: NDArray[np.int64] | None = None
    strata: Sequence[str | int | None] | NDArray[Any] | None = None
    reference: NDArray[np.int64] | None = None
    clusters: Clusters | NDArray[np.int32] | None = None
    weak_rmi: NDArray[np.float64] | None = None
    task_influence: NDArray[np.float64] | None = None
    task_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        sizes = self._sizes()
        for name, size in sizes.items():
            first = next(iter(sizes))
            if size != sizes[first]:
                raise InputError(f"{name} must have the {sizes[first]} rows of {first}, got {size}")

    @property
    def num_rows(self) -> int | None:
        """Number of rows; None if nothing is known of them."""
        return next(iter(self._sizes().values()), None)

    def find(self, name: str) -> Any:
        """An attribute by its name, or a column by ``column:NAME``; None if there is none."""
        if name.startswith(_COLUMN):
            return self.columns.get(name.removeprefix(_COLUMN))
        return getattr(self, name)

    def _sizes(self) -> dict[str, int]:
        labels: Any = getattr(self.clusters, "cluster_labels", self.clusters)
        of_rows = {
            "ids": self.ids,
            **{f"column {name}": column for name, column in self.columns.items()},
            "embeddings": self.embeddings,
            "num_tokens": self.num_tokens,
            "response_tokens": self.response_tokens,
            "strata": self.strata,
            "clusters": labels,
            "weak_rmi": self.weak_rmi,
            "task_influence": self.task_influence,
        }
        return {name: len(values) for name, values in of_rows.items() if values is not None}


def is_column(name: str) -> bool:
    """Whether an input is a column of scores, not an attribute of :class:`Candidates`."""
    return name.startswith(_COLUMN)


def describe_input(name: str) -> str:
    """An input and what makes it: ``column s_ifd (codeact score --preset tshirt)``."""
    bare = name.removeprefix(_COLUMN)
    words = f"column {bare}" if is_column(name) else bare
    return f"{words} ({_SOURCES.get(bare, 'a scores table that has it')})"
