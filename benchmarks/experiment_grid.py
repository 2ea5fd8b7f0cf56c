"""The grid of ``experiment.py``: its cells, what all of them share, and the sizes written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from codeact.errors import InputError
from codeact.selection import TokenBudget, find_method, parse_budget
from codeact.training import TrainConfig

BASE, RANDOM, LENGTH_MATCHED, FULL = "base", "random", "length-matched-random", "full"
METHODS = (RANDOM, LENGTH_MATCHED, "cdas", "ifd", "qaq", "kcenter", "influence", FULL)

# IFD as its critics and the authors' ablation use it: the highest of the set, above 1 too.
OPTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType({"ifd": {"cap": None}})


@dataclass(frozen=True)
class Cell:
    """A method at a budget with a seed. The model as it came is ``base``, without a budget.

    The seed decides what a method draws (the k-means of CDAS, the first row of k-center), the
    order of the rows in training, and with it everything random there.
    """

    method: str
    budget: str
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return self.method if self.method == BASE else f"{self.method}-{self.budget}-{self.seed}"

    @property
    def arm(self) -> tuple[str, str]:
        """Cells that differ by their seed alone."""
        return self.method, self.budget

    def share(self, num_rows: int) -> float:
        """About how much of the pool it trains on."""
        if self.method in (BASE, FULL):
            return float(self.method == FULL)
        budget = parse_budget(self.budget)
        if isinstance(budget, TokenBudget):
            return budget.tokens if isinstance(budget.tokens, float) else 1.0
        return budget if isinstance(budget, float) else budget / num_rows


@dataclass(frozen=True)
class Benchmarks:
    """Generated answers to HumanEval(+) and MBPP(+), for models that can solve some.

    Attributes:
        names: ``humaneval``, ``mbpp``; none asks for no generation.
        limit: tasks of each; None is all.
        max_new_tokens: of an answer.
    """

    names: tuple[str, ...] = ()
    limit: int | None = None
    max_new_tokens: int = 512


@dataclass(frozen=True)
class Settings:
    """What every cell shares. A change makes the finished cells of a folder useless.

    Attributes:
        model: folder or hub id.
        data: files of instruction data; none stands for functions of installed packages.
        num_rows: rows of the pool to select from.
        num_held_out: rows that no cell trains on.
        max_length: rows with more tokens are left out.
        control_of: the method whose response lengths the length-matched random rows have.
        validation: files of tasks for ``influence``; none stands for :func:`mbpp_train`.
        num_problems: of each of these tasks.
        train: of every cell; its seed is the cell's.
        benchmarks: what is generated for.
        split_seed: of the draws of pool and held-out rows: the same rows for all seeds of cells.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    model: str
    data: tuple[str, ...] = ()
    num_rows: int = 200
    num_held_out: int = 48
    max_length: int = 160
    control_of: str = "ifd"
    validation: tuple[str, ...] = ()
    num_problems: int = 16
    train: TrainConfig = field(default_factory=TrainConfig)
    benchmarks: Benchmarks = field(default_factory=Benchmarks)
    split_seed: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class Size:
    """A grid that is written down: methods, budgets, number of seeds, and options of Settings."""

    methods: tuple[str, ...]
    budgets: tuple[str, ...]
    num_seeds: int
    options: Mapping[str, Any]


SIZES: Mapping[str, Size] = MappingProxyType(
    {
        # Two CPU cores: at most 20 minutes.
        "small": Size(
            (RANDOM, LENGTH_MATCHED, "cdas", "ifd", "kcenter"),
            ("0.1", "0.2"),
            2,
            {
                "num_rows": 200,
                "num_held_out": 48,
                "max_length": 160,
                "num_problems": 8,
                "train": TrainConfig(epochs=1.0, learning_rate=1e-4, capacity=512, accumulation=1),
            },
        ),
        # One H100: sized for 25 minutes in calls of 8. Not measured.
        "gpu": Size(
            METHODS,
            ("0.1", "0.2", "0.4"),
            3,
            {
                "num_rows": 5000,
                "num_held_out": 512,
                "max_length": 1024,
                "num_problems": 64,
                "train": TrainConfig(epochs=2.0, learning_rate=5e-5, capacity=8192, accumulation=1),
            },
        ),
    }
)


def grid(methods: Sequence[str], budgets: Sequence[str], num_seeds: int) -> list[Cell]:
    """All cells, a whole seed before the next: a grid that is cut short has fewer seeds.

    ``full`` has no budget of its own, and the model as it came is looked at once.

    Raises:
        InputError: an unknown method or budget, or one named twice.
    """
    for name, values in (("methods", methods), ("budgets", budgets)):
        if not values or len(set(values)) < len(values):
            raise InputError(f"{name} must be at least one, each once, got {', '.join(values)}")
    for method in methods:
        if method != FULL:
            find_method(method)
    for budget in budgets:
        parse_budget(budget)
    if num_seeds < 1:
        raise InputError(f"seeds must be at least 1, got {num_seeds}")
    cells = [Cell(BASE, "", 0)]
    for seed in range(num_seeds):
        selected = [method for method in methods if method != FULL]
        cells += [Cell(method, budget, seed) for budget in budgets for method in selected]
        cells += [Cell(FULL, "1.0", seed)] * (FULL in methods)
    return cells


def part_of(cells: Sequence[Cell], num_rows: int, parts: int, part: int) -> list[Cell]:
    """The cells of one of several parts, which are about equally long and hold every cell once.

    Raises:
        InputError: ``part`` is not from 1 to ``parts``.
    """
    if not 1 <= part <= parts:
        raise InputError(f"part must be from 1 to the {parts} parts, got {part}")
    shares = np.array([cell.share(num_rows) for cell in cells])
    loads = np.zeros(parts)
    owners = np.zeros(len(cells), dtype=int)
    for index in np.argsort(-shares, kind="stable"):  # the longest first, to the idlest part
        owners[index] = int(loads.argmin())
        # Loading, selecting and the held-out rows cost as much in every cell.
        loads[owners[index]] += shares[index] + 0.1
    return [cell for cell, owner in zip(cells, owners, strict=True) if owner == part - 1]
