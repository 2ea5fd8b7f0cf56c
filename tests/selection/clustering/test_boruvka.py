"""The spanning tree against Prim's algorithm on the whole matrix, ties included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from codeact.selection.clustering.boruvka import reachability_tree
from codeact.selection.clustering.prim_order import prim_order


def gaussians(num_points, dim, seed, num_centres=6):
    """Clusters of falling density among scattered points, with copies and near-copies."""
    rng = np.random.default_rng(seed)
    centres = 3 * rng.normal(size=(num_centres, dim))
    own = rng.integers(0, num_centres, num_points)
    points = centres[own] + (0.1 + own[:, None] / 4) * rng.normal(size=(num_points, dim))
    points[::11] = 6 * rng.normal(size=points[::11].shape)
    points[1:9] = points[0] + 1e-5 * rng.normal(size=(8, dim))
    points[20:24] = points[30]
    return points.astype(np.float32)


def reachability(points, min_samples):
    """The whole matrix in float64, and the core distances."""
    points = points.astype(np.float64)
    distances = np.stack([np.linalg.norm(points - point, axis=1) for point in points])
    core = np.sort(distances, axis=1)[:, min_samples]
    return np.maximum(np.maximum(core[:, None], core), distances), core


def prim(matrix):
    """(edges, weights) from point 0: the nearest point first, of equal ones the lowest."""
    num_points = len(matrix)
    nearest, source = np.full(num_points, np.inf), np.zeros(num_points, dtype=int)
    left = np.ones(num_points, dtype=bool)
    edges, weights, newest = [], [], 0
    for _ in range(num_points - 1):
        left[newest] = False
        closer = left & (matrix[newest] < nearest)
        nearest[closer], source[closer] = matrix[newest][closer], newest
        newest = int(np.where(left, nearest, np.inf).argmin())
        edges.append((source[newest], newest))
        weights.append(nearest[newest])
    return np.array(edges), np.array(weights)


@pytest.mark.parametrize("num_listed", [3, 8, 32])
@pytest.mark.parametrize("min_samples", [1, 5])
@pytest.mark.parametrize("dim", [2, 24, 384])
def test_is_prims_tree(dim, min_samples, num_listed):
    points = gaussians(500, dim, seed=dim)
    tree = reachability_tree(
        torch.from_numpy(points), min_samples=min_samples, num_listed=num_listed
    )
    matrix, core = reachability(points, min_samples)
    weights = prim(matrix)[1]
    np.testing.assert_allclose(tree.core, core, rtol=1e-12)
    np.testing.assert_allclose(np.sort(tree.weights), np.sort(weights), rtol=1e-12, atol=1e-15)
    measured = matrix[tree.edges[:, 0], tree.edges[:, 1]]
    np.testing.assert_allclose(tree.weights, measured, rtol=1e-12, atol=1e-15)
    assert set(tree.edges[:, 1]) == set(range(1, len(points)))  # each is reached once


def test_breaks_ties_as_prims_algorithm_does():
    # No two distances are equal here but by way of core distances, 199 of 399 edges among them.
    points = np.random.default_rng(3).normal(size=(400, 16)).astype(np.float32)
    tree = reachability_tree(torch.from_numpy(points), min_samples=5)
    matrix, core = reachability(points, 5)
    assert np.isin(tree.weights, core).mean() > 0.4
    # In the tree's own rounding, in which ties are ties.
    edges, _ = prim(np.round(matrix, 10))
    np.testing.assert_array_equal(tree.edges, edges)


@pytest.mark.parametrize("num_listed", [2, 4, 16])
@pytest.mark.parametrize("seed", range(6))
def test_equal_distances_everywhere(seed, num_listed):
    """Points of a grid: components with several lightest edges, some of them not settled."""
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 6, size=(300, 3)).astype(np.float32) ** 2
    tree = reachability_tree(torch.from_numpy(points), min_samples=2, num_listed=num_listed)
    weights = prim(reachability(points, 2)[0])[1]
    np.testing.assert_allclose(np.sort(tree.weights), np.sort(weights), rtol=1e-12)


@pytest.mark.parametrize("num_points", [1, 2, 3, 7])
def test_few_points(num_points):
    points = np.random.default_rng(0).normal(size=(num_points, 4)).astype(np.float32)
    tree = reachability_tree(torch.from_numpy(points), min_samples=5)
    assert tree.edges.shape == (num_points - 1, 2)
    if num_points > 1:
        weights = prim(reachability(points, min(5, num_points - 1))[0])[1]
        np.testing.assert_allclose(np.sort(tree.weights), np.sort(weights), rtol=1e-12)


def test_prim_order_of_a_graph_with_ties():
    edges = np.array([[3, 0], [0, 2], [2, 3], [1, 2], [1, 3], [4, 1]])
    weights = np.array([2.0, 1.0, 1.0, 4.0, 4.0, 3.0])
    # 3 by 2, since it is nearer by that; 1 by 2, which was taken before 3.
    found, lengths = prim_order(edges, weights, 5)
    assert found.tolist() == [[0, 2], [2, 3], [2, 1], [1, 4]]
    assert lengths.tolist() == [1, 1, 4, 3]
