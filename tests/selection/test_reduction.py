"""PCA and unit length against a singular value decomposition in float64."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from codeact.errors import InputError
from codeact.selection.reduction import reduce_dimensions


def spectrum(num_rows: int, dim: int, seed: int = 0):
    random = np.random.default_rng(seed)
    scales = 0.8 ** np.arange(dim)
    return (random.normal(size=(num_rows, dim)) * scales + 0.3).astype(np.float32)


def by_svd(points, fit_on, num_components):
    """Plain PCA, largest weight of each component positive, then unit length."""
    points, fit_on = points.astype(np.float64), fit_on.astype(np.float64)
    mean = fit_on.mean(axis=0)
    _, singular, components = np.linalg.svd(fit_on - mean, full_matrices=False)
    chosen = components[:num_components]
    largest = np.abs(chosen).argmax(axis=1)
    chosen = chosen * np.sign(chosen[np.arange(len(chosen)), largest])[:, None]
    projected = (points - mean) @ chosen.T
    share = (singular[:num_components] ** 2).sum() / (singular**2).sum()
    return projected / np.linalg.norm(projected, axis=1, keepdims=True), share


def test_it_is_the_plain_pca():
    points = spectrum(400, 40)
    found = reduce_dimensions(points, 10)
    vectors, share = by_svd(points, points, 10)
    assert found.vectors.dtype == np.float32
    assert np.abs(found.vectors - vectors).max() <= 2e-5
    assert found.explained_variance == pytest.approx(share, rel=1e-5)


def test_it_may_be_fitted_on_other_rows_with_a_warning():
    points, others = spectrum(90, 12), spectrum(200, 12, seed=1) + 0.5
    with pytest.warns(UserWarning, match="the selection has seen the test set"):
        found = reduce_dimensions(points, 3, others)
    assert np.abs(found.vectors - by_svd(points, others, 3)[0]).max() <= 2e-5


def test_without_pca_rows_only_get_unit_length():
    points = spectrum(20, 6)
    found = reduce_dimensions(points, None)
    assert found.explained_variance is None
    assert np.allclose(found.vectors, points / np.linalg.norm(points, axis=1, keepdims=True))


def test_no_wide_copy_of_all_rows_is_made():
    points = spectrum(60_000, 32)
    reduce_dimensions(points[:3], None)  # what it imports is not counted
    tracemalloc.start()
    reduce_dimensions(points, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 1.5 * points.nbytes  # the result, lengths, and a block


def test_there_are_no_more_components_than_rows_or_dimensions():
    assert reduce_dimensions(spectrum(50, 4), 10).vectors.shape == (50, 4)
    assert reduce_dimensions(spectrum(6, 30), 10).vectors.shape == (6, 6)


def test_refused():
    points = spectrum(30, 5)
    with pytest.raises(InputError, match="pca_components must be at least 1 or None, got 0"):
        reduce_dimensions(points, 0)
    with pytest.raises(InputError, match="pca_fit_on must have the 5 columns"):
        reduce_dimensions(points, 2, spectrum(30, 6))
    with pytest.raises(InputError, match="pca_fit_on needs pca_components"):
        reduce_dimensions(points, None, points)
    with pytest.raises(InputError, match="needs at least 2 rows to fit on, got 1"):
        reduce_dimensions(points[:1], 2)
    points[3] = 0
    with pytest.raises(InputError, match="got 1 of 30 rows that are zero"):
        reduce_dimensions(points, None)
    same = np.full((8, 5), 0.7, np.float32)
    with pytest.raises(InputError, match="got 8 of 8 rows that are at the mean of the PCA"):
        reduce_dimensions(same, 2)
