"""The log-sum-exp kernel for Hopper (csrc/cuda/row_lse.cu) against float64."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from codeact import _C
from codeact.ops import Logits, linear_nll, linear_nll_reference, linear_nll_stats, row_lse
from codeact.ops._streamed_reference import row_logits

HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (HOPPER and _C.built_with_cuda), reason="needs Hopper and a build with CUDA"
    ),
]

INF, NAN = float("inf"), float("nan")
OPTIONS = {
    "plain": Logits(),
    "scaled": Logits(0.5),
    "capped": Logits(1.0, 5.0),
    "scaled-capped-warm": Logits(0.25, 3.0, 1.5),
}
# A block is 128 rows by 256 columns, a cluster of two skips 256 rows, a step takes 64 of dim.
ROWS, COLUMNS, DIMS = [1, 129, 257], [1, 7, 257, 513], [8, 72, 200, 264]
ATOL = 2e-5  # of logits up to 20: a few units in the last place of float32


def make(num_rows: int, num_columns: int, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(num_rows + num_columns + dim)
    rows = 3 * torch.randn(num_rows, dim, device="cuda")
    columns = torch.randn(num_columns, dim, device="cuda") / dim**0.5
    labels = torch.randint(num_columns, (num_rows,), device="cuda")
    bias = torch.randn(num_columns, device="cuda")
    return rows.bfloat16(), columns.bfloat16(), labels, bias


def worst(
    rows: Tensor,
    columns: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    logits: Logits = OPTIONS["plain"],
) -> float:
    """Largest error of the log-sum-exps and of the labels' logits."""
    found = row_lse(rows, columns, labels, bias=bias, logits=logits, backend="cuda")
    assert found.lse.dtype == found.label_logits.dtype == torch.float32
    truth = row_logits(rows.double(), columns.double(), bias, *logits)
    error = (found.lse - truth.logsumexp(1)).abs().max()
    label_error = (found.label_logits - truth.gather(1, labels[:, None])[:, 0]).abs().max()
    return float(torch.maximum(error, label_error))  # NaN stays NaN, and is above no bound


@pytest.mark.parametrize("logits", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("with_bias", [False, True], ids=["no-bias", "bias"])
def test_edges_of_tiles_match_float64(logits: Logits, with_bias: bool) -> None:
    for shape in product(ROWS, COLUMNS, DIMS):
        rows, columns, labels, bias = make(*shape)
        assert worst(rows, columns, labels, bias if with_bias else None, logits) <= ATOL, shape


@pytest.mark.parametrize(
    ("num_rows", "dim", "num_columns"),
    [(256, 576, 49_152), (300, 4096, 128_256)],
    ids=["smollm2", "llama3"],
)
@pytest.mark.parametrize("logits", [OPTIONS["plain"], OPTIONS["capped"]], ids=["plain", "capped"])
def test_real_shapes_match_float64(
    num_rows: int, dim: int, num_columns: int, logits: Logits
) -> None:
    rows, columns, labels, bias = make(num_rows, num_columns, dim)
    assert worst(rows, columns, labels, None, logits) <= 1e-4
    assert worst(rows, columns, labels, bias.bfloat16(), logits) <= 1e-4
    first, second = (row_lse(rows, columns, labels, backend="cuda") for _ in range(2))
    assert torch.equal(first.lse, second.lse)
    assert torch.equal(first.label_logits, second.label_logits)


def test_strides_and_addresses_do_not_matter() -> None:
    rows, columns, labels, bias = make(129, 257, 72)
    wide = torch.full((129, 80), NAN, device="cuda", dtype=torch.bfloat16)
    wide[:, 3:75] = rows  # an address that no copy of 16 bytes can start from
    odd = make(33, 65, 67)  # rows of 134 bytes
    assert worst(wide[:, 3:75], columns.t().contiguous().t(), labels) <= ATOL
    assert worst(rows[:1].expand(129, 72), columns, labels) <= ATOL
    assert worst(*odd) <= ATOL
    every_other = bias.repeat_interleave(2)[::2], labels.repeat_interleave(2)[::2]
    assert worst(rows, columns, every_other[1], every_other[0]) <= ATOL


def test_skipped_rows_are_left_out() -> None:
    rows, columns, labels, _ = make(700, 513, 72)
    truth = linear_nll_reference(rows.double(), columns.double(), labels)
    skipped = torch.arange(700, device="cuda") % 3 != 0  # 466 rows: at least one block of them
    rows[skipped], labels[skipped] = NAN, -100
    nll = linear_nll(rows, columns, labels, backend="cuda")
    assert (nll[skipped] == 0).all()
    assert (nll - truth)[~skipped].abs().max() <= ATOL
    assert linear_nll(rows, columns, labels.fill_(-100), backend="cuda").tolist() == [0.0] * 700
    assert linear_nll(rows[:0], columns, labels[:0], backend="cuda").shape == (0,)


def test_a_label_that_is_no_column_has_no_logit() -> None:
    rows, columns, labels, _ = make(5, 257, 72)
    labels[:4] = torch.tensor([-1, 257, 2**40, -(2**40)])
    found = row_lse(rows, columns, labels, backend="cuda")
    assert found.label_logits.isnan().tolist() == [True] * 4 + [False]
    truth = (rows.double() @ columns.double().t()).logsumexp(1)
    assert (found.lse - truth).abs().max() <= ATOL
    assert torch.equal(row_lse(rows, columns, None, backend="cuda").lse, found.lse)


def test_infinite_and_undefined_logits() -> None:
    rows = torch.ones(4, 8, device="cuda", dtype=torch.bfloat16)
    rows[1, 0] = NAN
    columns = torch.full((1100, 8), 0.25, device="cuda", dtype=torch.bfloat16)
    bias = torch.zeros(1100, device="cuda")
    bias[:1040] = -INF  # four whole tiles, and a share of a split
    labels = torch.tensor([1050, 1050, 0, 1100], device="cuda")
    found = row_lse(rows, columns, labels, bias=bias, backend="cuda")
    truth = 2 + torch.tensor(60.0).log().item()
    assert found.lse.tolist() == pytest.approx([truth, NAN, truth, truth], rel=1e-6, nan_ok=True)
    assert found.label_logits.tolist() == pytest.approx([2, NAN, -INF, NAN], nan_ok=True)
    nothing = row_lse(rows[:1], columns, None, bias=bias.fill_(-INF), backend="cuda")
    assert nothing.lse.tolist() == [-INF]
    bias[3] = INF
    assert row_lse(rows[:1], columns, None, bias=bias, backend="cuda").lse.isnan().all()


def test_no_wait_for_the_device() -> None:
    rows, columns, labels, _ = make(300, 5000, 72)
    labels[::3] = -100
    expected = linear_nll(rows, columns, labels, backend="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        nll = linear_nll(rows, columns, labels, backend="cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(nll, expected)


def test_refused() -> None:
    rows, columns, labels, _ = make(4, 7, 8)
    with pytest.raises(ValueError, match="takes bfloat16"):
        linear_nll(rows.half(), columns.half(), labels, backend="cuda")
    with pytest.raises(ValueError, match="no entropy"):
        linear_nll_stats(rows, columns, labels, backend="cuda")
    with pytest.raises(ValueError, match="at least one element"):
        linear_nll(rows[:, :0], columns[:, :0], labels, backend="cuda")
    with pytest.raises(RuntimeError, match="no derivative"):
        linear_nll(rows.clone().requires_grad_(), columns, labels, backend="cuda")
    with pytest.raises(RuntimeError, match="no derivative"):
        torch.func.jvp(lambda x: linear_nll(x, columns, labels, backend="cuda"), (rows,), (rows,))
