"""Gradients and tangents of the losses, right or refused, in every mode of PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from linear_nll_inputs import OPTIONS, SLACK, derivative_inputs, make_inputs
from torch.autograd import forward_ad

from codeact.ops import (
    linear_nll,
    linear_nll_loss,
    linear_nll_reference,
    linear_nll_stats,
    row_lse_tangent,
    row_max,
)


@pytest.fixture(params=["auto", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_gradients_match_float64(
    backend: str, options: dict[str, Any], device: torch.device
) -> None:
    x, w, targets, bias = derivative_inputs(device)
    upstream = torch.randn(37, generator=torch.Generator().manual_seed(2)).to(device)
    upstream[3] = 0
    given = [tensor.clone().requires_grad_() for tensor in (x, w, bias)]
    nll = linear_nll(given[0], given[1], targets, bias=given[2], backend=backend, **options)
    found = torch.autograd.grad(nll, given, upstream)
    given = [tensor.double().requires_grad_() for tensor in (x, w, bias)]
    nll = linear_nll_reference(given[0], given[1], targets, given[2], **options)
    for value, true in zip(found, torch.autograd.grad(nll, given, upstream.double()), strict=True):
        assert (value - true).abs().max() <= 1e-5 * true.abs().max()


@pytest.mark.parametrize("dtype", SLACK, ids=str)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 1, 2)], ids=["x", "w", "bias", "all"])
def test_tangents_match_float64(
    backend: str,
    dtype: torch.dtype,
    options: dict[str, Any],
    which: tuple[int, ...],
    device: torch.device,
) -> None:
    x, w, targets, bias = derivative_inputs(device, dtype)
    generator = torch.Generator().manual_seed(3)
    along = [torch.randn(t.shape, generator=generator).to(t) for t in (x, w, bias)]

    def tangent(function: Any, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        def of(*moved: torch.Tensor) -> torch.Tensor:
            full = list(inputs)
            for index, tensor in zip(which, moved, strict=True):
                full[index] = tensor
            return function(*full)

        primals = tuple(inputs[index] for index in which)
        return torch.func.jvp(of, primals, tuple(along[index].to(inputs[0]) for index in which))

    nll, found = tangent(
        lambda x, w, b: linear_nll(x, w, targets, bias=b, backend=backend, **options), [x, w, bias]
    )
    _, truth = tangent(
        lambda x, w, b: linear_nll_reference(x, w, targets, b, **options),
        [x.double(), w.double(), bias.double()],
    )
    assert found.dtype == torch.float32
    assert (found - truth).abs().max() <= 1e-5 * truth.abs().max()
    assert (found[::5] == 0).all()
    assert torch.equal(nll, linear_nll(x, w, targets, bias=bias, backend=backend, **options))


def test_triton_has_value_gradient_and_tangent(device: torch.device) -> None:
    pytest.importorskip("triton")
    x, w, targets, bias = make_inputs(37, 12, 70, torch.float32, device)
    targets[::5] = -100
    options: dict[str, Any] = {"bias": bias, **OPTIONS["scaled-capped-warm"]}

    def all_of(backend: str) -> list[torch.Tensor]:
        def nll(x: torch.Tensor) -> torch.Tensor:
            return linear_nll(x, w, targets, backend=backend, **options)  # type: ignore[arg-type]

        leaf = x.clone().requires_grad_()
        nll(leaf).sum().backward()
        stats = linear_nll_stats(x, w, targets, backend=backend, **options)  # type: ignore[arg-type]
        return [*stats, *torch.func.jvp(nll, (x,), (w[:37],)), leaf.grad]

    for value, true in zip(all_of("triton"), all_of("reference"), strict=True):
        assert (value - true).abs().max() <= 1e-5 * max(1, true.abs().max())


def test_dual_numbers_and_gradients_at_once(backend: str, device: torch.device) -> None:
    x, w, targets, _ = derivative_inputs(device)
    _, truth = torch.func.jvp(lambda x: linear_nll_reference(x, w, targets), (x,), (x,))
    leaf = x.clone().requires_grad_()
    with forward_ad.dual_level():
        nll = linear_nll(forward_ad.make_dual(leaf, x), w, targets, backend=backend)
        primal, tangent = forward_ad.unpack_dual(nll)
        assert (tangent - truth).abs().max() <= 1e-5
    primal.sum().backward()  # outside, for the gradient would have a tangent too
    plain = x.clone().requires_grad_()
    linear_nll_reference(plain, w, targets).sum().backward()
    assert (leaf.grad - plain.grad).abs().max() <= 1e-5


def test_reference_derivatives_in_float64(device: torch.device) -> None:
    x, w, targets, bias = make_inputs(4, 5, 9, torch.float64, device)
    inputs = [tensor.requires_grad_() for tensor in (x, w, bias)]

    def nll(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        options = OPTIONS["scaled-capped-warm"]
        return linear_nll(x, w, targets, bias=bias, **options)

    assert torch.autograd.gradcheck(nll, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(nll, inputs)


STREAMED = ["cpu" if not torch.cuda.is_available() else "triton"]


@pytest.mark.parametrize("backend", STREAMED)
def test_second_derivatives_are_refused(backend: str, device: torch.device) -> None:
    x, w, targets, _ = derivative_inputs(device)
    f = torch.func

    def nll(x: torch.Tensor) -> torch.Tensor:
        return linear_nll(x, w, targets, backend=backend)

    def slope(x: torch.Tensor) -> torch.Tensor:
        return f.grad(lambda x: nll(x).sum())(x)

    def along(x: torch.Tensor) -> torch.Tensor:
        return f.jvp(nll, (x,), (torch.ones_like(x),))[1]

    for derive in (
        lambda: f.grad(lambda x: slope(x).sum())(x),
        lambda: f.jvp(slope, (x,), (x,)),
        lambda: f.grad(lambda x: along(x).sum())(x),
        lambda: f.jvp(along, (x,), (x,)),
    ):
        with pytest.raises(RuntimeError, match="differentiable once"):
            derive()
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nll(leaf).sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        gradient.sum().backward()
    with pytest.raises(RuntimeError, match="vmap"):
        f.vmap(lambda x: linear_nll(x[None], w, targets[:1], backend=backend))(x)
    leaf = x.clone().requires_grad_()
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(nll(forward_ad.make_dual(leaf, x))).tangent
        with pytest.raises(RuntimeError, match="differentiable once"):
            tangent.sum().backward()


@pytest.mark.parametrize("backend", STREAMED)
def test_compiled_derivatives_are_right(backend: str, device: torch.device) -> None:
    x, w, targets, _ = derivative_inputs(device)
    truth_nll, truth = torch.func.jvp(
        lambda x: linear_nll_reference(2 * x, w, targets) + 1, (x,), (x,)
    )

    def nll(x: torch.Tensor) -> torch.Tensor:
        return linear_nll(2 * x, w, targets, backend=backend) + 1

    def both(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.func.jvp(nll, (x,), (x,))

    def dual(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with forward_ad.dual_level():
            found = forward_ad.unpack_dual(compiled(forward_ad.make_dual(x, x)))
            return found.primal, found.tangent

    compiled = torch.compile(nll, backend="aot_eager")
    for found in (
        torch.compile(both, backend="aot_eager")(x),
        torch.func.jvp(compiled, (x,), (x,)),
        dual(x),
    ):
        assert (found[0] - truth_nll).abs().max() <= 1e-5
        assert (found[1] - truth).abs().max() <= 1e-4
    leaf, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
    compiled(leaf).sum().backward()
    linear_nll_reference(2 * plain, w, targets).sum().backward()
    assert (leaf.grad - plain.grad).abs().max() <= 1e-5
    torch._dynamo.reset()


def test_a_kernel_without_derivatives_is_not_asked_for_one(device: torch.device) -> None:
    x, w, targets, _ = derivative_inputs(device)
    for call in (
        lambda: linear_nll_loss(x.clone().requires_grad_(), w, targets, backend="cuda"),
        lambda: row_max(x, w, backend="cuda"),
        lambda: row_lse_tangent(x, w, targets, x, None, backend="cuda"),
    ):
        with pytest.raises(ValueError, match="'cuda' has no gradient, tangent or maximum"):
            call()


def test_stats_refuse_derivatives(device: torch.device) -> None:
    x, w, targets, _ = derivative_inputs(device)
    with pytest.raises(RuntimeError, match="no derivative"):
        linear_nll_stats(x.requires_grad_(), w, targets)
    with pytest.raises(RuntimeError, match="no derivative"):
        torch.func.jvp(lambda w: linear_nll_stats(x.detach(), w, targets).nll, (w,), (w,))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", ["auto", "triton"])
def test_defaults_of_the_caller_do_not_matter(
    backend: Any, dtype: torch.dtype, device: torch.device
) -> None:
    """C++ and Triton write float32, on the inputs' device, whatever PyTorch's defaults are."""
    if backend == "triton":
        pytest.importorskip("triton")
    x, w, targets, bias = make_inputs(9, 12, 70, torch.float32, device)

    def all_of() -> list[torch.Tensor]:
        leaf = x.clone().requires_grad_()
        nll = linear_nll(leaf, w, targets, bias=bias, backend=backend)
        nll.sum().backward()
        moved = torch.func.jvp(
            lambda x: linear_nll(x, w, targets, bias=bias, backend=backend), (x,), (x,)
        )
        best = row_max(x, w, bias=bias, backend=backend).values
        stats = linear_nll_stats(x, w, targets, backend=backend)
        return [nll.detach(), *moved, best, *stats, leaf.grad]  # type: ignore[list-item]

    expected = all_of()
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            found = all_of()
    finally:
        torch.set_default_dtype(before)
    for value, true in zip(found, expected, strict=True):
        assert value.dtype == torch.float32
        assert torch.equal(value, true)
