"""row_lse against float64: small tiles in Triton's interpreter, real ones on a GPU."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from codeact.kernels.row_lse import row_lse

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
INF, NAN = float("inf"), float("nan")
ATOL = 2e-5  # of logits up to 30: a few units in the last place of float32


def make_inputs(num_rows, num_columns, dim, dtype, device, *, std=4.0):
    generator = torch.Generator().manual_seed(num_columns)
    rows = torch.randn(num_rows, dim, generator=generator) * std * dim**-0.5
    columns = torch.randn(num_columns, dim, generator=generator)
    labels = torch.randint(num_columns, (num_rows,), generator=generator)
    return rows.to(device, dtype), columns.to(device, dtype), labels.to(device)


def logits64(rows, columns, bias=None, scale=1.0, softcap=None, temperature=1.0):
    logits = scale * (rows.double() @ columns.double().T)
    if bias is not None:
        logits = logits + bias.double()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits / temperature


def assert_is_truth(result, logits, labels, *, atol=ATOL):
    lse, label_logits, expected = result
    assert lse.dtype == label_logits.dtype == torch.float32
    torch.testing.assert_close(lse.double(), logits.logsumexp(1), rtol=1e-6, atol=atol)
    label = logits.gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(label_logits.double(), label, rtol=1e-6, atol=atol)
    if expected is not None:
        mean = (logits.softmax(1) * logits).sum(1)
        torch.testing.assert_close(expected.double(), mean, rtol=1e-6, atol=atol)


def plain(rows, columns, labels, bias=None, *, skip=None, **forced):
    return row_lse(rows, columns, labels, bias, 1.0, None, 1.0, skip, False, **forced)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("num_rows", "dim", "num_columns"),
    [(1, 8, 1), (31, 72, 2), (33, 96, 63), (32, 8, 64), (31, 96, 65), (77, 72, 301)],
)
def test_matches_float64(num_rows, dim, num_columns, dtype, device):
    rows, columns, labels = make_inputs(num_rows, num_columns, dim, dtype, device)
    assert_is_truth(plain(rows, columns, labels), logits64(rows, columns), labels)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tma", [False, True], ids=["pointers", "descriptors"])
def test_all_options_at_once(dtype, tma, device):
    if tma and device.type == "cuda" and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("needs a device with TMA")
    rows, columns, labels = make_inputs(33, 201, 72, dtype, device)
    bias = torch.linspace(-3, 3, 201, device=device).to(dtype)
    options = {"scale": 0.7, "softcap": 9.0, "temperature": 1.3}
    result = row_lse(rows, columns, labels, bias, *options.values(), None, True, tma=tma)
    assert_is_truth(result, logits64(rows, columns, bias, **options), labels)


@pytest.mark.parametrize("num_splits", range(1, 8))
def test_any_number_of_splits(num_splits, device):
    """Five tiles in the interpreter, so that six and seven splits leave some empty."""
    rows, columns, labels = make_inputs(9, 301, 16, torch.float32, device)
    result = row_lse(rows, columns, labels, None, 1.0, None, 1.0, None, True, num_splits=num_splits)
    assert_is_truth(result, logits64(rows, columns), labels)


def test_labels_at_the_edges_of_tiles(device):
    labels = torch.tensor([0, 63, 64, 127, 128, 255, 256, 300], device=device)
    rows, columns, _ = make_inputs(len(labels), 301, 16, torch.float32, device)
    assert_is_truth(plain(rows, columns, labels), logits64(rows, columns), labels)


def test_a_label_that_is_no_column_has_no_logit(device):
    rows, columns, _ = make_inputs(4, 65, 16, torch.float32, device)
    labels = torch.tensor([-1, 65, 2**40, 64], device=device)
    lse, label_logits, _ = plain(rows, columns, labels)
    assert label_logits.isnan().tolist() == [True, True, True, False]
    torch.testing.assert_close(lse.double(), logits64(rows, columns).logsumexp(1))


def test_without_labels(device):
    rows, columns, _ = make_inputs(5, 65, 16, torch.float32, device)
    lse, label_logits, expected = plain(rows, columns, None)
    torch.testing.assert_close(lse.double(), logits64(rows, columns).logsumexp(1))
    assert label_logits.isnan().all()
    assert expected is None


def test_zero_rows(device):
    rows, columns, labels = make_inputs(0, 5, 8, torch.float32, device)
    lse, label_logits, expected = row_lse(rows, columns, labels, None, 1.0, None, 1.0, None, True)
    assert lse.shape == label_logits.shape == expected.shape == (0,)


def test_skipped_rows_do_not_change_the_others(device):
    rows, columns, labels = make_inputs(97, 65, 16, torch.float32, device)
    rows[32:96] = NAN  # two whole blocks in the interpreter, which it must not even read
    labels[32:96], labels[5] = -100, -100
    lse, label_logits, _ = plain(rows, columns, labels, skip=-100)
    kept = torch.cat([torch.arange(5), torch.arange(6, 32), torch.tensor([96])]).to(device)
    result = (lse[kept], label_logits[kept], None)
    assert_is_truth(result, logits64(rows, columns)[kept], labels[kept])


def test_every_row_skipped(device):
    rows, columns, labels = make_inputs(40, 65, 16, torch.float32, device)
    rows[:], labels[:] = NAN, 7
    lse, _, _ = plain(rows, columns, labels, skip=7)
    assert not lse.isnan().any(), "a row that is left out is not multiplied"


@pytest.mark.parametrize("column", [3, 299])
def test_huge_logits(column, device):
    """One logit of 1e4 is the whole sum; equal logits of 1e4 give log(num_columns) exactly."""
    rows, columns = torch.ones(2, 1, device=device), torch.zeros(301, 1, device=device)
    columns[column] = 1e4
    labels = torch.tensor([column, 0], device=device)
    lse, label_logits, _ = plain(rows, columns, labels)
    assert lse.tolist() == [1e4, 1e4]
    assert label_logits.tolist() == [1e4, 0.0]
    lse, label_logits, _ = plain(rows, torch.full_like(columns, -1e4), labels)
    assert (lse - label_logits).tolist() == pytest.approx([5.707110264748875] * 2, abs=1e-3)


def test_minus_infinity_is_a_probability_of_zero(device):
    rows, columns, labels = make_inputs(3, 301, 16, torch.float32, device)
    bias = torch.full((301,), -INF, device=device)
    bias[[7, 200]] = 0.0  # the third tile of the interpreter holds nothing
    labels[:] = torch.tensor([7, 200, 8])
    lse, label_logits, expected = row_lse(
        rows, columns, labels, bias, 1.0, None, 1.0, None, True, num_splits=4
    )
    kept = logits64(rows, columns)[:, [7, 200]]
    torch.testing.assert_close(lse.double(), kept.logsumexp(1), rtol=1e-6, atol=ATOL)
    mean = (kept.softmax(1) * kept).sum(1)
    torch.testing.assert_close(expected.double(), mean, rtol=1e-6, atol=ATOL)
    assert label_logits[2].item() == -INF
    nothing, _, _ = plain(rows, columns, labels, torch.full_like(bias, -INF))
    assert nothing.tolist() == [-INF] * 3


@pytest.mark.parametrize("value", [INF, NAN])
def test_a_broken_logit_is_not_hidden(value, device):
    rows, columns, labels = make_inputs(2, 301, 16, torch.float32, device)
    rows[1, 0] = value
    columns[:, 0] = 1.0
    lse, _, _ = plain(rows, columns, labels)
    assert lse.isnan().tolist() == [False, True]


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_operands_that_no_16_byte_load_can_read(dtype, device):
    """Odd distances between rows, an odd address, columns of a transposed matrix."""
    rows, columns, labels = make_inputs(9, 65, 33, dtype, device)
    wide = torch.full((9, 37), NAN, dtype=dtype, device=device)
    wide[:, 3:36] = rows
    result = plain(wide[:, 3:36], columns.T.contiguous().T, labels)
    assert_is_truth(result, logits64(rows, columns), labels)


def test_same_bits_every_time(device):
    rows, columns, labels = make_inputs(40, 301, 72, torch.float16, device)
    first, second = (plain(rows, columns, labels, num_splits=3) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


@pytest.mark.gpu  # the products of the interpreter are NumPy's, which depend on the row's place
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_bits_whatever_the_order_of_the_rows(dtype, device):
    rows, columns, labels = make_inputs(777, 30_001, 576, dtype, device)
    order = torch.randperm(777, generator=torch.Generator().manual_seed(0)).to(device)
    lse, label_logits, _ = plain(rows, columns, labels)
    moved_lse, moved_label_logits, _ = plain(rows[order], columns, labels[order])
    assert torch.equal(lse[order], moved_lse)
    assert torch.equal(label_logits[order], moved_label_logits)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("num_rows", "dim", "num_columns"),
    [
        (300, 768, 50_257),  # GPT-2
        (257, 896, 151_936),  # Qwen2.5-0.5B
        (128, 2304, 256_000),  # Gemma 2 2B: 5.9e8 elements of columns
        (129, 4096, 128_256),  # Llama 3 8B
    ],
)
def test_real_shapes(num_rows, dim, num_columns, device):
    rows, columns, labels = make_inputs(num_rows, num_columns, dim, torch.bfloat16, device)
    result = row_lse(rows, columns, labels, None, 1.0, None, 1.0, None, True)
    assert_is_truth(result, logits64(rows, columns), labels, atol=1e-4)


@pytest.mark.gpu
def test_more_products_than_int32_counts(device):
    """The last row of 20000 x 131072 products must be as good as the first."""
    rows, columns, labels = make_inputs(20_000, 131_072, 64, torch.bfloat16, device)
    lse, label_logits, _ = plain(rows, columns, labels)
    ends = torch.tensor([0, 19_999], device=device)
    result = (lse[ends], label_logits[ends], None)
    assert_is_truth(result, logits64(rows[ends], columns), labels[ends], atol=1e-4)


@pytest.mark.gpu
def test_columns_beyond_int32_bytes(device):
    """Offsets of the pointer path: 2**31 elements of columns."""
    rows = torch.ones(1, 16_384, dtype=torch.float16, device=device)
    columns = torch.zeros(131_073, 16_384, dtype=torch.float16, device=device)
    columns[-1] = 2**-10
    labels = torch.tensor([131_072], device=device)
    _, label_logits, _ = plain(rows, columns, labels, tma=False)
    assert label_logits.item() == 16.0
