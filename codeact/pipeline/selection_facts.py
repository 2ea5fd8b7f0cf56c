"""What the selection report is about: the rows, the arms, what is known of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeact.data import Examples
from codeact.data.language import detect_language
from codeact.errors import InputError
from codeact.pipeline.score_cost import ScoreCost, read_cost
from codeact.pipeline.selection_arms import LENGTH_MATCHED, RANDOM, Arm, add_controls
from codeact.selection.budget import Budget
from codeact.selection.candidates import Candidates, is_column
from codeact.selection.registry import METHODS

_NUM_CLUSTERS = 10  # of the report's own k-means, for methods that have no clusters


@dataclass(frozen=True, kw_only=True)
class SelectionFacts:
    """A selection with everything it is compared with.

    Attributes:
        examples: The rows of the set.
        candidates: What is known of them.
        arms: By name; the selection is the first, random controls the last two.
        score: The column that the page shows, None if there is none.
        costs: Of the scores tables that say so.
        epochs: Of the training that the cost is compared with.
        seed: Of the selection.
        command: That made it, in words of a shell; "" if none did.
    """

    examples: Examples
    candidates: Candidates
    arms: Mapping[str, Arm]
    score: str | None
    costs: tuple[ScoreCost, ...] = ()
    epochs: float = 3
    seed: int = 42
    command: str = ""

    @classmethod
    def compare(
        cls,
        arm: Arm,
        examples: Examples,
        candidates: Candidates,
        budget: Budget,
        *,
        score: str | None = None,
        compare: Sequence[str] = (),
        score_files: Sequence[Path] = (),
        epochs: float = 3,
        seed: int = 42,
        device: str = "auto",
        command: str = "",
    ) -> SelectionFacts:
        """Run the methods of ``compare`` and the random controls beside a selection.

        Raises:
            InputError: A method lacks an input or cannot meet the budget.
        """
        lengths, _ = response_lengths(examples, candidates)
        arms = add_controls(
            arm, candidates, budget, lengths, seed=seed, compare=compare, device=device
        )
        costs = [cost for path in score_files if (cost := read_cost(path)) is not None]
        return cls(
            examples=examples,
            candidates=candidates,
            arms=arms,
            score=score or _score_of(arm.name, candidates),
            costs=tuple(costs),
            epochs=epochs,
            seed=seed,
            command=command,
        )

    @property
    def main(self) -> Arm:
        """The selection."""
        return next(iter(self.arms.values()))

    @property
    def control(self) -> Arm:
        """Random rows under the same budget; the length-matched ones if the selection is random."""
        return self.arms[LENGTH_MATCHED if self.main.name == RANDOM else RANDOM]

    @property
    def num_rows(self) -> int:
        """Rows of the set."""
        return len(self.examples)

    def kept(self, name: str) -> NDArray[np.bool_]:
        """(num_rows,) whether an arm kept a row."""
        mask = np.zeros(self.num_rows, dtype=bool)
        mask[self.arms[name].selected] = True
        return mask

    @property
    def selections(self) -> dict[str, NDArray[np.int64]]:
        """Kept row indices by arm."""
        return {name: arm.selected for name, arm in self.arms.items()}

    @cached_property
    def lengths(self) -> tuple[NDArray[np.int64], str]:
        """Response lengths, and what they count."""
        return response_lengths(self.examples, self.candidates)

    @cached_property
    def languages(self) -> list[str]:
        """(num_rows,) programming language of each row."""
        return [detect_language(example) for example in self.examples]

    @cached_property
    def clusters(self) -> tuple[NDArray[np.int32], str] | None:
        """Labels, -1 for noise, and whose they are; None when there is nothing to cluster by."""
        for name, arm in self.arms.items():
            labels = getattr(arm.selector, "cluster_labels_", None)
            if labels is not None:
                return labels, f"those of {name}"
        given: Any = self.candidates.clusters
        if given is not None:
            return np.asarray(getattr(given, "cluster_labels", given)), "those given"
        if self.candidates.embeddings is None or self.num_rows < _NUM_CLUSTERS:
            return None
        from codeact.selection.clustering import cluster_kmeans

        found = cluster_kmeans(
            self.candidates.embeddings, num_clusters=_NUM_CLUSTERS, seed=self.seed
        )
        return found.cluster_labels, f"{_NUM_CLUSTERS} by k-means, made for this page alone"


def response_lengths(examples: Examples, candidates: Candidates) -> tuple[NDArray[np.int64], str]:
    """Tokens of each response if they are known, else its characters; and which of them."""
    if candidates.response_tokens is not None:
        return candidates.response_tokens, "tokens"
    return np.array([len(example.response) for example in examples], dtype=np.int64), "characters"


def _score_of(method: str, candidates: Candidates) -> str | None:
    """The first column that the method reads, else a usual score that is there."""
    names = [name.removeprefix("column:") for name in METHODS[method].inputs if is_column(name)]
    usual = ("ifd_ppl", "ifd_loss", "s_ifd", "rmi", "ppl_response")
    return next((name for name in (*names, *usual) if name in candidates.columns), None)


def check_rows(facts: SelectionFacts) -> None:
    """Refuse arms over another number of rows.

    Raises:
        InputError: There are fewer or more.
    """
    for name, arm in facts.arms.items():
        if len(arm.selector.ranks_) != facts.num_rows:
            raise InputError(
                f"arms[{name!r}] must be of the {facts.num_rows} rows of examples, "
                f"got {len(arm.selector.ranks_)}"
            )
