"""Agglomerative clusters against scikit-learn and scipy, on whole matrices of distances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.hierarchy import linkage as scipy_linkage
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from codeact.errors import InputError
from codeact.selection.clustering import cluster_agglomerative

pytest.importorskip("fastcluster")


def embeddings(num_rows=300, dim=12, seed=0):
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(8, dim))
    return (centres[rng.integers(0, 8, num_rows)] + rng.normal(size=(num_rows, dim))).astype(
        np.float32
    )


@pytest.mark.parametrize("num_clusters", [1, 2, 10, 77, 300])
@pytest.mark.parametrize("linkage", ["ward", "single"])
def test_has_the_clusters_of_scikit_learn(linkage, num_clusters):
    points = embeddings()
    ours = cluster_agglomerative(points, num_clusters=num_clusters, linkage=linkage)
    theirs = AgglomerativeClustering(n_clusters=num_clusters, linkage=linkage)
    assert ours.num_clusters == num_clusters
    labels = theirs.fit_predict(points.astype(np.float64))
    assert adjusted_rand_score(ours.cluster_labels, labels) == 1


def test_ward_on_real_embeddings(data_folder):
    path = data_folder / "ref" / "minilm_embeddings.npz"
    if not path.is_file():
        pytest.skip(f"no reference embeddings in {path}")
    points = np.load(path)["embedding"].astype(np.float32)
    ours = cluster_agglomerative(points, num_clusters=10).cluster_labels
    theirs = AgglomerativeClustering(n_clusters=10).fit_predict(points.astype(np.float64))
    assert adjusted_rand_score(ours, theirs) == 1


def merged(tree, num_clusters):
    """Members of the clusters that are left; scipy's cut_tree wants heights that rise."""
    num_points = len(tree) + 1
    members = {point: [point] for point in range(num_points)}
    for step in range(num_points - num_clusters):
        left, right = (int(node) for node in tree[step, :2])
        members[num_points + step] = members.pop(left) + members.pop(right)
    return members.values()


@pytest.mark.parametrize("num_clusters", [2, 10, 77])
@pytest.mark.parametrize("linkage", ["centroid", "median"])
def test_has_the_clusters_of_scipy_where_heights_fall(linkage, num_clusters):
    points = embeddings(seed=1)
    tree = scipy_linkage(points.astype(np.float64), method=linkage)
    assert (np.diff(tree[:, 2]) < 0).any()
    ours = cluster_agglomerative(points, num_clusters=num_clusters, linkage=linkage)
    theirs = np.zeros(len(points), dtype=int)
    for label, members in enumerate(merged(tree, num_clusters)):
        theirs[members] = label
    assert ours.num_clusters == num_clusters
    assert adjusted_rand_score(ours.cluster_labels, theirs) == 1


@pytest.mark.parametrize("linkage", ["ward", "single", "centroid", "median"])
def test_the_order_of_the_rows_does_not_matter(linkage):
    points = np.round(embeddings(), 1)  # with ties
    points[7:30] = points[6]
    shuffle = np.random.default_rng(0).permutation(len(points))
    labels = cluster_agglomerative(points, linkage=linkage).cluster_labels
    shuffled = cluster_agglomerative(points[shuffle], linkage=linkage).cluster_labels
    np.testing.assert_array_equal(shuffled, labels[shuffle])
    assert (np.diff(np.bincount(labels)) <= 0).all()


def test_equal_rows_still_make_the_number_asked_for():
    clusters = cluster_agglomerative(np.ones((20, 3)), num_clusters=6)
    assert len(set(clusters.cluster_labels.tolist())) == 6
    assert clusters.inertia == 0


def test_centroids_are_means():
    points = embeddings(seed=2)
    clusters = cluster_agglomerative(points, num_clusters=5)
    for label in range(5):
        inside = points[clusters.cluster_labels == label].astype(np.float64)
        np.testing.assert_allclose(clusters.centroids[label], inside.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_clusters": 0}, "num_clusters must be from 1 to the number of examples, 20, got 0"),
        ({"num_clusters": 21}, "got 21"),
        ({"num_clusters": "elbow"}, "num_clusters must be a whole number, got 'elbow'"),
        ({"linkage": "average"}, "linkage must be one of ward, single, centroid, median"),
    ],
)
def test_refuses(options, text):
    with pytest.raises(InputError, match=text):
        cluster_agglomerative(np.ones((20, 3)), **options)
