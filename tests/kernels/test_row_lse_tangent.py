"""row_lse_tangent against torch.func.jvp in float64."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from codeact.kernels.row_lse import row_lse
from codeact.kernels.row_lse_tangent import row_lse_tangent

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ATOL = 3e-5  # of tangents up to 20; float32 torch is as far from float64


def make_inputs(num_rows, num_columns, dim, dtype, device):
    """rows, columns, bias, their tangents, labels."""
    generator = torch.Generator().manual_seed(num_columns)

    def normal(*shape, std=1.0):
        return (std * torch.randn(*shape, generator=generator)).to(device, dtype)

    std = 4 * dim**-0.5
    primals = (normal(num_rows, dim, std=std), normal(num_columns, dim), normal(num_columns))
    tangents = (normal(num_rows, dim, std=std), normal(num_columns, dim), normal(num_columns))
    labels = torch.randint(num_columns, (num_rows,), generator=generator)
    return primals, tangents, labels.to(device)


def truth(primals, tangents, labels, scale, softcap, temperature):
    def lse_and_label(rows, columns, bias):
        logits = scale * (rows @ columns.T) + bias
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        logits = logits / temperature
        return logits.logsumexp(1), logits.gather(1, labels[:, None])[:, 0]

    doubles = tuple(tuple(tensor.double() for tensor in group) for group in (primals, tangents))
    (lse, label), (lse_tangent, label_tangent) = torch.func.jvp(lse_and_label, *doubles)
    return lse, label, lse_tangent, label_tangent


def assert_is_truth(
    primals, tangents, labels, scale=1.0, softcap=None, temperature=1.0, *, atol=ATOL, **forced
):
    """``tangents`` (and the bias) may be None; the truth takes zeros for them."""
    pairs = zip(with_bias(primals), tangents, strict=True)
    zeros = [torch.zeros_like(p) if t is None else t for p, t in pairs]
    rows, columns, bias = primals
    result = row_lse_tangent(
        rows, columns, labels, tangents[0], tangents[1], bias, tangents[2],
        scale, softcap, temperature, None, **forced,
    )  # fmt: skip
    expected = truth(with_bias(primals), zeros, labels, scale, softcap, temperature)
    names = ("lse", "label logit", "tangent of lse", "tangent of label logit")
    for name, value, true in zip(names, result, expected, strict=True):
        assert value.dtype == torch.float32
        torch.testing.assert_close(
            value.double(), true, rtol=1e-6, atol=atol, msg=lambda text, name=name: name + text
        )


def with_bias(primals):
    rows, columns, bias = primals
    return rows, columns, columns.new_zeros(len(columns)) if bias is None else bias


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tma", [False, True], ids=["pointers", "descriptors"])
def test_all_options_at_once(dtype, tma, device):
    if tma and device.type == "cuda" and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("needs a device with TMA")
    primals, tangents, labels = make_inputs(33, 201, 72, dtype, device)
    assert_is_truth(primals, tangents, labels, 0.7, 9.0, 1.3, tma=tma)


@pytest.mark.parametrize("moving", range(3), ids=["rows", "columns", "bias"])
def test_one_tangent_alone(moving, device):
    primals, tangents, labels = make_inputs(9, 65, 24, torch.float32, device)
    alone = [tangent if place == moving else None for place, tangent in enumerate(tangents)]
    assert_is_truth(primals, alone, labels)


def test_without_a_bias(device):
    primals, tangents, labels = make_inputs(9, 65, 24, torch.float32, device)
    assert_is_truth((*primals[:2], None), (*tangents[:2], None), labels, softcap=5.0)


@pytest.mark.parametrize("num_splits", range(1, 8))
def test_any_number_of_splits(num_splits, device):
    primals, tangents, labels = make_inputs(5, 301, 8, torch.float32, device)
    assert_is_truth(primals, tangents, labels, softcap=30.0, num_splits=num_splits)


def test_no_tangent_is_a_tangent_of_zero(device):
    (rows, columns, _), _, labels = make_inputs(5, 65, 8, torch.float32, device)
    result = row_lse_tangent(rows, columns, labels, None, None, None, None, 1.0, None, 1.0, None)
    lse, label_logits, _ = row_lse(rows, columns, labels, None, 1.0, None, 1.0, None, False)
    torch.testing.assert_close(result[0], lse, rtol=0, atol=0)
    torch.testing.assert_close(result[1], label_logits, rtol=0, atol=0)
    assert result[2].tolist() == result[3].tolist() == [0.0] * 5


def test_columns_without_weight_have_no_share_in_the_tangent(device):
    (rows, columns, bias), tangents, labels = make_inputs(5, 150, 8, torch.float32, device)
    labels %= 70
    bias[70:] = float("-inf")  # the whole last tile of the interpreter
    kept = slice(0, 70)
    expected = truth(
        (rows, columns[kept], bias[kept]),
        (tangents[0], tangents[1][kept], tangents[2][kept]),
        labels, 1.0, None, 1.0,
    )  # fmt: skip
    result = row_lse_tangent(
        rows, columns, labels, tangents[0], tangents[1], bias, tangents[2], 1.0, None, 1.0, None
    )
    for value, true in zip(result, expected, strict=True):
        torch.testing.assert_close(value.double(), true, rtol=1e-6, atol=ATOL)


def test_skipped_rows_do_not_change_the_others(device):
    (rows, columns, bias), tangents, labels = make_inputs(70, 65, 8, torch.float32, device)
    rows[32:64], labels[32:64] = float("nan"), -100
    result = row_lse_tangent(
        rows, columns, labels, tangents[0], None, bias, None, 1.0, None, 1.0, -100
    )
    kept = torch.cat([torch.arange(32), torch.arange(64, 70)]).to(device)
    expected = truth(
        (rows[kept], columns, bias),
        (tangents[0][kept], torch.zeros_like(columns), torch.zeros_like(bias)),
        labels[kept], 1.0, None, 1.0,
    )  # fmt: skip
    for value, true in zip(result, expected, strict=True):
        torch.testing.assert_close(value[kept].double(), true, rtol=1e-6, atol=ATOL)


def test_a_label_that_is_no_column_and_zero_rows(device):
    (rows, columns, _), tangents, _ = make_inputs(2, 65, 8, torch.float32, device)
    labels = torch.tensor([65, -1], device=device)
    for count in (2, 0):
        result = row_lse_tangent(
            rows[:count], columns, labels[:count], tangents[0][:count], None, None, None,
            1.0, None, 1.0, None,
        )  # fmt: skip
        assert [values.isnan().tolist() for values in result] == [
            [False] * count, [True] * count, [False] * count, [True] * count,
        ]  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dim", "num_columns", "softcap"), [(896, 151_936, None), (2304, 256_000, 30.0)]
)
def test_real_shapes(dim, num_columns, softcap, device):
    primals, tangents, labels = make_inputs(130, num_columns, dim, torch.bfloat16, device)
    small = (tangents[0], tangents[1] * dim**-0.5, None)
    assert_is_truth((*primals[:2], None), small, labels, softcap=softcap, atol=2e-4)
