"""Nearest centroids, distances and densities against scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import gaussian_kde, multivariate_normal

from codeact.ops import log_density, min_distance, nearest_centroid

BACKENDS = ["auto", "reference", "triton"]


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    if request.param == "triton":
        pytest.importorskip("triton")
        pytest.importorskip("codeact.kernels.row_max")
    return request.param


def clouds(num_points: int, num_others: int, dim: int, device, *, offset: float = 0.0):
    generator = torch.Generator().manual_seed(dim)
    points = torch.randn(num_points, dim, generator=generator) + offset
    others = torch.randn(num_others, dim, generator=generator) + offset
    return points.to(device), others.to(device)


@pytest.mark.parametrize("offset", [0.0, 1000.0], ids=["at-zero", "far-from-zero"])
def test_nearest_centroid_matches_scikit_learn(backend, offset, device):
    from sklearn.metrics import pairwise_distances_argmin

    points, centroids = clouds(301, 37, 20, device, offset=offset)
    found = nearest_centroid(points, centroids, backend=backend)
    x, c = points.double().cpu().numpy(), centroids.double().cpu().numpy()
    assert np.array_equal(found.labels.cpu(), pairwise_distances_argmin(x, c))
    truth = cdist(x, c, "sqeuclidean").min(axis=1)
    assert found.distances.dtype == torch.float32
    # Subtracting 1000.x and 1000.y is exact; what is left is the rounding of the centring.
    tolerance = 1e-6 if offset == 0 else 2e-5
    assert np.allclose(found.distances.cpu(), truth, rtol=tolerance)


def test_kmeans_assigns_the_same(backend, device):
    from sklearn.cluster import KMeans

    points, _ = clouds(200, 1, 8, device)
    fitted = KMeans(n_clusters=7, n_init=1, random_state=0).fit(points.cpu().numpy())
    centroids = torch.from_numpy(fitted.cluster_centers_).to(points)
    found = nearest_centroid(points, centroids, backend=backend)
    assert np.array_equal(found.labels.cpu(), fitted.labels_)
    assert found.distances.sum().item() == pytest.approx(fitted.inertia_, rel=1e-5)


def test_a_centroid_is_its_own_nearest_at_distance_zero(backend, device):
    points, _ = clouds(90, 1, 12, device, offset=100.0)
    found = nearest_centroid(points, points, backend=backend)
    assert found.labels.tolist() == list(range(90))
    assert found.distances.tolist() == [0.0] * 90


def test_equal_centroids_give_the_lowest(backend, device):
    # Whole numbers with mean 0: nothing is rounded, whatever the order of a sum.
    points, centroids = (2 * x.round() for x in clouds(50, 4, 3, device))
    centroids = torch.cat([centroids, -centroids])
    found = nearest_centroid(points, centroids.repeat(3, 1), backend=backend)
    truth = torch.cdist(points.double(), centroids.double()).square().round()
    # torch.argmin leaves open which of equal ones it names.
    lowest = (truth == truth.min(dim=1, keepdim=True).values).int().argmax(dim=1)
    assert torch.equal(found.labels, lowest)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_dtypes(dtype, device):
    points, centroids = (x.to(dtype) for x in clouds(60, 9, 16, device))
    found = nearest_centroid(points, centroids)
    truth = torch.cdist(points.double(), centroids.double()).square().min(dim=1)
    assert torch.equal(found.labels, truth.indices)
    assert torch.allclose(found.distances, truth.values.float(), rtol=1e-5)
    density = log_density(points, centroids, bandwidth=1.0)
    allowed = log_density(points.double(), centroids.double(), bandwidth=1.0)
    assert (density - allowed).abs().max() <= 1e-5


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_min_distance_matches_scipy(backend, metric, device):
    points, _ = clouds(80, 1, 10, device, offset=0.3)
    points = torch.nn.functional.normalize(points)
    queries = torch.arange(0, 80, 5, device=device)
    excluded = torch.full((80,), -1, device=device)
    excluded[queries] = torch.arange(len(queries), device=device)
    found = min_distance(points, points[queries], metric=metric, excluded=excluded, backend=backend)
    truth = cdist(points.double().cpu(), points[queries].double().cpu(), metric)
    truth[queries.cpu(), np.arange(len(queries))] = np.inf
    assert np.abs(found.cpu().numpy() - truth.min(axis=1)).max() <= 1e-6


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_no_query_counts(backend, metric, device):
    points, queries = clouds(2, 1, 3, device)
    excluded = torch.tensor([0, -1], device=device)
    found = min_distance(points, queries, metric=metric, excluded=excluded, backend=backend)
    assert found.isinf().tolist() == [True, False]


def test_log_density_matches_gaussian_kde(backend, device):
    points, samples = clouds(40, 300, 2, device)
    # Whitened samples have covariance I, so Scott's factor is the bandwidth itself.
    centred = (samples - samples.mean(dim=0)).double().cpu()
    factor = np.linalg.cholesky(np.linalg.inv(np.cov(centred.numpy().T)))
    samples = (centred @ torch.from_numpy(factor)).float().to(device)
    kernel = gaussian_kde(samples.double().cpu().numpy().T)
    found = log_density(points, samples, bandwidth=float(kernel.factor), backend=backend)
    truth = kernel.logpdf(points.double().cpu().numpy().T)
    assert np.abs(found.cpu().numpy() - truth).max() <= 2e-5


def test_log_density_of_one_sample_is_a_normal(backend, device):
    points, samples = clouds(30, 1, 5, device, offset=50.0)
    found = log_density(points, samples, bandwidth=0.7, backend=backend)
    mean = samples[0].double().cpu().numpy()
    truth = multivariate_normal(mean, 0.49).logpdf(points.double().cpu().numpy())
    assert np.abs(found.cpu().numpy() - truth).max() <= 1e-4


def test_far_points_keep_a_finite_log_density(backend, device):
    points, samples = clouds(10, 100, 4, device)
    found = log_density(points, samples, bandwidth=0.01, backend=backend)
    truth = log_density(points.double(), samples.double(), bandwidth=0.01)
    assert found.isfinite().all()
    # 2e-7 (r / bandwidth)^2 with r about 4, as its docstring says
    assert (found - truth).abs().max() <= 2e-7 * 400**2


@pytest.mark.parametrize("dim", [1, 10, 32])
def test_few_dimensions_keep_their_digits_on_the_cpu(dim):
    points, samples = clouds(60, 2100, dim, "cpu", offset=300.0)
    x, y = points.double().numpy(), samples.double().numpy()
    squared = cdist(x, y, "sqeuclidean")
    found = nearest_centroid(points, samples)
    assert np.array_equal(found.labels, squared.argmin(axis=1))
    assert np.allclose(found.distances, squared.min(axis=1), rtol=1e-6, atol=0)
    bandwidth = 0.4 * dim**0.5
    truth = multivariate_normal(np.zeros(dim), bandwidth**2).logpdf
    truth = np.log(np.mean([np.exp(truth(x - sample)) for sample in y], axis=0))
    density = log_density(points, samples, bandwidth=bandwidth)
    assert np.abs(density.numpy() - truth).max() <= 2e-6  # a rounding of values up to 50


def test_a_point_that_is_not_finite_takes_no_other_with_it():
    points, samples = clouds(4, 50, 3, "cpu")
    alone = log_density(points[:2], samples, bandwidth=0.5)
    points[3, 1] = torch.nan
    found = log_density(points, samples, bandwidth=0.5)
    assert found.isnan().tolist() == [False, False, False, True]
    assert torch.allclose(found[:2], alone, atol=1e-5)


def test_excluded_is_one_index_a_point(device):
    points, _ = clouds(4, 1, 3, device)
    for wrong in (torch.zeros(3, dtype=torch.int64), torch.zeros(4), torch.zeros(4, 1)):
        for metric in ("cosine", "euclidean"):
            with pytest.raises(ValueError, match=r"excluded|int64|one label"):
                min_distance(points, points, metric=metric, excluded=wrong.to(device))


def test_points_without_coordinates(backend, device):
    points, centroids = torch.zeros(3, 0, device=device), torch.zeros(2, 0, device=device)
    found = nearest_centroid(points, centroids, backend=backend)
    assert found.labels.tolist() == [0, 0, 0]
    assert found.distances.tolist() == [0, 0, 0]


def test_derivatives_are_refused(device):
    points, others = clouds(4, 3, 2, device)
    for call in (
        lambda x: nearest_centroid(x, others).distances,
        lambda x: min_distance(x, others),
        lambda x: min_distance(x, others, metric="euclidean"),
        lambda x: log_density(x, others, bandwidth=1.0),
    ):
        with pytest.raises(RuntimeError, match="no derivative"):
            call(points.clone().requires_grad_())
        with pytest.raises(RuntimeError, match="no derivative"):
            torch.func.jvp(call, (points,), (points,))


def test_refused(device):
    points, others = clouds(4, 3, 2, device)
    with pytest.raises(ValueError, match="metric must be"):
        min_distance(points, others, metric="dot")
    with pytest.raises(ValueError, match="bandwidth must be above 0"):
        log_density(points, others, bandwidth=0.0)
    with pytest.raises(ValueError, match="expects two matrices"):
        nearest_centroid(points, others[:, :1])
    with pytest.raises(ValueError, match="expects two matrices"):
        nearest_centroid(points, others[:0])
    with pytest.raises(ValueError, match="expects two matrices"):
        nearest_centroid(points, others.double())
    for call in (nearest_centroid, lambda x, y: log_density(x, y, bandwidth=1.0)):
        with pytest.raises(ValueError, match=r"of one dtype and device .* on meta"):
            call(points, others.to("meta"))
