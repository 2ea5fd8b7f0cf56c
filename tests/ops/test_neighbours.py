"""nearest_k and nearest_outside against float64 distances of all pairs."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from codeact.ops import neighbours
from codeact.ops.neighbours import PointCloud, nearest_k, nearest_outside

EXACT = {"rtol": 1e-12, "atol": 1e-15}  # of float64 sums in another order


def make_points(num_points, dim, *, far=3.0, seed=0):
    """Away from the origin; a third within 1e-4 of one point, two pairs equal or nearly."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(num_points, dim, generator=generator)
    close = num_points // 3
    points[:close] = points[0] + 1e-4 * torch.randn(close, dim, generator=generator)
    points[-1] = points[-2]
    points[-3] = points[-4] * (1 + 1e-7)
    return points + far


def all_distances(points):
    """(num_points, num_points) float64; inf from a point to itself."""
    exact = points.double().numpy()
    distances = np.stack([np.linalg.norm(exact - point, axis=1) for point in exact])
    np.fill_diagonal(distances, np.inf)
    return torch.from_numpy(distances)


SHAPES = [(5, 3), (40, 1), (700, 3), (1100, 40)]  # 1100: beyond one tile of columns


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("k", [1, 12])
@pytest.mark.parametrize(("num_points", "dim"), SHAPES)
def test_nearest_k(num_points, dim, k, backend):
    points = make_points(num_points, dim)
    k = min(k, num_points - 1)
    distances = all_distances(points)
    expected = distances.sort(dim=1).values[:, :k]
    found = nearest_k(points, k, backend=backend)
    torch.testing.assert_close(found.distances, expected, **EXACT)
    torch.testing.assert_close(distances.gather(1, found.indices), expected, **EXACT)
    assert all(len(set(row)) == k for row in found.indices.tolist())


def test_equally_near_points_come_in_their_order():
    grid = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0))
    found = nearest_k(grid, 4)
    assert found.indices[12].tolist() == [7, 11, 13, 17]  # the centre's neighbours
    assert found.distances[12].tolist() == [1, 1, 1, 1]


@pytest.fixture(params=["cpu", "reference", "triton"])
def backend(request):
    if request.param == "triton":
        pytest.importorskip("triton")
    return request.param


@pytest.mark.parametrize(("num_points", "dim"), [(5, 3), (90, 1), (150, 3), (1100, 40)])
def test_nearest_outside(num_points, dim, backend):
    if backend == "triton" and num_points > 200:
        pytest.skip("slow in the interpreter")
    points = make_points(num_points, dim)
    generator = torch.Generator().manual_seed(1)
    components = torch.randint(0, 5, (num_points,), generator=generator)
    components[:2] = torch.tensor([7, 8])
    distances = all_distances(points)
    core = distances.sort(dim=1).values[:, min(3, num_points - 2)]
    reach = torch.maximum(torch.maximum(core[:, None], core), distances)
    reach[components[:, None] == components] = np.inf
    rows = torch.randperm(num_points, generator=generator)[: max(1, 2 * num_points // 3)]
    found = nearest_outside(points, components, core, rows=rows.int(), backend=backend)
    assert found.indices.dtype == torch.int64
    expected = reach.min(dim=1).values[rows]
    torch.testing.assert_close(found.distances, expected, **EXACT)
    named = reach[rows].gather(1, found.indices[:, None])[:, 0]
    torch.testing.assert_close(named, expected, **EXACT)


def test_near_duplicates_are_searched_again_and_little_else(caplog):
    caplog.set_level(logging.DEBUG, logger=neighbours.__name__)
    points = make_points(900, 64)
    nearest_k(points, 8)
    nearest_k(points[300:896], 8)
    again = [int(record.args[0]) for record in caplog.records]
    assert 290 <= again[0] <= 310
    assert again[1] <= 3


def test_without_another_component_there_is_no_point(backend):
    points, core = torch.randn(5, 4), torch.zeros(5, dtype=torch.float64)
    found = nearest_outside(points, torch.zeros(5, dtype=torch.int64), core, backend=backend)
    assert found.indices.tolist() == [-1] * 5
    assert found.distances.isinf().all()


def test_no_rows(backend):
    points, core = torch.randn(5, 4), torch.zeros(5, dtype=torch.float64)
    rows = torch.zeros(0, dtype=torch.int64)
    found = nearest_outside(points, torch.arange(5), core, rows=rows, backend=backend)
    assert found.indices.shape == found.distances.shape == (0,)


def test_a_core_distance_is_returned_to_the_bit():
    """Ties in a spanning tree are ties only if what makes them is passed on as it is."""
    points = make_points(300, 8)
    core = nearest_k(points, 5).distances[:, -1]
    found = nearest_outside(points, torch.arange(300), core)
    ends = torch.maximum(core, core[found.indices])
    assert (found.distances == ends).float().mean() > 0.9


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_do_not_change_a_bit(threads):
    points = make_points(2500, 24, seed=3)
    components, core = torch.arange(2500) % 7, torch.full((2500,), 0.1, dtype=torch.float64)
    before = torch.get_num_threads()
    found = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            cloud = PointCloud(points)
            found.append((*nearest_k(cloud, 9), *nearest_outside(cloud, components, core)))
    finally:
        torch.set_num_threads(before)
    for one, several in zip(*found, strict=True):
        assert torch.equal(one, several)


@pytest.mark.parametrize("dim", [3, 384, 1536])
def test_bounds_are_below_the_distances_and_close(dim):
    points = torch.randn(300, dim, generator=torch.Generator().manual_seed(2)) + 1
    points[0] *= 50  # one far point must not make the bounds of the others wide
    cloud = PointCloud(points)
    products = (cloud.centred @ cloud.centred.T).double()
    bounds = cloud.squares[:, None].double() + cloud.squares.double() - 2 * products
    squared = all_distances(points).fill_diagonal_(0).square()
    assert (bounds <= squared).all()
    assert ((squared - bounds)[1:, 1:] <= 1e-5 * squared.median()).all()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: nearest_k(x, 0), "k must be from 1 to 9"),
        (lambda x: nearest_k(x, 10), "got 10"),
        (lambda x: nearest_k(x.double(), 1), "float32 with a row and a column"),
        (lambda x: nearest_k(x[0], 1), "points must be"),
        (lambda x: nearest_outside(x, torch.arange(9), torch.zeros(10).double()), "10 integer"),
        (lambda x: nearest_outside(x, torch.arange(10), torch.zeros(10)), "core must be float64"),
    ],
)
def test_refuses(call, text):
    with pytest.raises(ValueError, match=text):
        call(torch.randn(10, 3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e25])
def test_points_that_give_no_bounds_are_refused(bad):
    points = torch.randn(10, 3)
    points[4, 1] = bad
    with pytest.raises(ValueError, match="points must be finite and within 1e18"):
        nearest_k(points, 2)


@pytest.mark.parametrize("rows", [[-1], [3, 10]])
def test_rows_that_are_no_points_are_refused(rows):
    core = torch.zeros(10, dtype=torch.float64)
    with pytest.raises(ValueError, match="rows must be from 0 to 9, got"):
        nearest_outside(torch.randn(10, 3), torch.arange(10), core, rows=torch.tensor(rows))
    mask = torch.ones(10, dtype=torch.bool)
    with pytest.raises(ValueError, match="bool"):
        nearest_outside(torch.randn(10, 3), torch.arange(10), core, rows=mask)


def test_near_copies_do_not_make_a_list_of_all_pairs(monkeypatch):
    """Of a block at most: 185 k rows with as many near-copies would make 190 million pairs."""
    points = make_points(900, 64)  # 300 are nearer to each other than products can tell
    expected = nearest_k(points, 8)
    sizes = []

    def within(*arguments):
        found = candidates_within(*arguments)
        sizes.append(len(found[0]))
        return found

    candidates_within = neighbours.candidates.within
    monkeypatch.setattr(neighbours.candidates, "_BLOCK", {"cpu": 20 * 900})
    monkeypatch.setattr(neighbours.candidates, "within", within)
    found = nearest_k(points, 8)
    assert 0 < max(sizes) <= 20 * 900
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.distances, expected.distances)


@pytest.mark.gpu
def test_on_a_gpu_as_on_the_cpu(device):
    points = make_points(5000, 384)
    components = torch.arange(5000) % 11
    here, there = nearest_k(points, 20), nearest_k(points.to(device), 20)
    torch.testing.assert_close(there.distances.cpu(), here.distances, **EXACT)
    core = here.distances[:, 4]
    expected = nearest_outside(points, components, core)
    for backend in ("triton", "reference"):
        found = nearest_outside(
            points.to(device), components.to(device), core.to(device), backend=backend
        )
        torch.testing.assert_close(found.distances.cpu(), expected.distances, **EXACT)
