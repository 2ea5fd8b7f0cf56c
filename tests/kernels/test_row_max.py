"""row_max against float64, with the ties, NaNs and gaps that a schedule must not decide."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from codeact.kernels.row_max import row_max

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
INF, NAN = float("inf"), float("nan")


def make_inputs(num_rows, num_columns, dim, dtype, device):
    generator = torch.Generator().manual_seed(num_columns)
    rows = torch.randn(num_rows, dim, generator=generator)
    columns = torch.randn(num_columns, dim, generator=generator)
    return rows.to(device, dtype), columns.to(device, dtype)


def one_row(values, device):
    """Operands whose products are one row of ``values``."""
    columns = torch.tensor(values, device=device)[:, None]
    return torch.ones(1, 1, device=device), columns


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("num_rows", "dim", "num_columns"), [(1, 8, 1), (31, 72, 2), (33, 96, 65), (40, 72, 301)]
)
@pytest.mark.parametrize("tma", [False, True], ids=["pointers", "descriptors"])
def test_matches_float64(num_rows, dim, num_columns, dtype, tma, device):
    if tma and device.type == "cuda" and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("needs a device with TMA")
    rows, columns = make_inputs(num_rows, num_columns, dim, dtype, device)
    bias = torch.linspace(-1, 1, num_columns, device=device)
    products = rows.double() @ columns.double().T + bias
    values, indices = row_max(rows, columns, bias, None, tma=tma)
    assert values.dtype == torch.float32
    assert indices.dtype == torch.int64
    torch.testing.assert_close(values.double(), products.amax(1), rtol=1e-6, atol=2e-5)
    # The column named may differ from the true one by rounding only.
    named = products.gather(1, indices[:, None])[:, 0]
    torch.testing.assert_close(named, products.amax(1), rtol=1e-6, atol=2e-5)


@pytest.mark.parametrize("num_splits", range(1, 8))
def test_the_lowest_of_equal_columns_wins(num_splits, device):
    values = [0.0] * 301
    for column in (70, 71, 130, 300):
        values[column] = 5.0
    rows, columns = one_row(values, device)
    best, index = row_max(rows, columns, None, None, num_splits=num_splits)
    assert (best.item(), index.item()) == (5.0, 70)
    best, index = row_max(rows, torch.zeros_like(columns), None, None, num_splits=num_splits)
    assert (best.item(), index.item()) == (0.0, 0)


@pytest.mark.parametrize("num_splits", [1, 3])
def test_the_first_nan_is_the_largest(num_splits, device):
    values = [0.0] * 301
    values[3], values[100], values[101], values[299] = INF, NAN, INF, NAN
    rows, columns = one_row(values, device)
    best, index = row_max(rows, columns, None, None, num_splits=num_splits)
    assert best.isnan().all()
    assert index.item() == 100


def test_an_infinity_is_larger_than_all_numbers(device):
    rows, columns = one_row([1.0] * 70 + [INF] + [2.0], device)
    best, index = row_max(rows, columns, None, None)
    assert (best.item(), index.item()) == (INF, 70)


def test_excluded_columns_do_not_count(device):
    rows, columns = make_inputs(40, 130, 24, torch.float32, device)
    products = rows.double() @ columns.double().T
    excluded = products.argmax(1)
    excluded[::3] = -1
    products[excluded >= 0, excluded[excluded >= 0]] = -INF
    values, indices = row_max(rows, columns, None, excluded)
    torch.testing.assert_close(values.double(), products.amax(1), rtol=1e-6, atol=1e-5)
    assert torch.equal(indices, products.argmax(1))


def test_where_nothing_counts_there_is_no_column(device):
    rows, columns = make_inputs(3, 1, 8, torch.float32, device)
    excluded = torch.tensor([0, -1, 0], device=device)
    values, indices = row_max(rows, columns, None, excluded)
    assert values.isinf().tolist() == [True, False, True]
    assert indices.tolist() == [-1, 0, -1]


def test_zero_rows(device):
    rows, columns = make_inputs(0, 3, 8, torch.float32, device)
    values, indices = row_max(rows, columns, None, None)
    assert values.shape == indices.shape == (0,)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_real_shapes(dtype, device):
    """100000 embeddings of 1024 numbers against 1000 centroids."""
    rows, columns = make_inputs(100_000, 1000, 1024, dtype, device)
    values, indices = row_max(rows, columns, None, None)
    some = torch.arange(0, 100_000, 997, device=device)
    products = rows[some].double() @ columns.double().T
    torch.testing.assert_close(values[some].double(), products.amax(1), rtol=1e-5, atol=2e-4)
    named = products.gather(1, indices[some, None])[:, 0]
    torch.testing.assert_close(named, products.amax(1), rtol=1e-5, atol=2e-4)
