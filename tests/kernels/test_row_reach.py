"""row_reach against float64, with the ties and gaps that a schedule must not decide."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from codeact.kernels.row_reach import row_reach

INF = float("inf")


def make_inputs(num_rows, num_columns, dim, device, num_components=4):
    generator = torch.Generator().manual_seed(num_columns)
    rows = torch.randn(num_rows, dim, generator=generator)
    columns = torch.randn(num_columns, dim, generator=generator)
    floors = 2 * dim * torch.rand(num_columns, generator=generator)
    components = torch.randint(0, num_components, (num_rows + num_columns,), generator=generator)
    parts = components.int().split([num_rows, num_columns])
    squares = rows.square().sum(1), columns.square().sum(1)
    return tuple(x.to(device) for x in (rows, columns, *squares, floors, *parts))


def reference(rows, columns, row_squares, column_squares, floors, row_components, components):
    squares = row_squares.double()[:, None] + column_squares.double()
    reach = (squares - 2 * rows.double() @ columns.double().T).maximum(floors.double())
    return reach.masked_fill(row_components[:, None] == components, INF)


@pytest.mark.parametrize(
    ("num_rows", "dim", "num_columns"), [(1, 8, 2), (31, 72, 3), (33, 96, 65), (40, 72, 301)]
)
@pytest.mark.parametrize("tma", [False, True], ids=["pointers", "descriptors"])
def test_matches_float64(num_rows, dim, num_columns, tma, device):
    if tma and device.type == "cuda" and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("needs a device with TMA")
    inputs = make_inputs(num_rows, num_columns, dim, device)
    reach = reference(*inputs)
    best, index, second = row_reach(*inputs, tma=tma)
    least = reach.sort(dim=1).values
    close = {"rtol": 1e-5, "atol": 1e-4}
    torch.testing.assert_close(best.double(), least[:, 0], **close)
    torch.testing.assert_close(second.double(), least[:, 1], **close)
    named = reach.gather(1, index.clamp(min=0)[:, None])[:, 0]
    torch.testing.assert_close(named, least[:, 0], **close)
    assert torch.equal(index < 0, best.isinf())


@pytest.mark.parametrize("num_splits", range(1, 7))
def test_the_lowest_of_equal_columns_wins_and_the_next_is_second(num_splits, device):
    floors = torch.full((301,), 9.0, device=device)
    floors[[70, 71, 130, 300]] = 5.0
    rows, columns = torch.zeros(2, 1, device=device), torch.zeros(301, 1, device=device)
    components = torch.ones(301, dtype=torch.int32, device=device)
    of_rows = torch.zeros(2, dtype=torch.int32, device=device)
    zeros = torch.zeros(301, device=device)

    def found():
        inputs = (rows, columns, zeros[:2], zeros, floors, of_rows, components)
        return [x[0].item() for x in row_reach(*inputs, num_splits=num_splits)]

    assert found() == [5, 70, 5]
    floors[71:] += 1
    assert found() == [5, 70, 6]
    components[70] = 0
    assert found() == [6, 71, 6]


@pytest.mark.parametrize("num_splits", [1, 3])
def test_one_other_column_has_no_second_and_none_no_best(num_splits, device):
    inputs = make_inputs(3, 200, 8, device, num_components=1)
    best, index, second = row_reach(*inputs, num_splits=num_splits)
    assert best.isinf().all()
    assert second.isinf().all()
    assert index.tolist() == [-1, -1, -1]
    inputs[-1][150] = 7
    best, index, second = row_reach(*inputs, num_splits=num_splits)
    assert best.isfinite().all()
    assert second.isinf().all()
    assert index.tolist() == [150, 150, 150]


def test_zero_rows(device):
    best, index, second = row_reach(*make_inputs(0, 3, 8, device))
    assert best.shape == index.shape == second.shape == (0,)


@pytest.mark.gpu
def test_real_shapes(device):
    """4000 embeddings of 1536 numbers against 100000."""
    inputs = make_inputs(4000, 100_000, 1536, device)
    best, index, second = row_reach(*inputs)
    some = slice(0, 4000, 97)
    rows, columns, row_squares, column_squares, floors, of_rows, components = inputs
    reach = reference(
        rows[some], columns, row_squares[some], column_squares, floors, of_rows[some], components
    )
    least = reach.sort(dim=1).values
    torch.testing.assert_close(best[some].double(), least[:, 0], rtol=1e-5, atol=1e-2)
    torch.testing.assert_close(second[some].double(), least[:, 1], rtol=1e-5, atol=1e-2)
    named = reach.gather(1, index[some, None])[:, 0]
    torch.testing.assert_close(named, least[:, 0], rtol=1e-5, atol=1e-2)
