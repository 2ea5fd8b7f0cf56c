"""segment_sums and segment_means against a loop over the segments in float64."""

from __future__ import annotations

import pytest
import torch

from codeact.ops._backend import has_triton
from codeact.ops.segments import segment_means, segment_sums, segment_sums_reference

needs_triton = pytest.mark.skipif(not has_triton(), reason="Triton is not installed")
BACKENDS = ["reference", pytest.param("triton", marks=needs_triton)]
# Empty at both ends and in the middle, longer than two blocks of the kernel, of one value.
OFFSETS = [3, 3, 10, 10, 610, 611, 700, 700]


def make_inputs(device, dtype=torch.float32, offsets=OFFSETS):
    values = torch.randn(705, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    return values, torch.tensor(offsets, device=device)


def loop(values, offsets):
    bounds = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    return torch.stack([values[start:end].double().sum() for start, end in bounds])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str
)
def test_matches_a_loop(backend, index_dtype, dtype, device):
    values, offsets = make_inputs(device, dtype)
    sums = segment_sums(values, offsets.to(index_dtype), backend=backend)
    assert sums.dtype == torch.float64
    torch.testing.assert_close(sums, loop(values, offsets), rtol=1e-14, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_means_of_empty_segments_are_nan(backend, device):
    values, offsets = make_inputs(device)
    means = segment_means(values, offsets, backend=backend)
    expected = loop(values, offsets) / torch.tensor([0, 7, 0, 600, 1, 89, 0], device=device)
    torch.testing.assert_close(means, expected, rtol=1e-14, atol=1e-14, equal_nan=True)
    assert means.isnan().nonzero()[:, 0].tolist() == [0, 2, 6]


@pytest.mark.parametrize("backend", BACKENDS)
def test_float64_keeps_what_float32_would_lose(backend, device):
    values = torch.tensor([1e8, 1.0, -1e8], device=device)
    offsets = torch.tensor([0, 3], device=device)
    assert segment_sums(values, offsets, backend=backend).tolist() == [1.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_outside_of_all_segments_do_not_count(backend, device):
    values, offsets = make_inputs(device)
    values[:3], values[700:] = float("nan"), float("inf")
    values.requires_grad_()
    sums = segment_sums(values, offsets, backend=backend)
    assert sums.isfinite().all()
    (gradient,) = torch.autograd.grad(sums.sum(), values)
    assert gradient.tolist() == [0.0] * 3 + [1.0] * 697 + [0.0] * 5


@pytest.mark.parametrize("backend", BACKENDS)
def test_derivatives_in_both_modes(backend, device):
    offsets = torch.tensor([1, 3, 3, 7], device=device)
    values = torch.randn(8, dtype=torch.float64, device=device, requires_grad=True)

    def total(values):
        return segment_sums(values, offsets, backend=backend) ** 2

    torch.autograd.gradcheck(total, values, check_forward_ad=True)
    torch.autograd.gradgradcheck(total, values)
    _, tangent = torch.func.jvp(total, (values.detach(),), (torch.ones_like(values),))
    sums = segment_sums_reference(values.detach(), offsets)
    torch.testing.assert_close(tangent, 2 * sums * offsets.diff())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gradient_has_the_dtype_of_the_values(backend, device):
    values, offsets = make_inputs(device, torch.bfloat16)
    values.requires_grad_()
    weights = torch.arange(7.0, dtype=torch.float64, device=device)
    (segment_sums(values, offsets, backend=backend) * weights).sum().backward()
    expected = [0.0] * 3 + [1.0] * 7 + [3.0] * 600 + [4.0] + [5.0] * 89 + [0.0] * 5
    assert values.grad.dtype == torch.bfloat16
    assert values.grad.tolist() == expected


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_values_and_no_segment(backend, device):
    values, offsets = make_inputs(device)
    wide = torch.stack([values, -values], dim=1)
    torch.testing.assert_close(
        segment_sums(wide[:, 0], offsets, backend=backend), loop(values, offsets)
    )
    assert segment_sums(values, offsets[:1], backend=backend).shape == (0,)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_caller_keeps_the_tangent(backend, device):
    values, offsets = make_inputs(device)

    @torch.compile(backend="eager")
    def total(values):
        return segment_sums(values, offsets, backend=backend)

    _, tangent = torch.func.jvp(total, (values,), (torch.ones_like(values),))
    assert tangent.tolist() == offsets.diff().tolist()


@pytest.mark.parametrize(
    ("values", "offsets", "message"),
    [
        (torch.ones(2, 2), torch.tensor([0]), r"got \(2, 2\) and \(1,\)"),
        (torch.ones(2), torch.tensor([]).long(), r"got \(2,\) and \(0,\)"),
        (torch.ones(2).long(), torch.tensor([0]), "floating point, got torch.int64"),
        (torch.ones(2), torch.tensor([0.0]), "int32 or int64, got torch.float32"),
        (torch.ones(2), torch.tensor([0], device="meta"), "on cpu like values, got meta"),
    ],
)
def test_bad_input_is_named(values, offsets, message):
    with pytest.raises(ValueError, match=message):
        segment_sums(values, offsets)


@pytest.mark.gpu
def test_same_bits_every_time(device):
    values = torch.randn(2**20, device=device)
    offsets = torch.arange(0, 2**20 + 1, 2**10, device=device)
    assert torch.equal(segment_sums(values, offsets), segment_sums(values, offsets))
