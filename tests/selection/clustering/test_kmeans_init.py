"""Where k-means starts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from codeact.ops.kmeans import KMeansRows, KMeansStep
from codeact.selection.clustering.kmeans_init import grouped_order, plus_plus
from codeact.selection.clustering.kmeans_samples import start_centroids
from codeact.selection.clustering.lloyd import lloyd


def arranged(points: np.ndarray) -> KMeansRows:
    return KMeansRows.arrange(points.astype(np.float32), np.arange(len(points)))


def plain_plus_plus(points: np.ndarray, num_clusters: int, seed: int) -> np.ndarray:
    """Greedy k-means++ in float64 with all distances; the same draws."""
    draws = np.random.default_rng(seed)
    squared = cdist(points, points, "sqeuclidean")
    chosen = [int(draws.integers(len(points), size=1)[0])]
    while len(chosen) < num_clusters:
        nearest = squared[chosen].min(0)
        running = nearest.cumsum()
        drawn = draws.random(2 + int(np.log(num_clusters))) * running[-1]
        trials = np.searchsorted(running, drawn, side="right")
        left = [np.minimum(nearest, squared[trial]).sum() for trial in trials]
        chosen.append(int(trials[int(np.argmin(left))]))
    return np.array(chosen)


@pytest.mark.parametrize("num_clusters", [1, 2, 12, 60])
def test_is_greedy_plus_plus(num_clusters: int) -> None:
    rows = arranged(np.random.default_rng(0).normal(size=(400, 9)))
    expected = rows.points[plain_plus_plus(rows.points.astype(float), num_clusters, 3)]
    assert (plus_plus(rows, num_clusters, 3) == expected).all()


def test_plus_plus_takes_no_value_twice() -> None:
    values = np.repeat(np.random.default_rng(1).normal(size=(20, 6)), 30, axis=0)
    chosen = plus_plus(arranged(values), 20, 0)
    assert len(np.unique(chosen, axis=0)) == 20


@pytest.mark.parametrize("num_clusters", [1, 16, 17, 100, 128])
def test_grouping_permutes(num_clusters: int) -> None:
    centroids = np.random.default_rng(2).normal(size=(num_clusters, 5)).astype(np.float32)
    assert sorted(grouped_order(centroids).tolist()) == list(range(num_clusters))


def test_grouping_puts_near_centroids_together() -> None:
    rng = np.random.default_rng(3)
    corners = rng.normal(size=(8, 12)) / np.sqrt(1 + np.arange(12))
    centroids = np.repeat(corners, 16, axis=0) + 0.1 * rng.normal(size=(128, 12))
    mixed = centroids[rng.permutation(128)].astype(np.float32)

    def spread_of_panels(order: np.ndarray) -> float:
        return float(mixed[order].reshape(8, 16, 12).var(axis=1).sum())

    as_they_come = spread_of_panels(np.arange(128))
    assert spread_of_panels(grouped_order(mixed)) < 0.35 * as_they_come


def test_samples_grow_and_the_last_start_is_near_the_end() -> None:
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(12, 6))
    rows = arranged(centres[rng.integers(0, 12, 70_000)] + 0.2 * rng.normal(size=(70_000, 6)))
    started = KMeansStep(rows, 12)
    started.assign(start_centroids(rows, 12, 0))
    ended = KMeansStep(rows, 12)
    lloyd(ended, started.centroids, 0.0)
    assert ended.inertia() <= started.inertia() <= 1.001 * ended.inertia()


def test_empty_clusters_take_the_farthest_rows() -> None:
    values = np.array([[0.0], [0.1], [0.2], [7.0], [9.0]])
    rows = arranged(values)
    far = np.array([[0.1], [500], [600]], dtype=np.float32) - rows.centre
    step = KMeansStep(rows, 3)
    centroids = lloyd(step, far, 0.0) + rows.centre
    assert (step.counts > 0).all()
    np.testing.assert_allclose(np.sort(centroids[:, 0]), [0.1, 7, 9], atol=1e-6)


def test_iterations_are_limited_and_labels_fit_the_centroids_returned() -> None:
    rows = arranged(np.random.default_rng(5).normal(size=(3000, 4)))
    step = KMeansStep(rows, 25)
    centroids = lloyd(step, rows.points[:25].copy(), 0.0, max_iterations=3)
    plain = rows.points[:25].astype(float)
    for _ in range(3):
        labels = cdist(rows.points.astype(float), plain, "sqeuclidean").argmin(1)
        plain = np.array([rows.points[labels == c].mean(0, dtype=float) for c in range(25)])
    np.testing.assert_allclose(centroids, plain, atol=1e-5)
    labels = cdist(rows.points.astype(float), centroids.astype(float), "sqeuclidean").argmin(1)
    assert (labels == step.labels).mean() > 0.999
