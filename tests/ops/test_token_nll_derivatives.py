"""The gradient and the tangent of token_nll, each right or refused."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from codeact.ops import token_nll
from codeact.ops._backend import has_triton

EPS = {torch.float32: 1e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}  # of a gradient's size

needs_triton = pytest.mark.skipif(not has_triton(), reason="Triton is not installed")
BACKENDS = [
    "reference",
    pytest.param("cpu", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="for CPUs")),
    pytest.param("triton", marks=needs_triton),
    pytest.param("cuda", marks=pytest.mark.gpu),
]


def make_inputs(*, dtype, device, vocab_size=301):
    """Logits, targets and upstream gradients with zeros, signs and an ignored row in them."""
    generator = torch.Generator().manual_seed(vocab_size)
    logits = 4.0 * torch.randn(9, vocab_size, generator=generator)
    targets = torch.randint(vocab_size, (9,), generator=generator)
    targets[::3] = -100
    upstream = torch.tensor([1.0, -2.5, 0.0, 3.0, 1e-3, -1.0, 7.0, 1.0, 0.25], device=device)
    return logits.to(device, dtype), targets.to(device), upstream


def true_gradient(logits, targets, upstream):
    logits = logits.double().requires_grad_()
    nll = F.cross_entropy(logits, targets, reduction="none")
    return torch.autograd.grad(nll, logits, upstream.double())[0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", EPS, ids=str)
@pytest.mark.parametrize("vocab_size", [1, 2, 65, 301])
def test_gradient_matches_float64(backend, dtype, vocab_size, device):
    logits, targets, upstream = make_inputs(dtype=dtype, device=device, vocab_size=vocab_size)
    truth = true_gradient(logits, targets, upstream)
    logits.requires_grad_()
    nll = token_nll(logits, targets, backend=backend)
    (gradient,) = torch.autograd.grad(nll, logits, upstream)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient.double(), truth, rtol=EPS[dtype], atol=1e-6)
    assert gradient[targets == -100].abs().max().item() == 0.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_of_rows_at_any_stride(backend, device):
    logits, targets, upstream = make_inputs(dtype=torch.float32, device=device)
    truth = true_gradient(logits, targets, upstream).float()
    wide = torch.zeros(9, 307, device=device)
    wide[:, :301] = logits
    for leaf, view in ((wide, lambda x: x[:, :301]), (logits.T.contiguous(), lambda x: x.T)):
        leaf.requires_grad_()
        (token_nll(view(leaf), targets, backend=backend) * upstream).sum().backward()
        torch.testing.assert_close(view(leaf.grad), truth, rtol=1e-5, atol=1e-6)


def test_gradient_of_a_nearly_certain_label():
    """p - 1 where p is nearly 1: as a difference of float32 numbers it would be 0."""
    logits = torch.tensor([[18.0, 0.0, 0.0]], requires_grad=True)
    token_nll(logits, torch.tensor([0]), backend="cpu").backward()
    assert logits.grad[0, 0].item() == pytest.approx(-2 * math.exp(-18), rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_tangent_matches_float64(backend, dtype, device):
    logits, targets, _ = make_inputs(dtype=dtype, device=device)
    along = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(logits)
    truth = (true_gradient(logits, targets, torch.ones(9, device=device)) * along).sum(1)
    nll, tangent = torch.func.jvp(
        lambda x: token_nll(x, targets, backend=backend), (logits,), (along,)
    )
    torch.testing.assert_close(nll, token_nll(logits, targets, backend=backend), rtol=0, atol=0)
    torch.testing.assert_close(tangent.double(), truth, rtol=1e-5, atol=2e-6)
    with forward_ad.dual_level():
        dual = token_nll(forward_ad.make_dual(logits, along), targets, backend=backend)
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, tangent)


@pytest.mark.parametrize("backend", BACKENDS)
def test_derivatives_of_broken_and_of_ignored_rows(backend, device):
    logits = torch.zeros(4, 5, device=device)
    logits[0], logits[2, 1] = float("nan"), float("nan")
    targets = torch.tensor([-100, 5, 3, 3], device=device)
    logits.requires_grad_()
    token_nll(logits, targets, backend=backend).sum().backward()
    assert logits.grad.isnan().all(1).tolist() == [False, True, True, False]
    assert logits.grad[0].tolist() == [0.0] * 5
    torch.testing.assert_close(logits.grad[3].cpu(), torch.tensor([0.2, 0.2, 0.2, -0.8, 0.2]))
    tangent = torch.func.jvp(
        lambda x: token_nll(x, targets, backend=backend),
        (logits.detach(),),
        (torch.ones_like(logits),),
    )[1]
    assert tangent.isnan().tolist() == [False, True, True, False]
    assert tangent[0].item() == 0.0
    assert tangent[3].item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_a_second_derivative_is_refused_not_dropped(backend, device):
    logits, targets, upstream = make_inputs(dtype=torch.float32, device=device)
    logits.requires_grad_()

    def loss(x):
        return token_nll(x, targets, backend=backend) @ upstream

    (gradient,) = torch.autograd.grad(loss(logits), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        gradient.sum().backward()
    along = (torch.ones_like(logits),)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.func.jvp(torch.func.grad(loss), (logits.detach(),), along)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.func.grad(lambda x: torch.func.jvp(loss, (x,), along)[1])(logits.detach())
    with pytest.raises(RuntimeError, match="vmap"):
        torch.func.vmap(lambda x: token_nll(x, targets, backend=backend))(logits.detach()[None])


def test_the_reference_has_second_derivatives():
    logits, targets, _ = make_inputs(dtype=torch.float32, device="cpu", vocab_size=5)
    logits = logits[1:3].requires_grad_()

    def loss(x):
        return token_nll(x, targets[1:3], backend="reference").sum()

    hessian = torch.func.hessian(loss)(logits)[0, :, 0]
    p = logits[0].softmax(0)
    torch.testing.assert_close(hessian, torch.diag(p) - p[:, None] * p)


def test_a_compiled_tangent_is_not_dropped():
    """Dynamo inlines an autograd.Function and loses its jvp: silent zeros (pytorch#192985)."""
    logits, targets, _ = make_inputs(dtype=torch.float32, device="cpu")
    along = torch.ones_like(logits).cumsum(1)

    def loss(x):
        return token_nll(x, targets, backend="cpu")

    def tangent(function):
        return torch.func.jvp(function, (logits,), (along,))[1]

    eager = tangent(loss)
    assert eager.abs().max() > 1
    assert torch.equal(tangent(torch.compile(loss, backend="eager")), eager)
    assert torch.equal(torch.compile(lambda: tangent(loss), backend="eager")(), eager)
