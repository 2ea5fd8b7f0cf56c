"""A selection, and the ones it is held against: further methods, and random rows always."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeact.errors import InputError
from codeact.selection.budget import Budget
from codeact.selection.candidates import Candidates
from codeact.selection.registry import METHODS, select_rows
from codeact.selection.selector import Selector

RANDOM, LENGTH_MATCHED = "random", "length-matched-random"


@dataclass(frozen=True)
class Arm:
    """One selection of the set.

    Attributes:
        name: Of its method.
        selector: The fitted estimator.
        seconds: Wall time of its ``fit``.
        options: That were not left at their defaults.
    """

    name: str
    selector: Selector
    seconds: float
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Where its rule is from."""
        return METHODS[self.name].source

    @property
    def selected(self) -> NDArray[np.int64]:
        """Row indices, best first."""
        return self.selector.selected_


def choose(
    method: str,
    candidates: Candidates,
    budget: Budget,
    *,
    seed: int,
    score: str | None = None,
    device: str = "auto",
    **options: Any,
) -> Arm:
    """:func:`codeact.selection.registry.select_rows`, timed.

    Raises:
        InputError: What the method refuses, or that it keeps no row.
    """
    start = time.perf_counter()
    selector = select_rows(
        method, candidates, budget, seed=seed, score=score, device=device, **options
    )
    arm = Arm(method, selector, time.perf_counter() - start, options)
    if not len(arm.selected):
        raise InputError(f"{method} keeps none of {candidates.num_rows} rows with this budget")
    return arm


def add_controls(
    main: Arm,
    candidates: Candidates,
    budget: Budget,
    lengths: NDArray[np.int64],
    *,
    seed: int,
    compare: Sequence[str] = (),
    device: str = "auto",
) -> dict[str, Arm]:
    """The selection first, then what it is compared with, by name.

    Args:
        main: The selection.
        candidates: Of all rows.
        budget: Of the selection, and of every other one.
        lengths: (num_rows,) of the responses, which the length-matched control matches.
        seed: Of all of them: what the command would keep by that method.
        compare: Further methods, with their defaults.
        device: For methods that compute with torch.

    Returns:
        Arms by name: the selection, ``compare``, then a random choice with the same budget and one
        of as many rows as the selection has, at its response lengths.
    """
    arms = {main.name: main}
    for name in compare:
        if name not in (main.name, RANDOM, LENGTH_MATCHED):
            arms[name] = choose(name, candidates, budget, seed=seed, device=device)
    if main.name != RANDOM:
        arms[RANDOM] = choose(RANDOM, candidates, budget, seed=seed)
    if main.name != LENGTH_MATCHED:
        matched = replace(candidates, reference=main.selected, response_tokens=lengths)
        arms[LENGTH_MATCHED] = choose(LENGTH_MATCHED, matched, len(main.selected), seed=seed)
    return arms
