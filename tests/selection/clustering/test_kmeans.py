"""K-means: scikit-learn's result, the same each time."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from codeact.errors import InputError
from codeact.selection import cluster_kmeans


@pytest.fixture
def points() -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 1, 16))
    return (centres + 0.1 * rng.normal(size=(4, 200, 16))).reshape(-1, 16).astype(np.float32)


def test_is_scikit_learns_kmeans(points: np.ndarray) -> None:
    with threadpool_limits(limits=1):
        expected = KMeans(n_clusters=10, random_state=42).fit(points)
    clusters = cluster_kmeans(points)
    assert (clusters.cluster_labels == expected.labels_).all()
    assert (clusters.centroids == expected.cluster_centers_).all()
    assert clusters.inertia == expected.inertia_
    assert clusters.cluster_labels.dtype == np.int32
    assert clusters.num_clusters == 10


def test_distances_are_to_the_own_centroid(points: np.ndarray) -> None:
    clusters = cluster_kmeans(points, num_clusters=4)
    gaps = points.astype(np.float64) - clusters.centroids[clusters.cluster_labels]
    np.testing.assert_allclose(clusters.distances, np.sqrt((gaps**2).sum(1)), rtol=1e-5)
    np.testing.assert_allclose((clusters.distances**2).sum(), clusters.inertia, rtol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_outside_do_not_matter(points: np.ndarray, threads: int) -> None:
    expected = cluster_kmeans(points)
    with threadpool_limits(limits=threads):
        again = cluster_kmeans(points)
    assert (again.centroids == expected.centroids).all()


def test_float64_and_float32_agree(points: np.ndarray) -> None:
    labels = cluster_kmeans(points.astype(np.float64)).cluster_labels
    assert (labels == cluster_kmeans(points).cluster_labels).all()


def test_as_many_clusters_as_examples() -> None:
    clusters = cluster_kmeans(np.eye(3), num_clusters=3)
    assert sorted(clusters.cluster_labels.tolist()) == [0, 1, 2]
    assert clusters.inertia == 0


@pytest.mark.parametrize(
    ("embeddings", "num_clusters", "message"),
    [
        (np.zeros(4), 2, r"embeddings must be \(num_examples, dim\), got shape \(4,\)"),
        (np.zeros((4, 0)), 2, r"got shape \(4, 0\)"),
        (np.array([[0.0], [np.nan], [np.inf]]), 2, "in 2 of 3 rows, first in row 1"),
        (np.array([[1e300], [0.0]]), 2, "must be finite in float32"),
        (np.array([["a"], ["b"]]), 2, "must be numbers"),
        (np.zeros((4, 2)), 5, "num_clusters = 5 needs at least as many examples, got 4"),
        (np.zeros((4, 2)), 0, "num_clusters must be at least 1, got 0"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_refuses(embeddings: np.ndarray, num_clusters: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cluster_kmeans(embeddings, num_clusters=num_clusters)
