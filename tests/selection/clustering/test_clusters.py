"""A clustering from labels."""

from __future__ import annotations

import numpy as np
import pytest

from codeact.errors import InputError
from codeact.selection.clustering import Clusters, check_embeddings


def test_from_labels_takes_means_and_leaves_noise_out() -> None:
    points = np.random.default_rng(0).normal(size=(20_000, 5)).astype(np.float32)
    labels = np.random.default_rng(1).integers(-1, 4, 20_000)
    clusters = Clusters.from_labels(points, labels)
    assert clusters.cluster_labels.dtype == np.int32
    assert (clusters.cluster_labels == labels).all()
    inertia = 0.0
    for label in range(4):
        members = points[labels == label].astype(np.float64)
        np.testing.assert_allclose(clusters.centroids[label], members.mean(0), rtol=1e-5, atol=1e-7)
        gaps = ((members - members.mean(0)) ** 2).sum(1)
        np.testing.assert_allclose(clusters.distances[labels == label], np.sqrt(gaps), rtol=1e-5)
        inertia += gaps.sum()
    assert np.isnan(clusters.distances[labels == -1]).all()
    np.testing.assert_allclose(clusters.inertia, inertia, rtol=1e-6)


def test_from_labels_of_nothing_but_noise_has_no_cluster() -> None:
    clusters = Clusters.from_labels(np.ones((3, 2)), [-1, -1, -1])
    assert clusters.num_clusters == 0
    assert np.isnan(clusters.distances).all()
    assert clusters.inertia == 0


def test_a_label_nobody_has_leaves_an_empty_cluster() -> None:
    clusters = Clusters.from_labels(np.eye(2), [0, 2])
    assert clusters.num_clusters == 3
    assert np.isnan(clusters.centroids[1]).all()
    assert clusters.distances.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "one for each example"),
        ([0, -2, 1], "-1 \\(noise\\) or more, got -2"),
        ([0, 2**32, 1], "clusters must be at most 2147483647, got 4294967296"),
    ],
)
def test_from_labels_refuses(labels: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Clusters.from_labels(np.eye(3), labels)


def test_rows_that_are_not_finite_are_counted_over_all_blocks() -> None:
    points = np.ones((70_000, 2), dtype=np.float32)
    points[[5, 69_999], 1] = np.inf, np.nan
    with pytest.raises(InputError, match="in 2 of 70000 rows, first in row 5"):
        check_embeddings(points)
