"""HDBSCAN against the hdbscan package, both algorithms, in whatever order the rows come."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from codeact.errors import InputError
from codeact.selection.clustering import cluster_hdbscan
from codeact.selection.rows import Rows

hdbscan = pytest.importorskip("hdbscan")
ALGORITHMS = ["hdbscan", "boruvka"]


def embeddings(num_rows, dim, seed=0):
    """Clusters of several densities in 12 directions of ``dim``, a third of the rows scattered."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(dim, 12)))[0].T
    num_centres = num_rows // 40
    own = rng.integers(0, num_centres, num_rows)
    spread = np.linspace(0.1, 1.2, num_centres)[own][:, None]
    inner = 2 * rng.normal(size=(num_centres, 12))[own] + spread * rng.normal(size=(num_rows, 12))
    inner[::3] = 2 * rng.normal(size=inner[::3].shape)
    return (inner @ directions + 0.02 * rng.normal(size=(num_rows, dim))).astype(np.float32)


def package(points, **options):
    """The package's labels for the rows in the order that selection takes them in."""
    rows = Rows(len(points), None, points)
    clusterer = hdbscan.HDBSCAN(approx_min_span_tree=False, core_dist_n_jobs=1, **options)
    return clusterer.fit_predict(points[rows.order].astype(np.float64))[rows.place]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("sizes", [(5, 5), (15, None), (8, 2)], ids=str)
def test_has_the_clusters_of_the_package(algorithm, sizes):
    points = embeddings(1200, dim=80)
    options = {"min_cluster_size": sizes[0], "min_samples": sizes[1]}
    ours = cluster_hdbscan(points, algorithm=algorithm, **options)
    theirs = package(points, **options)
    assert ours.num_clusters == theirs.max() + 1 > 5
    assert np.array_equal(ours.cluster_labels < 0, theirs < 0)
    assert 0.1 < (theirs < 0).mean() < 0.9
    # Up to the last bit of a distance the two make the same tree.
    assert adjusted_rand_score(ours.cluster_labels, theirs) == 1


def test_boruvka_agrees_in_few_dimensions_where_the_package_breaks_ties_otherwise():
    points = embeddings(2500, dim=16, seed=1)
    ours = cluster_hdbscan(points, algorithm="boruvka").cluster_labels
    prims = package(points, min_cluster_size=5, min_samples=5, algorithm="prims_kdtree")
    assert adjusted_rand_score(ours, prims) >= 0.999


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_order_of_the_rows_does_not_matter(algorithm):
    points = embeddings(600, dim=64, seed=2)
    shuffle = np.random.default_rng(0).permutation(len(points))
    labels = cluster_hdbscan(points, algorithm=algorithm).cluster_labels
    shuffled = cluster_hdbscan(points[shuffle], algorithm=algorithm).cluster_labels
    np.testing.assert_array_equal(shuffled, labels[shuffle])
    ids = [f"row {i}" for i in range(len(points))]
    named = cluster_hdbscan(points, algorithm=algorithm, ids=ids).cluster_labels
    shuffled = cluster_hdbscan(
        points[shuffle], algorithm=algorithm, ids=[ids[i] for i in shuffle]
    ).cluster_labels
    np.testing.assert_array_equal(shuffled, named[shuffle])


def test_clusters_are_numbered_by_size_and_hold_their_means():
    points = embeddings(900, dim=32, seed=3)
    clusters = cluster_hdbscan(points, algorithm="boruvka")
    labels = clusters.cluster_labels
    sizes = np.bincount(labels[labels >= 0])
    assert (np.diff(sizes) <= 0).all()
    assert sizes[0] > sizes[-1] >= 5
    for label in range(clusters.num_clusters):
        mean = points[labels == label].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(clusters.centroids[label], mean, atol=1e-6)
    own = np.linalg.norm(points - clusters.centroids[labels], axis=1)
    np.testing.assert_allclose(clusters.distances[labels >= 0], own[labels >= 0], rtol=1e-4)
    assert np.isnan(clusters.distances[labels < 0]).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_noise_as_singletons(algorithm):
    points = embeddings(600, dim=32, seed=4)
    dropped = cluster_hdbscan(points, algorithm=algorithm)
    alone = cluster_hdbscan(points, algorithm=algorithm, noise="singletons")
    noise = dropped.cluster_labels < 0
    np.testing.assert_array_equal(alone.cluster_labels[~noise], dropped.cluster_labels[~noise])
    expected = dropped.num_clusters + np.arange(noise.sum())
    assert sorted(alone.cluster_labels[noise]) == expected.tolist()
    assert not alone.distances[noise].any()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("num_rows", [1, 2, 4, 6])
def test_few_rows_are_all_noise(algorithm, num_rows):
    points = np.random.default_rng(0).normal(size=(num_rows, 70)).astype(np.float32)
    clusters = cluster_hdbscan(points, algorithm=algorithm)
    assert clusters.cluster_labels.tolist() == [-1] * num_rows
    assert clusters.num_clusters == 0
    assert clusters.inertia == 0


def test_a_read_only_matrix_is_taken():
    points = embeddings(200, dim=70)
    expected = cluster_hdbscan(points, algorithm="boruvka").cluster_labels
    points.flags.writeable = False
    labels = cluster_hdbscan(points, algorithm="boruvka").cluster_labels
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"min_cluster_size": 1}, "min_cluster_size must be a whole number of at least 2, got 1"),
        ({"min_samples": 0}, "min_samples must be a whole number of at least 1, got 0"),
        ({"min_samples": 2.5}, "min_samples must be a whole number"),
        ({"noise": "keep"}, "noise must be one of drop, singletons, got 'keep'"),
        ({"algorithm": "best"}, "algorithm must be one of hdbscan, boruvka, got 'best'"),
    ],
)
def test_refuses(options, text):
    with pytest.raises(InputError, match=text):
        cluster_hdbscan(np.ones((20, 3)), **options)


def test_numbers_whose_squares_float32_does_not_hold():
    points = np.random.default_rng(0).normal(size=(30, 3))
    points[0] *= -1e20
    with pytest.raises(InputError, match=r"embeddings must be within 1e\+16 of 0"):
        cluster_hdbscan(points, algorithm="boruvka")
