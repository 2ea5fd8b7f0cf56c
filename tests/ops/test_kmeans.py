"""The steps of k-means against plain float64, and against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from codeact import _C
from codeact.ops.kmeans import KMeansRows, KMeansStep, candidate_distances, own_distances
from codeact.ops.kmeans_torch import TorchKMeansStep


def make_rows(num_rows: int, dim: int, seed: int = 0) -> KMeansRows:
    rng = np.random.default_rng(seed)
    points = (rng.normal(size=(num_rows, dim)) + 2).astype(np.float32)
    return KMeansRows.arrange(points, rng.permutation(num_rows))


def test_arranging_moves_rows_and_subtracts_the_mean() -> None:
    points = np.random.default_rng(0).normal(5, 1, size=(6000, 7)).astype(np.float32)
    order = np.random.default_rng(1).permutation(6000)[:5000]
    rows = KMeansRows.arrange(points, order)
    centre = points[order[:4096]].astype(np.float64).mean(0)
    np.testing.assert_allclose(rows.centre, centre, rtol=1e-6)
    assert (rows.points == points[order] - rows.centre).all()
    np.testing.assert_allclose(rows.squares, (rows.points.astype(float) ** 2).sum(1), rtol=1e-6)
    np.testing.assert_allclose(
        rows.variance(), points[order].astype(float).var(0).mean(), rtol=1e-6
    )


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_sums_are_exact_in_any_order(scale: float) -> None:
    rng = np.random.default_rng(2)
    points = (scale * rng.standard_cauchy(size=(5000, 3))).astype(np.float32)
    rows = KMeansRows.arrange(points, np.arange(5000))
    rounded = rows.rounded(np.arange(5000))
    forth = rounded.cumsum(axis=0)[-1]
    back = rounded[::-1].cumsum(axis=0)[-1]
    assert (forth == back).all()
    largest = np.abs(rows.points).max()
    assert np.abs(rounded - rows.points).max() <= 2.0**-52 * 5000 * 4 * largest


@pytest.mark.parametrize("kind", [KMeansStep, TorchKMeansStep])
@pytest.mark.parametrize(
    ("num_rows", "dim", "num_clusters"),
    [
        (1, 1, 1), (97, 3, 2), (200, 1, 16), (500, 8, 17), (96, 33, 40), (1000, 37, 5),
        (2000, 64, 100),
    ],
)  # fmt: skip
def test_iterations_are_those_of_plain_lloyd(
    kind: type, num_rows: int, dim: int, num_clusters: int
) -> None:
    rows = make_rows(num_rows, dim)
    step = kind(rows, num_clusters) if kind is KMeansStep else kind(rows, num_clusters, "cpu")
    centroids = rows.points[:num_clusters].copy()
    before = np.full(num_rows, -1)
    for _ in range(12):
        num_moved = step.assign(centroids)
        squared = cdist(rows.points.astype(float), centroids.astype(float), "sqeuclidean")
        own = squared[np.arange(num_rows), step.labels]
        # No other centroid is nearer by more than float32 tells.
        assert (own <= squared.min(1) + 4e-6 * (1 + rows.squares)).all()
        assert num_moved == (before != step.labels).sum()
        before = step.labels.copy()
        expected = np.zeros_like(step.sums)
        np.add.at(expected, step.labels, rows.rounded(np.arange(num_rows)))
        assert (step.sums == expected).all()
        assert (step.counts == np.bincount(step.labels, minlength=num_clusters)).all()
        np.testing.assert_allclose(step.distances(), np.sqrt(own), rtol=1e-5, atol=1e-6)
        centroids = step.means()


def test_bounds_spare_most_products_and_change_no_label() -> None:
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(48, 24))
    points = (centres[rng.integers(0, 48, 4000)] + 0.3 * rng.normal(size=(4000, 24))).astype("f4")
    rows = KMeansRows.arrange(points, np.arange(4000))
    step = KMeansStep(rows, 48)
    centroids = rows.points[:48].copy()
    for _ in range(15):
        step.assign(centroids)
        anew = KMeansStep(rows, 48)
        anew.assign(centroids)
        assert (step.labels == anew.labels).all()
        centroids = step.means()
    assert step.num_products < 0.6 * 15 * anew.num_products


def test_a_row_moved_by_hand_finds_its_way_back() -> None:
    rows = make_rows(300, 5)
    step = KMeansStep(rows, 20)
    centroids = rows.points[:20].copy()
    step.assign(centroids)
    labels, sums = step.labels.copy(), step.sums.copy()
    step.move(7, (labels[7] + 3) % 20)
    assert step.counts.sum() == 300
    assert step.assign(centroids) == 1
    assert (step.labels == labels).all()
    assert (step.sums == sums).all()


def test_an_empty_cluster_keeps_its_centroid() -> None:
    rows = make_rows(50, 4)
    centroids = np.concatenate([rows.points[:2], np.full((1, 4), 100, dtype=np.float32)])
    for step in (KMeansStep(rows, 3), TorchKMeansStep(rows, 3, "cpu")):
        step.assign(centroids)
        assert (step.means()[2] == 100).all()
        assert (step.means()[:2] != centroids[:2]).any(axis=1).all()


@pytest.mark.parametrize("num_candidates", [1, 5, 16])
def test_candidates_leave_the_smaller_distance(num_candidates: int) -> None:
    rows = make_rows(700, 19)
    candidates = rows.points[100 : 100 + num_candidates]
    nearest = np.random.default_rng(4).uniform(5, 60, 700).astype(np.float32)
    left = np.empty((700, 16), dtype=np.float32)
    potentials = candidate_distances(rows, candidates, nearest, left)
    squared = cdist(rows.points.astype(float), candidates.astype(float), "sqeuclidean")
    expected = np.minimum(nearest[:, None], squared)
    np.testing.assert_allclose(left[:, :num_candidates], expected, atol=1e-4)
    np.testing.assert_allclose(potentials, expected.sum(0), rtol=1e-5)
    assert (left[np.arange(100, 100 + num_candidates), np.arange(num_candidates)] == 0).all()


def test_distances_of_noise_are_nan_and_others_cancel_nothing() -> None:
    points = np.array([[1e6, 1.0], [1e6, 3.0], [5.0, 5.0]], dtype=np.float32)
    labels = np.array([0, 0, -1], dtype=np.int32)
    distances = own_distances(points, np.array([[1e6, 2.0]], dtype=np.float32), labels)
    np.testing.assert_array_equal(distances, [1, 1, np.nan])


def test_threads_do_not_matter() -> None:
    before, rows, results = torch.get_num_threads(), make_rows(5000, 20), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            step = KMeansStep(rows, 37)
            centroids = rows.points[:37]
            for _ in range(5):
                step.assign(centroids)
                centroids = step.means()
            left = np.empty((5000, 16), dtype=np.float32)
            nearest = np.full(5000, np.inf, dtype=np.float32)
            potentials = candidate_distances(rows, centroids[:9], nearest, left)
            results.append((step.labels, step.sums, potentials))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for expected, got in zip(results[0], other, strict=True):
            assert (expected == got).all()


def test_what_would_lead_the_native_code_astray_is_refused() -> None:
    rows = make_rows(40, 3)
    step = KMeansStep(rows, 3)
    for bad in (np.nan, 1e25):
        centroids = rows.points[:3].copy()
        centroids[1, 2] = bad
        with pytest.raises(ValueError, match="centroids must have finite squares in float32"):
            step.assign(centroids)
    for bad in (np.nan, np.inf, 1e25):
        points = np.ones((5, 2), dtype=np.float32)
        points[3, 0] = bad
        with np.errstate(invalid="ignore"):
            rows = KMeansRows.arrange(points, np.arange(5))
        with pytest.raises(ValueError, match="rows must be finite"):
            KMeansStep(rows, 2)


def test_the_native_module_refuses_what_would_read_outside() -> None:
    points = np.zeros((4, 3), dtype=np.float32)
    out, squares = np.zeros((2, 3), dtype=np.float32), np.zeros(2, dtype=np.float32)
    centre = np.zeros(3, dtype=np.float32)
    with pytest.raises(ValueError, match="order must name rows of points, got 4"):
        _C.kmeans_arrange(points, np.array([0, 4]), centre, out, squares, 1)
    with pytest.raises(ValueError, match="points must have 3 columns, got 2"):
        _C.kmeans_arrange(points[:, :2].copy(), np.array([0, 1]), centre, out, squares, 1)
    with pytest.raises(ValueError, match="labels must be below 2, got 2"):
        _C.kmeans_distances(points, out, np.array([0, 1, 2, 0], np.int32), np.zeros(4, "f4"), 1)
    with pytest.raises(ValueError, match="distances must hold 4 elements, got 3"):
        _C.kmeans_distances(points, out, np.zeros(4, np.int32), np.zeros(3, "f4"), 1)
