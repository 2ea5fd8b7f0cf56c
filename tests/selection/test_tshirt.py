"""T-SHIRT against a plain port of its rule."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from codeact.errors import InputError
from codeact.selection import TokenBudget, TShirt


def published(mean: np.ndarray, spread: np.ndarray, noisy: np.ndarray, k: int) -> list[int]:
    """tshirt_select.py: the 2k highest means with a mean IFD below 1, then the k lowest spreads."""
    rows = [row for row in range(len(mean)) if noisy[row] < 1 and not np.isnan(mean[row])]
    pool = heapq.nlargest(2 * k, rows, key=lambda row: mean[row])
    return heapq.nsmallest(k, pool, key=lambda row: spread[row])


@pytest.fixture
def columns() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    mean, spread = rng.uniform(0.2, 1.5, 200), rng.uniform(0, 0.1, 200)
    noisy = rng.uniform(0.5, 1.2, 200)
    mean[[3, 77]] = noisy[[3, 77]] = spread[[3, 77]] = np.nan
    return mean, spread, noisy


@pytest.mark.parametrize("k", [1, 10, 60, 100])
def test_published_rule(columns: tuple[np.ndarray, np.ndarray, np.ndarray], k: int) -> None:
    kept = TShirt(k).fit(*columns).selected_
    assert kept.tolist() == published(*columns, k)


def test_reasons_counts_and_ranks() -> None:
    mean = [0.9, 0.8, 0.7, 0.6, None, 0.95]
    spread = [0.05, 0.01, 0.02, 0.001, None, 0.0]
    noisy = [0.9, 0.9, 0.9, 0.9, None, 1.1]
    shirt = TShirt(1).fit(mean, spread, noisy)
    assert shirt.selected_.tolist() == [1]
    assert shirt.ranks_.tolist() == [1, 0, 2, 3, -1, -1]
    assert list(shirt.reasons_) == [
        "dropped: S-IFD place 1 of 4, spread place 2 of 2",
        "kept: S-IFD place 2 of 4, spread place 1 of 2",
        "dropped: S-IFD place 3 of 4, behind the 2 that are compared by spread",
        "dropped: S-IFD place 4 of 4, behind the 2 that are compared by spread",
        "dropped: no S-IFD",
        "dropped: mean noisy IFD 1.1 is not below 1",
    ]
    report = shirt.report_
    assert (report.num_pool, report.num_no_score, report.num_ifd_too_high) == (2, 1, 1)


def test_pool_factor_of_one_is_the_highest_means() -> None:
    mean = [0.1, 0.9, 0.5, 0.7]
    kept = TShirt(2, pool_factor=1.0).fit(mean, [0.0, 0.3, 0.0, 0.2], [0.5] * 4).selected_
    assert kept.tolist() == [3, 1]


def test_token_budget_compares_twice_the_tokens() -> None:
    mean, spread = [0.9, 0.8, 0.7, 0.6], [0.4, 0.3, 0.2, 0.1]
    shirt = TShirt(TokenBudget(10)).fit(mean, spread, [0.5] * 4, num_tokens=[10, 8, 2, 10])
    # 10 + 8 + 2 tokens are twice the budget, so row 3 is not compared though it varies least.
    assert shirt.report_.num_pool == 3
    assert shirt.selected_.tolist() == [2, 1]


def test_what_the_pool_leaves_free_goes_to_the_rows_behind_it() -> None:
    mean, spread, tokens = [0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.4, 0.3], [40, 30, 4, 3]
    shirt = TShirt(TokenBudget(9)).fit(mean, spread, [0.5] * 4, num_tokens=tokens)
    assert shirt.report_.num_pool == 1
    assert shirt.selected_.tolist() == [2, 3]
    assert shirt.reasons_[3] == (
        "kept: S-IFD place 4 of 4, behind the 1 that are compared by spread, whose tokens left room"
    )


@pytest.mark.parametrize(
    ("selector", "columns", "message"),
    [
        (TShirt(3), ([0.5, 0.6, 0.7], [0.1] * 3, [0.9, 1.0, None]), "only 1 are eligible, 2 too"),
        (TShirt(1), ([0.5, 0.6], [0.1], [0.9, 0.9]), "s_ifd_std must be 2 numbers"),
        (TShirt(1, pool_factor=0.5), ([0.5], [0.1], [0.9]), "pool_factor must be at least 1"),
    ],
)
def test_refuses(selector: TShirt, columns: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        selector.fit(*columns)
