"""How many clusters."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from codeact.errors import InputError
from codeact.selection.clustering import choose_num_clusters


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    """12 clusters well apart."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, 32))
    return (centres[rng.integers(0, 12, 900)] + 0.25 * rng.normal(size=(900, 32))).astype("f4")


@pytest.mark.parametrize("method", ["elbow", "silhouette"])
def test_finds_the_number_that_is_there(points: np.ndarray, method: str) -> None:
    chosen = choose_num_clusters(points, method=method)
    assert chosen.num_clusters == 12
    assert chosen.num_sampled == 900
    assert (np.diff(chosen.candidates) > 0).all()
    assert chosen.candidates[0] == 2
    assert chosen.candidates[-1] == 64


def test_elbow_is_the_point_farthest_from_the_chord(points: np.ndarray) -> None:
    ks = [2, 5, 12, 16, 30]
    chosen = choose_num_clusters(points, candidates=ks)
    theirs = KMeans(12, n_init=4, random_state=0).fit(points).inertia_
    np.testing.assert_allclose(chosen.scores[2], theirs, rtol=1e-3)
    assert (np.diff(chosen.scores) < 0).all()
    # Perpendicular distance to the line through the ends, axes scaled to [0, 1].
    x = (np.array(ks) - 2) / 28
    y = (chosen.scores - chosen.scores[-1]) / (chosen.scores[0] - chosen.scores[-1])
    distance = np.abs((x[-1] - x[0]) * (y[0] - y) - (x[0] - x) * (y[-1] - y[0]))
    assert chosen.num_clusters == ks[int(distance.argmax())]


def test_silhouettes_are_scikit_learns(points: np.ndarray) -> None:
    chosen = choose_num_clusters(points, method="silhouette", candidates=[12, 4])
    assert chosen.candidates.tolist() == [4, 12]
    labels = KMeans(12, n_init=4, random_state=0).fit(points).labels_
    np.testing.assert_allclose(chosen.scores[1], silhouette_score(points, labels), rtol=1e-4)
    assert chosen.num_clusters == 12


@pytest.mark.parametrize("method", ["elbow", "silhouette"])
def test_the_order_of_rows_does_not_matter(points: np.ndarray, method: str) -> None:
    shuffled = np.random.default_rng(1).permutation(len(points))
    first = choose_num_clusters(points, method=method)
    again = choose_num_clusters(points[shuffled], method=method)
    assert (first.scores == again.scores).all()
    assert first.num_clusters == again.num_clusters


def test_equal_rows_are_one_elbow_at_the_start() -> None:
    assert choose_num_clusters(np.ones((100, 3))).num_clusters == 2


@pytest.mark.parametrize(
    ("num_rows", "options", "message"),
    [
        (900, {"method": "knee"}, "must be a number, elbow or silhouette, got 'knee'"),
        (31, {}, "needs at least 32 examples, got 31"),
        (900, {"candidates": [2, 3]}, "at least 3 distinct numbers from 2 to 899"),
        (900, {"candidates": [1, 2, 3]}, r"got \[1, 2, 3\]"),
        (900, {"candidates": [2, 3, 900]}, r"got \[2, 3, 900\]"),
        (900, {"candidates": [2.5, 3, 4]}, "distinct numbers"),
    ],
)
def test_refuses(points: np.ndarray, num_rows: int, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_num_clusters(points[:num_rows], **options)
