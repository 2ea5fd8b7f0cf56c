"""Facility location against a naive greedy on a full matrix in float64, and against submodlib."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from codeact.errors import InputError
from codeact.selection import TokenBudget
from codeact.selection import lazy_greedy as lazy
from codeact.selection.facility_location import FacilityLocation
from codeact.selection.rows import Rows


def clustered(num_rows: int, dim: int = 16, seed: int = 0) -> NDArray[np.float32]:
    """Rows around 8 centres of unequal spread, far from the origin."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(8, size=num_rows)
    spread = rng.uniform(0.1, 0.8, size=8)[labels, None]
    points = 1 + rng.normal(size=(8, dim))[labels] + spread * rng.normal(size=(num_rows, dim))
    return points.astype(np.float32)


def by_place(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows in the order in which ties go, so that a plain argmax decides as we do."""
    return points[Rows(len(points), content=points).order]


def similarities(points: NDArray[np.float32], similarity: str) -> NDArray[np.float64]:
    matrix = points.astype(np.float64)
    if similarity == "euclidean":
        return np.exp(-cdist(matrix, matrix) / matrix.shape[1])
    return np.maximum(0, 1 - cdist(matrix, matrix, "cosine"))


def naive_greedy(kernel: NDArray[np.float64], count: int) -> tuple[list[int], list[float]]:
    """Every gain anew at every step; of gains (at first: of losses) equal to 2e-6 the first row."""
    losses = (1 - kernel).sum(axis=0)
    order = [int(np.argmax(losses <= losses.min() * (1 + 2e-6)))]
    gains = [float(len(kernel) - losses[order[0]])]
    covered = kernel[:, order[0]]
    for _ in range(1, count):
        wins = np.maximum(kernel - covered[:, None], 0).sum(axis=0)
        wins[order] = -np.inf
        order.append(int(np.argmax(wins >= wins.max() * (1 - 2e-6))))
        gains.append(float(wins[order[-1]]))
        covered = np.maximum(covered, kernel[:, order[-1]])
    return order, gains


@pytest.mark.parametrize("similarity", ["euclidean", "cosine"])
@pytest.mark.parametrize(("num_rows", "count"), [(30, 30), (300, 80), (800, 120)])
def test_is_the_naive_greedy(num_rows: int, count: int, similarity: str) -> None:
    points = by_place(clustered(num_rows))
    kernel = similarities(points, similarity)
    order, gains = naive_greedy(kernel, count)
    found = FacilityLocation(count, similarity=similarity).fit(points)  # type: ignore[arg-type]
    assert found.selected_.tolist() == order
    np.testing.assert_allclose(found.gains_, gains, rtol=2e-5, atol=1e-6)
    best = kernel[:, order].max(axis=1)
    np.testing.assert_allclose(found.similarities_, best, rtol=2e-6)
    assert found.report_.objective == pytest.approx(best.sum(), rel=1e-6)


def test_lists_and_products_give_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    points = by_place(clustered(300))
    order, _ = naive_greedy(similarities(points, "euclidean"), 50)
    for entries in (0, 2000):  # never a list; lists until they are full
        monkeypatch.setattr(lazy, "_LIST_ENTRIES", entries)
        assert FacilityLocation(50).fit(points).selected_.tolist() == order


def test_is_what_submodlib_finds() -> None:
    submodlib = pytest.importorskip("submodlib.functions.facilityLocation")
    points = by_place(clustered(400))
    points /= np.linalg.norm(points, axis=1, keepdims=True)  # as Superfiltering does
    rival = submodlib.FacilityLocationFunction(
        n=len(points), mode="dense", data=points, metric="euclidean"
    )
    found = FacilityLocation(60).fit(points)
    theirs = rival.maximize(
        budget=60,
        optimizer="LazyGreedy",
        stopIfZeroGain=False,
        stopIfNegativeGain=False,
        verbose=False,
        show_progress=False,
    )
    rows, gains = zip(*theirs, strict=True)
    kernel = similarities(points, "euclidean")
    # Of two rows that cover nobody but each other they may take the other one: same objective.
    assert len(set(rows) & set(found.selected_.tolist())) >= 57
    reached = kernel[:, list(rows)].max(axis=1).sum()
    assert found.report_.objective == pytest.approx(reached, abs=1e-4)
    np.testing.assert_allclose(found.gains_, gains, rtol=1e-3, atol=1e-4)


def test_real_embeddings_give_the_naive_order(data_folder: Path) -> None:
    path = data_folder / "ref" / "minilm_embeddings.npz"
    if not path.is_file():
        pytest.skip(f"no reference embeddings in {path}")
    points = by_place(np.load(path)["embedding"])
    order, _ = naive_greedy(similarities(points, "euclidean"), 64)
    assert FacilityLocation(64).fit(points).selected_.tolist() == order


def test_near_duplicates_are_measured_exactly() -> None:
    """Pairs 1e-4 apart: from float32 products alone their distances would be noise of 1e-3."""
    rng = np.random.default_rng(2)
    points = np.repeat(rng.normal(size=(100, 8)), 2, axis=0)
    points[1::2, 0] += 1e-4
    found = FacilityLocation(100).fit(points)
    assert sorted(found.selected_ // 2) == list(range(100))
    stored = points.astype(np.float32)[:, 0].astype(np.float64)  # 1e-4 itself rounds by a percent
    distances = np.abs(stored[::2] - stored[1::2]).repeat(2)
    expected = np.exp(-distances / 8)
    expected[found.selected_] = 1
    np.testing.assert_allclose(1 - found.similarities_, 1 - expected, atol=1e-6)


def test_an_outlier_spoils_no_distance() -> None:
    """The products of a row 100 times as far out are wrong by more than the others' distances."""
    points = clustered(200)
    points[7] *= 100
    points = by_place(points)
    kernel = similarities(points, "euclidean")
    found = FacilityLocation(200).fit(points)
    assert (found.similarities_ == 1).all()
    found = FacilityLocation(40).fit(points)
    assert found.selected_.tolist() == naive_greedy(kernel, 40)[0]
    np.testing.assert_allclose(
        found.similarities_, kernel[:, found.selected_].max(axis=1), rtol=2e-6
    )


def test_each_part_is_the_naive_greedy_of_its_rows() -> None:
    points = clustered(400)
    found = FacilityLocation(40, partitions=4, seed=7).fit(points)
    assert len(set(found.selected_.tolist())) == 40
    assert (np.diff(found.gains_) <= 0).all()
    whole = FacilityLocation(40).fit(points)
    parts = [FacilityLocation(40, partitions=4, seed=s).fit(points) for s in (7, 7, 8)]
    assert parts[0].selected_.tolist() == parts[1].selected_.tolist() != parts[2].selected_.tolist()
    kernel = similarities(points, "euclidean")
    reached = kernel[:, found.selected_].max(axis=1).sum()
    assert found.report_.objective <= reached <= whole.report_.objective + 1e-3
    random = np.random.default_rng(0).permutation(400)[:40]
    assert reached > kernel[:, random].max(axis=1).sum()


def test_a_part_keeps_its_share_by_the_naive_greedy() -> None:
    """The parts are drawn by the keys of the rows: read here as the estimator reads them."""
    points = clustered(300)
    ids = [f"row {number}" for number in range(300)]
    rows = Rows(300, ids)
    parts = np.array_split(np.argsort(rows.keys(5, "partitions")), 3)
    found = FacilityLocation(30, partitions=3, seed=5).fit(points, ids=ids)
    expected = [
        part[order]
        for part in (np.array(sorted(part, key=lambda row: rows.place[row])) for part in parts)
        for order, _ in [naive_greedy(similarities(points[part], "euclidean"), 10)]
    ]
    assert set(found.selected_.tolist()) == set(np.concatenate(expected).tolist())


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_token_budget_is_filled_to_less_than_the_shortest_row_left(partitions: int) -> None:
    points = clustered(150)
    tokens = np.random.default_rng(1).integers(20, 300, size=150)
    found = FacilityLocation(TokenBudget(2000), partitions=partitions)
    found.fit(points, num_tokens=tokens)
    left = 2000 - tokens[found.selected_].sum()
    others = np.setdiff1d(np.arange(150), found.selected_)
    assert 0 <= left < tokens[others].min()
    assert found.report_.tokens_kept == 2000 - left


def test_a_token_budget_takes_the_largest_gain_that_fits() -> None:
    points = by_place(clustered(80))
    tokens = np.random.default_rng(4).integers(10, 100, size=80)
    kernel = similarities(points, "euclidean")
    covered, left, expected = np.zeros(80), 600, list[int]()
    while (open_ := (tokens <= left) & ~np.isin(np.arange(80), expected)).any():
        wins = np.maximum(kernel - covered[:, None], 0).sum(axis=0)
        wins = np.where(open_, wins, -np.inf)
        expected.append(int(np.argmax(wins >= wins.max() * (1 - 2e-6))))
        left -= tokens[expected[-1]]
        covered = np.maximum(covered, kernel[:, expected[-1]])
    found = FacilityLocation(TokenBudget(600)).fit(points, num_tokens=tokens)
    assert found.selected_.tolist() == expected


def test_reasons_name_place_and_gain() -> None:
    found = FacilityLocation(3).fit(clustered(40))
    second = found.selected_[1]
    assert found.reasons_[second] == (
        f"kept: place 2 of 3, adds {found.gains_[1]:.4g} to the coverage"
    )
    dropped = int(np.flatnonzero(found.ranks_ < 0)[0])
    similar = found.similarities_[dropped]
    assert found.reasons_[dropped] == f"dropped: a kept row is similar to it by {similar:.5f}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similarity": "dot"}, "similarity must be euclidean or cosine, got 'dot'"),
        ({"partitions": 0}, "partitions must be from 1 to 20, the rows, got 0"),
        ({"partitions": 21}, "partitions must be from 1 to 20, the rows, got 21"),
    ],
)
def test_refuses_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FacilityLocation(2, **options).fit(clustered(20))  # type: ignore[arg-type]


def test_refuses_a_row_of_zeros_under_cosine() -> None:
    points = clustered(20)
    points[7] = 0
    with pytest.raises(InputError, match=r"no row of zeros, .* got 1 of 20, first in row 7"):
        FacilityLocation(2, similarity="cosine").fit(points)
