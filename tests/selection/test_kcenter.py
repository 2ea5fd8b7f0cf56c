"""K-center against the plain greedy loop in float64, and its fields against plain distances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from codeact.errors import InputError
from codeact.selection import TokenBudget
from codeact.selection.kcenter import KCenter


def clustered(num_rows: int, dim: int = 24, seed: int = 0) -> NDArray[np.float32]:
    """Rows around 12 centres of unequal spread, far from the origin."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(12, dim))
    labels = rng.integers(12, size=num_rows)
    spread = rng.uniform(0.05, 0.6, size=12)[labels, None]
    points = 3 + centres[labels] + spread * rng.normal(size=(num_rows, dim))
    return points.astype(np.float32)


def plain_greedy(points: NDArray[np.float32], start: int, count: int) -> list[int]:
    """The published loop: all distances to the newest centre, then the farthest row."""
    matrix = points.astype(np.float64)
    nearest = cdist(matrix, matrix[[start]])[:, 0]
    order = [start]
    while len(order) < count:
        order.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, cdist(matrix, matrix[[order[-1]]])[:, 0])
    return order


@pytest.mark.parametrize(("num_rows", "count"), [(40, 40), (300, 60), (1500, 500)])
@pytest.mark.parametrize("start", ["random", "mean"])
def test_takes_the_rows_of_the_plain_greedy_loop(num_rows: int, count: int, start: str) -> None:
    points = clustered(num_rows)
    found = KCenter(count, start=start).fit(points)  # type: ignore[arg-type]
    expected = plain_greedy(points, int(found.selected_[0]), count)
    assert found.selected_.tolist() == expected
    distances = cdist(points.astype(np.float64), points[expected].astype(np.float64)).min(axis=1)
    np.testing.assert_allclose(found.distances_, distances, rtol=1e-5, atol=1e-5)
    assert found.report_.radius == pytest.approx(distances.max(), rel=1e-5)
    assert found.report_.mean_distance == pytest.approx(distances.mean(), rel=1e-5)


def test_real_embeddings_give_the_plain_greedy_order(data_folder: Path) -> None:
    path = data_folder / "ref" / "minilm_embeddings.npz"
    if not path.is_file():
        pytest.skip(f"no reference embeddings in {path}")
    points = np.load(path)["embedding"]
    found = KCenter(0.3).fit(points)
    assert found.selected_.tolist() == plain_greedy(points, int(found.selected_[0]), 96)


def test_starts_at_the_row_nearest_to_the_mean_or_by_the_seed() -> None:
    points = clustered(200)
    nearest = int(np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=1)))
    assert KCenter(5, start="mean", seed=1).fit(points).selected_[0] == nearest
    starts = {int(KCenter(5, seed=seed).fit(points).selected_[0]) for seed in range(40)}
    assert len(starts) > 20  # 40 draws of 200 hit 36 different rows in the mean


def test_radius_is_within_twice_the_best_possible() -> None:
    """Tight balls of radius below 0.1 and as many centers: the best radius is at most 0.1."""
    rng = np.random.default_rng(3)
    balls = rng.normal(size=(15, 8)) * 10
    offsets = rng.normal(size=(600, 8))
    offsets *= 0.1 * rng.uniform(size=(600, 1)) / np.linalg.norm(offsets, axis=1, keepdims=True)
    points = (balls[np.arange(600) % 15] + offsets).astype(np.float32)
    found = KCenter(15).fit(points)
    assert found.report_.radius <= 0.2
    assert sorted(found.selected_ % 15) == list(range(15))


def test_equal_rows_are_taken_last_and_in_the_order_of_places() -> None:
    points = np.repeat(clustered(30), 100, axis=0)  # more equal rows than a pool holds
    ids = [f"row {number}" for number in range(len(points))]
    found = KCenter(700).fit(points, ids=ids)
    assert len(set((found.selected_[:30] // 100).tolist())) == 30
    assert len(set(found.selected_.tolist())) == 700
    assert found.report_.radius == 0.0


def test_a_token_budget_takes_the_farthest_row_that_fits() -> None:
    points = clustered(120)
    tokens = np.random.default_rng(5).integers(10, 200, size=120)
    found = KCenter(TokenBudget(1500), start="mean").fit(points, num_tokens=tokens)
    matrix, left, expected = points.astype(np.float64), 1500, []
    nearest = np.linalg.norm(matrix - matrix.mean(axis=0), axis=1) * -1  # the start: nearest
    while (open_ := (tokens <= left) & ~np.isin(np.arange(120), expected)).any():
        expected.append(int(np.argmax(np.where(open_, nearest, -np.inf))))
        left -= tokens[expected[-1]]
        nearest = cdist(matrix, matrix[expected]).min(axis=1)
    assert found.selected_.tolist() == expected
    assert found.report_.tokens_kept == tokens[expected].sum() == 1500 - left


def test_reasons_name_place_and_distance() -> None:
    points = clustered(50)
    found = KCenter(4, start="mean").fit(points)
    first, second = found.selected_[:2]
    gap = float(np.linalg.norm(points[first] - points[second]))
    assert found.reasons_[first] == "kept: place 1 of 4, the mean start"
    assert found.reasons_[second] == f"kept: place 2 of 4, {gap:.4g} from the rows kept before"
    dropped = int(np.flatnonzero(found.ranks_ < 0)[0])
    assert found.reasons_[dropped].startswith(
        f"dropped: {found.distances_[dropped]:.4g} from the nearest kept row"
    )


def test_refuses_an_unknown_start() -> None:
    with pytest.raises(InputError, match="start must be random or mean, got 'first'"):
        KCenter(2, start="first").fit(clustered(5))  # type: ignore[arg-type]
