"""Products with float32 sums, the settings they run under, and half precision widened in blocks."""

from __future__ import annotations

import threading

import pytest
import torch

from codeact.ops import _products
from codeact.ops._products import add_product, exact_products, wide_blocks

ON_CUDA = (torch.device("cuda"), torch.float32)  # the switch is there without a GPU too


def test_float32_products_are_not_tf32() -> None:
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    try:
        settings.fp32_precision = "tf32"
        with exact_products(*ON_CUDA):
            assert settings.fp32_precision == "ieee"
        assert settings.fp32_precision == "tf32"
    finally:
        settings.fp32_precision = before


def test_threads_do_not_switch_tf32_under_each_other() -> None:
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    entered, left = threading.Event(), threading.Event()

    def first() -> None:
        with exact_products(*ON_CUDA):
            entered.set()
            assert left.wait(10)

    thread = threading.Thread(target=first)
    try:
        settings.fp32_precision = "tf32"
        thread.start()
        assert entered.wait(10)
        with exact_products(*ON_CUDA):  # enters second, leaves last
            left.set()
            thread.join(10)
            assert settings.fp32_precision == "ieee"
        assert settings.fp32_precision == "tf32"
    finally:
        settings.fp32_precision = before


def test_autocast_does_not_reach_inside() -> None:
    a = torch.randn(8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        with exact_products(a.device, a.dtype):
            assert torch.equal(a @ a, torch.mm(a, a))
            assert (a @ a).dtype == torch.float32


@pytest.mark.parametrize("keep", [True, False])
def test_add_product(keep: bool) -> None:
    a, b = torch.randn(5, 3), torch.randn(3, 4)
    start = torch.randn(5, 8)[:, ::2] if keep else torch.full((5, 8), torch.nan)[:, ::2]
    total = start.clone()
    add_product(total, a, b, alpha=-0.5, keep=keep)
    expected = -0.5 * a.double() @ b.double() + (start if keep else 0.0)
    torch.testing.assert_close(total.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_rows", [0, 1, 10, 11])
def test_wide_blocks_are_the_matrix(num_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_products, "_WIDENED_BYTES", 5 * 3 * 4)
    matrix = torch.randn(num_rows, 3).bfloat16()
    widened = torch.full((num_rows, 3), torch.nan)
    sizes = []
    for rows, block in wide_blocks(matrix, torch.float32):
        widened[rows] = block
        sizes.append(len(block))
    assert torch.equal(widened, matrix.float())
    assert sizes == [5] * (num_rows // 5) + [num_rows % 5] * (num_rows % 5 > 0)


def test_a_matrix_that_is_wide_is_not_copied() -> None:
    matrix = torch.randn(7, 3)
    ((rows, block),) = wide_blocks(matrix, torch.float32)
    assert rows == slice(0, 7)
    assert block.data_ptr() == matrix.data_ptr()
