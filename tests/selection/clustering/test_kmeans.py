"""K-means: a fixed point as good as scikit-learn's, whatever the order of the rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from codeact.errors import InputError
from codeact.selection import cluster_kmeans
from codeact.selection.clustering import Clusters

SCALED = ("full", "mini-batch")


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 1, 16))
    return (centres + 0.1 * rng.normal(size=(4, 200, 16))).reshape(-1, 16).astype(np.float32)


@pytest.fixture(scope="module")
def spread() -> np.ndarray:
    """30 clusters that touch, in columns of falling variance, far from the origin; 6000 rows."""
    rng = np.random.default_rng(1)
    scales = 1 / np.sqrt(1 + np.arange(48))
    centres = rng.normal(size=(30, 48)) * scales
    rows = centres[rng.integers(0, 30, 6000)] + 0.7 * rng.normal(size=(6000, 48)) * scales
    return (rows + 3).astype(np.float32)


def test_scikit_learn_is_scikit_learns_kmeans(points: np.ndarray) -> None:
    with threadpool_limits(limits=1):
        expected = KMeans(n_clusters=10, random_state=42).fit(points)
    clusters = cluster_kmeans(points, algorithm="scikit-learn")
    assert (clusters.cluster_labels == expected.labels_).all()
    assert (clusters.centroids == expected.cluster_centers_).all()
    assert clusters.inertia == expected.inertia_
    assert clusters.cluster_labels.dtype == np.int32
    assert clusters.num_clusters == 10


@pytest.mark.parametrize("algorithm", SCALED)
def test_finds_clusters_that_are_there(points: np.ndarray, algorithm: str) -> None:
    clusters = cluster_kmeans(points, num_clusters=4, algorithm=algorithm)
    truth = np.repeat(np.arange(4), 200)
    assert adjusted_rand_score(truth, clusters.cluster_labels) == 1
    means = points.astype(np.float64).reshape(4, 200, 16).mean(1)
    found = clusters.centroids[clusters.cluster_labels[::200]]
    np.testing.assert_allclose(found, means, atol=1e-6 if algorithm == "full" else 0.01)


@pytest.mark.parametrize("num_clusters", [2, 10, 33, 150])
def test_full_is_as_good_as_scikit_learn(spread: np.ndarray, num_clusters: int) -> None:
    theirs, ours = [], []
    for seed in range(3):  # one start differs from another by up to 4 % here
        theirs.append(KMeans(num_clusters, n_init=1, random_state=seed).fit(spread).inertia_)
        ours.append(cluster_kmeans(spread, num_clusters=num_clusters, seed=seed).inertia)
    assert np.mean(ours) <= 1.005 * np.mean(theirs)


@pytest.mark.parametrize("num_clusters", [7, 64, 65])
def test_full_is_a_fixed_point(spread: np.ndarray, num_clusters: int) -> None:
    clusters = cluster_kmeans(spread, num_clusters=num_clusters)
    squared = cdist(spread.astype(np.float64), clusters.centroids.astype(np.float64), "sqeuclidean")
    own = squared[np.arange(len(spread)), clusters.cluster_labels]
    scale = float(((spread - spread.mean(0)) ** 2).sum(1).mean())
    assert (own <= squared.min(1) + 4e-6 * scale).all()
    means = Clusters.from_labels(spread, clusters.cluster_labels).centroids
    moved = float(((means.astype(np.float64) - clusters.centroids) ** 2).sum())
    assert moved <= 2e-4 * spread.var(axis=0, dtype=np.float64).mean()


def test_mini_batches_come_near(spread: np.ndarray) -> None:
    full = cluster_kmeans(spread, num_clusters=30).inertia
    batches = cluster_kmeans(spread, num_clusters=30, algorithm="mini-batch")
    assert full <= batches.inertia <= 1.02 * full


@pytest.mark.parametrize("algorithm", [*SCALED, "scikit-learn"])
def test_distances_are_to_the_own_centroid(points: np.ndarray, algorithm: str) -> None:
    clusters = cluster_kmeans(points, num_clusters=6, algorithm=algorithm)
    gaps = points.astype(np.float64) - clusters.centroids[clusters.cluster_labels]
    np.testing.assert_allclose(clusters.distances, np.sqrt((gaps**2).sum(1)), rtol=1e-5)
    np.testing.assert_allclose((gaps**2).sum(), clusters.inertia, rtol=1e-5)


@pytest.mark.parametrize("named", [True, False], ids=["ids", "content"])
@pytest.mark.parametrize("algorithm", SCALED)
def test_the_order_of_rows_does_not_matter(spread: np.ndarray, algorithm: str, named: bool) -> None:
    rows = spread[:1500]
    ids = [f"row {i}" for i in range(len(rows))]
    shuffled = np.random.default_rng(5).permutation(len(rows))
    first = cluster_kmeans(rows, num_clusters=20, algorithm=algorithm, ids=ids if named else None)
    again = cluster_kmeans(
        rows[shuffled],
        num_clusters=20,
        algorithm=algorithm,
        ids=[ids[i] for i in shuffled] if named else None,
    )
    assert (again.cluster_labels == first.cluster_labels[shuffled]).all()
    assert (again.centroids == first.centroids).all()
    assert again.inertia == first.inertia


@pytest.mark.parametrize("algorithm", [*SCALED, "scikit-learn"])
def test_threads_do_not_matter(spread: np.ndarray, algorithm: str) -> None:
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            with threadpool_limits(limits=threads):
                results.append(cluster_kmeans(spread, num_clusters=24, algorithm=algorithm))
    finally:
        torch.set_num_threads(before)
    assert (results[0].centroids == results[1].centroids).all()
    assert (results[0].cluster_labels == results[1].cluster_labels).all()


@pytest.mark.parametrize("algorithm", SCALED)
def test_the_seed_decides(spread: np.ndarray, algorithm: str) -> None:
    first, again, other = (
        cluster_kmeans(spread[:2000], num_clusters=40, seed=seed, algorithm=algorithm).centroids
        for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_float64_and_float32_agree(points: np.ndarray) -> None:
    labels = cluster_kmeans(points.astype(np.float64)).cluster_labels
    assert (labels == cluster_kmeans(points).cluster_labels).all()


@pytest.mark.parametrize("algorithm", [*SCALED, "scikit-learn"])
@pytest.mark.parametrize("num_rows", [1, 3, 40])
def test_as_many_clusters_as_examples(algorithm: str, num_rows: int) -> None:
    clusters = cluster_kmeans(np.eye(num_rows), num_clusters=num_rows, algorithm=algorithm)
    assert sorted(clusters.cluster_labels.tolist()) == list(range(num_rows))
    assert clusters.inertia == 0


def test_fewer_values_than_clusters_leave_clusters_empty() -> None:
    values = np.repeat(np.eye(3, dtype=np.float32), [5, 1, 9], axis=0)
    clusters = cluster_kmeans(values, num_clusters=5)
    assert clusters.num_clusters == 5
    assert clusters.inertia == 0
    assert len(set(clusters.cluster_labels.tolist())) == 3
    assert np.isfinite(clusters.centroids).all()


def test_an_offset_far_from_the_origin_costs_no_accuracy(points: np.ndarray) -> None:
    near, far = (
        cluster_kmeans(points + shift, num_clusters=4, ids=list(map(str, range(len(points)))))
        for shift in (0, 1000)
    )
    assert (near.cluster_labels == far.cluster_labels).all()
    np.testing.assert_allclose(far.inertia, near.inertia, rtol=1e-3)  # 1000 + x rounds by 3e-5


@pytest.mark.parametrize("choice", ["elbow", "silhouette"])
def test_chooses_the_number_of_clusters(points: np.ndarray, choice: str) -> None:
    assert cluster_kmeans(points, num_clusters=choice).num_clusters == 4


@pytest.mark.parametrize(
    ("embeddings", "options", "message"),
    [
        (np.zeros(4), {}, r"embeddings must be \(num_examples, dim\), got shape \(4,\)"),
        (np.zeros((4, 0)), {}, r"got shape \(4, 0\)"),
        (np.array([[0.0], [np.nan], [np.inf]]), {}, "in 2 of 3 rows, first in row 1"),
        (np.array([[1e300], [0.0]]), {}, "must be finite in float32"),
        (np.array([["a"], ["b"]]), {}, "must be numbers"),
        (1e25 * np.eye(4), {}, "so that float32 holds the squares, the farthest is at inf"),
        (1e-30 * np.eye(4), {"algorithm": "mini-batch"}, "between 1e-12 and 1e18 from their mean"),
        (np.zeros((4, 2)), {"num_clusters": 5}, "num_clusters = 5 needs at least as many"),
        (np.zeros((4, 2)), {"num_clusters": 0}, "num_clusters must be at least 1, got 0"),
        (np.zeros((4, 2)), {"num_clusters": 2.0}, "must be a whole number, got 2.0"),
        (np.zeros((4, 2)), {"num_clusters": "knee"}, "elbow or silhouette, got 'knee'"),
        (np.zeros((4, 2)), {"algorithm": "fast"}, "algorithm must be one of full, mini-batch"),
        (np.zeros((4, 2)), {"num_clusters": 2, "device": "moon"}, "device must be auto, cpu"),
        (np.zeros((4, 2)), {"num_clusters": 2, "ids": ["a"] * 4}, "ids must be unique"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_refuses(embeddings: NDArray, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cluster_kmeans(embeddings, **{"num_clusters": 2, **options})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="device is 'cuda', but PyTorch finds no usable GPU"):
        cluster_kmeans(np.eye(4), num_clusters=2, device="cuda")
