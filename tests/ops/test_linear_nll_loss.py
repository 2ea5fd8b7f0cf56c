"""The reduced loss: values, gradients made with it, tangents, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codeact.ops.linear_nll import linear_nll, linear_nll_reference
from codeact.ops.linear_nll_loss import linear_nll_loss

FUSED = ["cpu", "triton"]
BACKENDS = [*FUSED, "reference"]
SLACK = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
OPTIONS: dict[str, Any] = {"softcap": 3.0, "logit_scale": 1.5, "temperature": 0.7}


def make_inputs(
    num_tokens: int, dim: int, vocab_size: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, weight, bias, targets with ignored ones, and weights with zeros."""
    generator = torch.Generator().manual_seed(num_tokens + vocab_size)
    hidden_states = torch.randn(num_tokens, dim, generator=generator).to(device, dtype)
    weight = (torch.randn(vocab_size, dim, generator=generator) / dim**0.5).to(device, dtype)
    bias = torch.randn(vocab_size, generator=generator).to(device, dtype)
    targets = torch.randint(0, vocab_size, (num_tokens,), generator=generator)
    token_weights = torch.randn(num_tokens, generator=generator)
    targets[1::4], token_weights[2::4] = -100, 0.0
    return hidden_states, weight, bias, targets.to(device), token_weights.to(device)


def definition(
    x: Tensor, w: Tensor, b: Tensor, targets: Tensor, weights: Tensor, reduction: str
) -> Tensor:
    nll = linear_nll_reference(x, w, targets, b, 3.0, logit_scale=1.5, temperature=0.7)
    weights = weights.to(nll.dtype) * (targets != -100)
    return (weights * nll).sum() / (weights.sum() if reduction == "mean" else 1.0)


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def assert_near(found: Tensor, truth: Tensor, slack: float) -> None:
    """Within ``slack`` of the largest true value."""
    error = (found.double() - truth).abs().max()
    assert error <= slack * truth.abs().max(), f"{error / truth.abs().max():.2e}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", SLACK, ids=str)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_matches_float64(
    backend: str, dtype: torch.dtype, reduction: str, device: torch.device
) -> None:
    x, w, b, targets, weights = make_inputs(37, 24, 131, dtype, device)
    doubles = [tensor.double().requires_grad_() for tensor in (x, w, b)]
    true_loss = definition(*doubles, targets, weights, reduction)
    truth = torch.autograd.grad(2.5 * true_loss, doubles)
    inputs = leaves(x, w, b)
    loss = linear_nll_loss(
        *inputs[:2],
        targets,
        token_weights=weights,
        reduction=reduction,
        bias=inputs[2],
        **OPTIONS,
        workspace_bytes=20 * 131 * 4,
        backend=backend,
    )
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    torch.testing.assert_close(loss.double(), true_loss, rtol=2e-6, atol=1e-5)
    for gradient, true in zip(torch.autograd.grad(2.5 * loss, inputs), truth, strict=True):
        assert gradient.dtype == dtype
        assert_near(gradient, true, SLACK[dtype])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_without_weights_every_scored_token_counts_once(
    backend: str, reduction: str, device: torch.device
) -> None:
    x, w, _, targets, _ = make_inputs(9, 8, 31, torch.float32, device)
    truth = nn.functional.cross_entropy(x.double() @ w.double().T, targets, reduction=reduction)
    for tensor in (x, *leaves(x)):  # without and with a gradient
        loss = linear_nll_loss(tensor, w, targets, reduction=reduction, backend=backend)
        torch.testing.assert_close(loss.double(), truth, rtol=1e-6, atol=1e-6)


def test_gradcheck_of_the_definition() -> None:
    x, w, b, targets, weights = make_inputs(5, 2, 4, torch.float64, torch.device("cpu"))

    def loss(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return linear_nll_loss(
            x, w, targets, bias=b, token_weights=weights, reduction="mean", **OPTIONS
        )

    inputs = leaves(x, w, b)
    assert torch.autograd.gradcheck(loss, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(loss, inputs, fast_mode=True)
    expected = definition(x, w, b, targets, weights, "mean")
    torch.testing.assert_close(loss(x, w, b), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", FUSED)
def test_equals_the_gradient_made_in_the_backward_pass(backend: str, device: torch.device) -> None:
    x, w, b, targets, weights = make_inputs(29, 16, 65, torch.float32, device)
    at_once, later = leaves(x, w, b), leaves(x, w, b)
    linear_nll_loss(
        *at_once[:2], targets, bias=at_once[2], token_weights=weights, **OPTIONS, backend=backend
    ).backward()
    nll = linear_nll(*later[:2], targets, bias=later[2], **OPTIONS, backend=backend)
    nll.backward(weights)
    for one, other in zip(at_once, later, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", FUSED)
def test_tied_weight_and_two_backward_passes(backend: str, device: torch.device) -> None:
    _, w, _, targets, _ = make_inputs(9, 8, 31, torch.float32, device)
    ids = torch.arange(9, device=device)

    def gradient(loss_of: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> Tensor:
        table = w.detach().to(dtype).requires_grad_()
        loss = loss_of(nn.functional.embedding(ids, table), table)
        loss.backward(retain_graph=True)
        loss.backward()
        assert table.grad is not None
        return table.grad

    truth = gradient(lambda x, t: linear_nll_reference(x, t, targets).sum(), torch.float64)
    found = gradient(lambda x, t: linear_nll_loss(x, t, targets, backend=backend), torch.float32)
    assert_near(found, truth, 2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ["ignored", "weightless", "no-rows"])
def test_mean_of_nothing_is_zero(backend: str, case: str, device: torch.device) -> None:
    x, w, _, targets, weights = make_inputs(3, 8, 31, torch.float32, device)
    if case == "ignored":
        targets[:] = -100
    if case == "no-rows":
        x, targets, weights = x[:0], targets[:0], weights[:0]
    weights = weights * (case != "weightless")
    x, w = leaves(x, w)
    loss = linear_nll_loss(x, w, targets, token_weights=weights, reduction="mean", backend=backend)
    loss.backward()
    assert loss == 0
    for tensor in (x, w):
        assert tensor.grad is not None
        assert (tensor.grad == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_weight_of_zero_leaves_out_an_infinite_loss(backend: str, device: torch.device) -> None:
    x, w, b, targets, _ = make_inputs(4, 8, 31, torch.float32, device)
    targets[:] = torch.tensor([3, 4, 5, 6])
    b[4] = float("-inf")
    x.requires_grad_()
    weights = torch.tensor([1.0, 0.0, 1.0, 1.0], device=device)
    loss = linear_nll_loss(x, w, targets, bias=b, token_weights=weights, backend=backend)
    loss.backward()
    kept = torch.tensor([0, 2, 3], device=device)
    expected = linear_nll_reference(x.detach()[kept], w, targets[kept], b).sum()
    torch.testing.assert_close(loss.detach(), expected)
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad[1] == 0).all()


@pytest.mark.parametrize("backend", FUSED)
def test_loss_scale_saves_float16_gradients(backend: str, device: torch.device) -> None:
    x, w, b, targets, weights = make_inputs(37, 24, 131, torch.float16, device)
    weights = weights * 1e-5  # far below what a float16 gradient could hold unscaled
    doubles = [tensor.double().requires_grad_() for tensor in (x, w, b)]
    truth = torch.autograd.grad(definition(*doubles, targets, weights, "sum") * 65536, doubles)
    inputs = leaves(x, w, b)
    loss = linear_nll_loss(
        *inputs[:2], targets, bias=inputs[2], token_weights=weights, **OPTIONS, backend=backend
    )
    for gradient, true in zip(torch.autograd.grad(loss * 65536, inputs), truth, strict=True):
        assert_near(gradient, true, 1e-3)


@pytest.mark.parametrize("backend", FUSED)
@pytest.mark.parametrize("with_gradient", [True, False])
def test_tangent(backend: str, with_gradient: bool, device: torch.device) -> None:
    x, w, b, targets, weights = make_inputs(29, 16, 65, torch.float32, device)
    tangents = tuple(torch.randn_like(tensor) for tensor in (x, w, b))

    def along(backend: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        def loss(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
            return linear_nll_loss(
                x,
                w,
                targets,
                bias=b,
                token_weights=weights,
                reduction="mean",
                **OPTIONS,
                backend=backend,
            )

        inputs = tuple(t.to(dtype).requires_grad_(with_gradient) for t in (x, w, b))
        return torch.func.jvp(loss, inputs, tuple(t.to(dtype) for t in tangents))

    for found, true in zip(
        along(backend, torch.float32), along("auto", torch.float64), strict=True
    ):
        torch.testing.assert_close(found.double(), true, rtol=1e-5, atol=1e-5)
        assert true.abs() > 1e-3


@pytest.mark.parametrize("backend", FUSED)
def test_functional_gradient(backend: str, device: torch.device) -> None:
    x, w, _, targets, _ = make_inputs(9, 8, 31, torch.float32, device)
    truth = torch.func.grad(lambda w: linear_nll_loss(x.double(), w, targets))(w.double())
    found = torch.func.grad(lambda w: linear_nll_loss(x, w, targets, backend=backend))(w)
    assert_near(found, truth, 2e-6)


def test_compiled_code_gives_right_derivatives(device: torch.device) -> None:
    x, w, _, targets, _ = make_inputs(9, 8, 31, torch.float32, device)
    tangent = torch.randn_like(w)

    def loss(w: Tensor) -> Tensor:
        return linear_nll_loss(x, w * 1.0, targets)

    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="eager")
    _, expected = torch.func.jvp(
        lambda w: linear_nll_loss(x.double(), w, targets), (w.double(),), (tangent.double(),)
    )
    for run in (
        lambda: torch.func.jvp(compiled, (w,), (tangent,)),
        torch.compile(lambda: torch.func.jvp(loss, (w,), (tangent,)), backend="eager"),
    ):
        torch.testing.assert_close(run()[1].double(), expected, rtol=1e-5, atol=1e-5)
    leaf = w.clone().requires_grad_()
    compiled(leaf).backward()
    assert leaf.grad is not None
    truth = torch.func.grad(lambda w: linear_nll_loss(x.double(), w, targets))(w.double())
    assert_near(leaf.grad, truth, 2e-6)


@pytest.mark.parametrize("backend", FUSED)
def test_second_derivative_is_refused(backend: str, device: torch.device) -> None:
    x, w, _, targets, _ = make_inputs(9, 8, 31, torch.float32, device)
    (w,) = leaves(w)
    loss = linear_nll_loss(x, w, targets, backend=backend)
    (gradient,) = torch.autograd.grad(loss, [w], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        (loss + gradient.norm()).backward()  # a gradient penalty that would have no gradient
    with pytest.raises(RuntimeError):
        torch.autograd.grad(loss, [w], torch.ones(2, device=device), is_grads_batched=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reduction": "none"}, "reduction must be"),
        ({"token_weights": torch.ones(4)}, "token_weights"),
        ({"token_weights": torch.ones(3, requires_grad=True)}, "constants"),
        ({"temperature": 0.0}, "temperature"),
        ({"bias": torch.zeros(3)}, "bias"),
    ],
    ids=["reduction", "weights-shape", "weights-gradient", "temperature", "bias"],
)
def test_refused(change: dict[str, Any], message: str) -> None:
    x, w, _, targets, _ = make_inputs(3, 8, 31, torch.float32, torch.device("cpu"))
    with pytest.raises(ValueError, match=message):
        linear_nll_loss(x.requires_grad_(), w, targets, **change)
