"""The pruning metrics against scipy, scikit-learn and all pairs in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde
from sklearn.metrics.pairwise import cosine_distances
from sklearn.neighbors import KernelDensity, NearestNeighbors

from codeact.errors import InputError
from codeact.selection.pruning_metrics import (
    density_scores,
    diversity_scores,
    nearest_neighbour_distances,
)


def unit_vectors(num_rows: int, dim: int, *, spread: float = 0.4, seed: int = 0):
    """Rows around five directions, of unit length, float32."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(5, dim))
    points = centres[random.integers(5, size=num_rows)]
    points = points + spread * random.normal(size=points.shape)
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("dim", [2, 10, 32, 33, 384])
def test_diversity_is_the_least_cosine_distance_to_a_query(dim):
    vectors = unit_vectors(700, dim)
    queries = np.sort(np.random.default_rng(1).choice(700, 70, replace=False))
    truth = cosine_distances(vectors.astype(np.float64), vectors[queries].astype(np.float64))
    truth[queries, np.arange(70)] = np.inf
    found = diversity_scores(vectors, queries)
    assert found.dtype == np.float64
    assert np.abs(found - truth.min(axis=1)).max() <= 1e-6


@pytest.mark.parametrize("dim", [10, 64])
def test_an_exact_duplicate_has_no_diversity(dim):
    vectors = unit_vectors(50, dim)
    vectors[7] = vectors[31]
    found = diversity_scores(vectors, np.array([3, 31]))
    assert found[7] == 0
    assert (np.delete(found, 7) > 0).all()
    assert nearest_neighbour_distances(vectors)[[7, 31]].tolist() == [0, 0]


@pytest.mark.parametrize("dim", [10, 64])
def test_near_duplicates_keep_their_digits(dim):
    vectors = unit_vectors(40, dim).astype(np.float64)
    step = np.random.default_rng(2).normal(size=(20, dim)) * 1e-3
    vectors[20:] = vectors[:20] + step - vectors[:20] * (step * vectors[:20]).sum(1, keepdims=True)
    vectors = vectors.astype(np.float32)
    truth = np.linalg.norm(vectors[:20].astype(np.float64) - vectors[20:], axis=1)
    found = nearest_neighbour_distances(vectors)
    assert np.allclose(found[:20], truth, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dim", [2, 10, 33, 384])
def test_nearest_neighbours_match_scikit_learn(dim):
    vectors = unit_vectors(500, dim)
    found = nearest_neighbour_distances(vectors)
    tree = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(vectors.astype(np.float64))
    truth = tree.kneighbors()[0][:, 0]
    assert np.abs(found - truth).max() <= 1e-6


def test_a_row_alone_has_no_neighbour():
    vectors = unit_vectors(1, 4)
    assert nearest_neighbour_distances(vectors).tolist() == [np.inf]
    assert diversity_scores(vectors, np.array([0])).tolist() == [np.inf]
    assert density_scores(vectors).tolist() == [0.0]


@pytest.mark.parametrize(("num_rows", "dim"), [(60, 2), (1500, 10), (400, 32)])
def test_density_is_that_of_scipy(num_rows, dim):
    vectors = unit_vectors(num_rows, dim)
    truth = gaussian_kde(vectors.T.astype(np.float64), bw_method="scott")
    wanted = truth.logpdf(vectors.T.astype(np.float64))
    found = density_scores(vectors)
    # float32 holds a logarithm up to 70 to 4e-6; relative to it the bar is 1e-6
    assert (np.abs(found - wanted) <= 1e-6 * np.maximum(1, np.abs(wanted))).all()


def test_density_in_many_dimensions_is_that_of_scipy():
    vectors = unit_vectors(600, 48)
    truth = gaussian_kde(vectors.T.astype(np.float64)).logpdf(vectors.T.astype(np.float64))
    # 2e-7 (r / bandwidth)^2 as log_density says: whitened, r is about 12, the bandwidth 0.88
    assert np.abs(density_scores(vectors) - truth).max() <= 2e-7 * (12 / 0.88) ** 2


@pytest.mark.parametrize("dim", [3, 10])
def test_density_without_whitening_is_that_of_scikit_learn(dim):
    vectors = unit_vectors(800, dim)
    truth = KernelDensity(bandwidth="scott").fit(vectors.astype(np.float64))
    found = density_scores(vectors, whiten=False)
    assert np.abs(found - truth.score_samples(vectors.astype(np.float64))).max() <= 1e-6


def test_a_direction_without_variance_does_not_count():
    vectors = unit_vectors(200, 3)
    flat = np.concatenate([vectors, np.full((200, 2), 0.25, np.float32)], axis=1)
    assert np.abs(density_scores(flat) - density_scores(vectors)).max() <= 1e-5
    assert density_scores(np.full((9, 3), 0.5, np.float32)).tolist() == [0.0] * 9


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    with pytest.raises(InputError, match="device must be auto, cpu or cuda, got 'abacus'"):
        density_scores(unit_vectors(5, 2), device="abacus")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=r"device must be one of 2 GPUs, .*, got 'cuda:2'"):
        density_scores(unit_vectors(5, 2), device="cuda:2")


@pytest.mark.parametrize(
    ("queries", "got"), [([], "none"), ([1, 5], "1, 5"), ([-1, 2], "-1, 2"), ([0.5], "0.5")]
)
def test_queries_that_are_no_rows_are_refused(queries, got):
    with pytest.raises(InputError, match=f"queries must be rows from 0 to 4, got {got}"):
        diversity_scores(unit_vectors(5, 2), np.array(queries))
