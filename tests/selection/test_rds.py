"""RDS+ keeps what the published scripts keep, in whatever order the rows come."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from codeact.errors import InputError
from codeact.selection import query_turns
from codeact.selection.budget import TokenBudget
from codeact.selection.rds import RDSPlus

RNG = np.random.default_rng(7)
CENTRES = RNG.normal(size=(6, 24))
POINTS = (CENTRES[RNG.integers(6, size=300)] + 0.8 * RNG.normal(size=(300, 24))).astype(np.float32)
QUERIES = (CENTRES[[0, 1, 1, 4, 5]] + 0.5 * RNG.normal(size=(5, 24))).astype(np.float32)
TASKS = ["code", "maths", "maths", "code", "chat"]
IDS = [f"row-{number}" for number in range(300)]


def similarities(points: Any = POINTS, queries: Any = QUERIES) -> Any:
    """(num_queries, num_rows) cosines in float64."""
    points, queries = points.astype(np.float64), queries.astype(np.float64)
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    return (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ points.T


def round_robin(scores: Any, size: int) -> list[int]:
    """The loop of the published scripts: every list gives up its best row in turn."""
    lists = [sorted(enumerate(row), key=lambda pair: pair[1], reverse=True) for row in scores]
    kept: dict[int, None] = {}
    while len(kept) < size:
        for waiting in lists:
            kept[waiting.pop(0)[0]] = None
    return list(kept)[:size]


def by_task(scores: Any, reduce: Any) -> Any:
    return [
        reduce(scores[[task == name for task in TASKS]], axis=0) for name in dict.fromkeys(TASKS)
    ]


EXPECTED = {
    ("round-robin", False): similarities(),
    ("round-robin", True): by_task(similarities(), np.max),
    ("mean", False): [similarities().mean(axis=0)],
    ("mean", True): by_task(similarities(), np.mean),
}


@pytest.mark.parametrize(("aggregation", "tasks"), EXPECTED)
@pytest.mark.parametrize("budget", [1, 7, 120, 300])
def test_keeps_what_the_scripts_keep(aggregation: Any, tasks: bool, budget: int) -> None:
    chosen = RDSPlus(budget, aggregation, device="cpu")
    chosen.fit(POINTS, QUERIES, query_tasks=TASKS if tasks else None)
    assert chosen.selected_.tolist() == round_robin(EXPECTED[aggregation, tasks], budget)


def test_says_who_picked_each_row() -> None:
    chosen = RDSPlus(60, device="cpu").fit(POINTS, QUERIES, query_tasks=TASKS)
    scores = np.array(EXPECTED["round-robin", True])
    ranks = (-scores).argsort(axis=1).argsort(axis=1)
    np.testing.assert_array_equal(chosen.pickers_, ranks.argmin(axis=0))
    picked = scores[chosen.pickers_, np.arange(300)]
    np.testing.assert_allclose(chosen.similarities_, picked, atol=1e-6)
    first = chosen.selected_[1]
    assert chosen.reasons_[first] == (
        "kept: place 2 of 300 by turn, number 1 of those nearest to task maths"
    )
    report = chosen.report_
    assert report.pickers == ("task code", "task maths", "task chat")
    assert sum(report.kept_by_picker) == report.num_kept == 60
    # Equal shares of the turns, of which a task loses few to rows that another picked first.
    assert min(report.kept_by_picker) >= 15
    assert report.num_queries == 5


@pytest.mark.parametrize("ids", [IDS, None], ids=["ids", "content"])
@pytest.mark.parametrize("aggregation", ["round-robin", "mean"])
@pytest.mark.parametrize("budget", [40, 0.1, TokenBudget(500), TokenBudget(0.3)], ids=str)
def test_the_order_of_rows_does_not_matter(ids: Any, aggregation: Any, budget: Any) -> None:
    # With names, in threes of one vector, which only the names tell apart.
    points = POINTS if ids is None else np.repeat(POINTS[:100], 3, axis=0)
    num_tokens = np.random.default_rng(1).integers(1, 30, 300)
    shuffled = np.random.default_rng(2).permutation(300)
    first = RDSPlus(budget, aggregation, device="cpu")
    first.fit(points, QUERIES, ids=ids, num_tokens=num_tokens)
    second = RDSPlus(budget, aggregation, device="cpu").fit(
        points[shuffled],
        QUERIES,
        ids=None if ids is None else [ids[row] for row in shuffled],
        num_tokens=num_tokens[shuffled],
    )
    np.testing.assert_array_equal(first.selected_, shuffled[second.selected_])
    np.testing.assert_array_equal(first.ranks_[shuffled], second.ranks_)
    assert [first.reasons_[row] for row in shuffled] == second.reasons_


def test_token_budget_is_filled() -> None:
    num_tokens = np.random.default_rng(3).integers(1, 50, 300)
    chosen = RDSPlus(TokenBudget(700), device="cpu").fit(POINTS, QUERIES, num_tokens=num_tokens)
    kept = np.zeros(300, dtype=bool)
    kept[chosen.selected_] = True
    free = 700 - num_tokens[kept].sum()
    assert 0 <= free < num_tokens[~kept].min()
    assert chosen.report_.tokens_kept == num_tokens[kept].sum()


def test_equal_similarities_stand_in_the_order_of_rows() -> None:
    scores = torch.tensor([0.0, -0.0, 0.5, -0.5, 0.5, -math.inf, -0.25, math.inf])
    assert query_turns._ranking(scores).tolist() == [7, 2, 4, 0, 1, 6, 3, 5]


def test_blocks_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = RDSPlus(50, device="cpu").fit(POINTS, QUERIES)
    monkeypatch.setattr(query_turns, "_BLOCK", 600)
    assert len(list(query_turns.query_scores(torch.ones(300, 2), torch.ones(5, 2)))) == 3
    blocked = RDSPlus(50, device="cpu").fit(POINTS, QUERIES)
    np.testing.assert_array_equal(whole.ranks_, blocked.ranks_)


def test_counts_candidates_that_are_queries() -> None:
    points = np.concatenate([POINTS, 3 * QUERIES[:2]])
    chosen = RDSPlus(20, device="cpu").fit(points, QUERIES)
    assert {300, 301} <= set(chosen.selected_.tolist())
    assert chosen.report_.num_kept_copies == 2
    assert RDSPlus(20, device="cpu").fit(POINTS, QUERIES).report_.num_kept_copies == 0


ZEROS = np.where(np.arange(300)[:, None] == 9, 0, POINTS)


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({"aggregation": "max"}, {}, "aggregation must be round-robin or mean, got 'max'"),
        ({"budget": 301}, {}, "budget must be a count from 1 to 300"),
        ({"budget": TokenBudget(9)}, {}, "needs num_tokens"),
        ({}, {"queries": QUERIES[:, :9]}, "queries must have the 24 columns of embeddings, got 9"),
        ({}, {"queries": QUERIES[:0]}, "queries must hold at least one row, got none"),
        ({}, {"queries": QUERIES * np.nan}, "queries must be finite"),
        ({}, {"embeddings": ZEROS}, "embeddings .+ zeros in 1 rows, first in row 9"),
        ({}, {"queries": 0 * QUERIES}, "queries .+ zeros in 5 rows, first in row 0"),
        ({}, {"query_tasks": ["a"]}, "query_tasks must name the task of all 5 queries, got 1"),
        ({}, {"ids": ["a"] * 300}, "ids"),
        ({"device": "tpu"}, {}, "device must be auto, cpu or cuda, got 'tpu'"),
    ],
)
def test_refused(options: dict[str, Any], data: dict[str, Any], message: str) -> None:
    given = {"embeddings": POINTS, "queries": QUERIES, **data}
    with pytest.raises(InputError, match=message):
        RDSPlus(**{"device": "cpu", **options}).fit(
            given.pop("embeddings"), given.pop("queries"), **given
        )
