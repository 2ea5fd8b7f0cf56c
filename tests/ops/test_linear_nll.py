"""Losses from hidden states, no further from float64 than plain PyTorch is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from codeact.ops import (
    linear_nll,
    linear_nll_loss,
    linear_nll_reference,
    linear_nll_stats,
    row_lse_tangent,
    row_max,
)

SLACK = {torch.float32: 1e-5, torch.float16: 1e-4, torch.bfloat16: 1e-4}
OPTIONS = {
    "plain": {},
    "capped": {"softcap": 5.0},
    "scaled-capped-warm": {"logit_scale": 0.25, "softcap": 3.0, "temperature": 1.5},
}


@pytest.fixture(params=["auto", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make_inputs(
    num_tokens: int, hidden_size: int, vocab_size: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden_states = torch.randn(num_tokens, hidden_size, generator=generator)
    weight = torch.randn(vocab_size, hidden_size, generator=generator) / hidden_size**0.5
    targets = torch.randint(0, vocab_size, (num_tokens,), generator=generator)
    bias = torch.randn(vocab_size, generator=generator)
    tensors = (hidden_states.to(dtype), weight.to(dtype), targets, bias.to(dtype))
    return tuple(tensor.to(device) for tensor in tensors)  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", SLACK, ids=str)
@pytest.mark.parametrize(
    ("num_tokens", "vocab_size"),
    [(1, 1), (3, 2), (7, 1023), (257, 1024), (5, 2500)],
    ids=["one-token", "tiny", "below-tile", "tile", "three-tiles"],
)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_matches_float64(
    backend: str,
    dtype: torch.dtype,
    num_tokens: int,
    vocab_size: int,
    options: dict[str, Any],
    device: torch.device,
) -> None:
    x, w, targets, bias = make_inputs(num_tokens, 24, vocab_size, dtype, device)
    truth = linear_nll_reference(x.double(), w.double(), targets, bias.double(), **options)
    plain = linear_nll_reference(x, w, targets, bias, **options)
    allowed = (plain - truth).abs() + SLACK[dtype]
    nll = linear_nll(x, w, targets, bias=bias, backend=backend, **options)
    assert nll.dtype == torch.float32
    error = (nll - truth).abs()
    assert (error <= allowed).all(), f"worst excess {(error - allowed).max():.2e}"


@pytest.mark.parametrize(
    ("hidden_size", "vocab_size"), [(576, 49152), (16, 256000)], ids=["smollm2", "gemma-vocabulary"]
)
def test_error_of_bfloat16_at_real_vocabularies(
    hidden_size: int, vocab_size: int, device: torch.device
) -> None:
    x, w, targets, _ = make_inputs(48, hidden_size, vocab_size, torch.bfloat16, device)
    x = 3 * x  # logits of standard deviation 3, as of a trained model
    truth = linear_nll_reference(x.double(), w.double(), targets)
    error = (linear_nll(x, w, targets) - truth).abs()
    assert error.max() <= 1e-4
    assert error.mean() <= 1e-5


def test_same_bits_whatever_stands_beside(device: torch.device) -> None:
    x, w, targets, _ = make_inputs(300, 96, 3000, torch.float32, device)
    nll = linear_nll(x, w, targets)
    assert torch.equal(nll, linear_nll(x, w, targets))
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1)).to(device)
    assert torch.equal(nll[order], linear_nll(x[order], w, targets[order]))
    for rows in (slice(7, 8), slice(0, 40), slice(150, 300)):
        alone = linear_nll(x[rows], w, targets[rows])
        assert ((alone - nll[rows]).abs() <= 1e-6 * nll[rows].abs()).all()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_stats_match_float64(backend: str, options: dict[str, Any], device: torch.device) -> None:
    x, w, targets, bias = make_inputs(40, 24, 1500, torch.float32, device)
    targets[::3] = -100
    found = linear_nll_stats(x, w, targets, bias=bias, backend=backend, **options)
    truth = linear_nll_stats(x.double(), w.double(), targets, bias=bias.double(), **options)
    for value, true in zip(found, truth, strict=True):
        assert value.dtype == torch.float32
        assert (value - true).abs().max() <= 1e-5
        assert (value[::3] == 0).all()
    logits = options.get("logit_scale", 1.0) * x.double() @ w.double().T + bias.double()
    if "softcap" in options:
        logits = options["softcap"] * torch.tanh(logits / options["softcap"])
    p = torch.distributions.Categorical(logits=logits / options.get("temperature", 1.0))
    scored = targets != -100
    assert (truth.entropy - p.entropy())[scored].abs().max() <= 1e-9
    assert (truth.nll[scored] + p.log_prob(targets.clamp(min=0))[scored]).abs().max() <= 1e-9


def test_reference_is_cross_entropy(device: torch.device) -> None:
    x, w, targets, bias = make_inputs(9, 8, 31, torch.float64, device)
    expected = F.cross_entropy(x @ w.T + bias, targets, reduction="none")
    torch.testing.assert_close(linear_nll_reference(x, w, targets, bias), expected)


def test_ignored_rows_score_zero(device: torch.device) -> None:
    x, w, targets, _ = make_inputs(9, 8, 31, torch.float32, device)
    x[4] = float("nan")  # an ignored row must not even be looked at
    targets[4] = -100
    nll = linear_nll(x, w, targets)
    assert nll[4] == 0
    assert nll.isfinite().all()


@pytest.mark.parametrize("ignored", [True, False], ids=["all-ignored", "no-rows"])
def test_nothing_to_score(ignored: bool, device: torch.device) -> None:
    x, w, targets, _ = make_inputs(3, 8, 31, torch.float32, device)
    if ignored:
        assert linear_nll(x, w, torch.full_like(targets, -100)).tolist() == [0, 0, 0]
    else:
        assert linear_nll(x[:0], w, targets[:0]).shape == (0,)


def test_columns_of_minus_infinity(device: torch.device) -> None:
    x, w, targets, bias = make_inputs(4, 8, 9000, torch.float32, device)
    bias[:4096] = float("-inf")  # a whole first tile
    targets.fill_(5000)
    truth = linear_nll_reference(x.double(), w.double(), targets, bias.double())
    assert (linear_nll(x, w, targets, bias=bias) - truth).abs().max() <= 1e-5


def test_nan_hidden_states_give_nan(device: torch.device) -> None:
    x, w, targets, _ = make_inputs(4, 8, 9000, torch.float32, device)
    x[2] = float("nan")
    assert linear_nll(x, w, targets).isnan().tolist() == [False, False, True, False]


def derivative_inputs(
    device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    x, w, targets, bias = make_inputs(37, 12, 1100, dtype, device)
    targets[::5] = -100
    return x, w, targets, bias


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


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_no_wait_for_the_device_and_no_tf32(dtype: torch.dtype, device: torch.device) -> None:
    x, w, targets, _ = make_inputs(3000, 768, 50257, dtype, device)
    targets[::3] = -100
    truth = linear_nll_reference(x.double(), w.double(), targets)
    before = torch.get_float32_matmul_precision()
    linear_nll(x, w, targets)  # compiles the kernel
    torch.set_float32_matmul_precision("high")
    torch.cuda.set_sync_debug_mode("error")
    try:
        nll = linear_nll(x, w, targets)
        stats = linear_nll_stats(x, w, targets)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.set_float32_matmul_precision(before)
    assert (nll - truth).abs().max() <= 2e-5
    assert torch.equal(nll, stats.nll)


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


def test_autocast_does_not_round_the_logits(backend: str, device: torch.device) -> None:
    x, w, targets, _ = make_inputs(9, 64, 700, torch.float32, device)
    truth = linear_nll_reference(x.double(), w.double(), targets)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        nll = linear_nll(x, w, targets, backend=backend)
    assert (nll - truth).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, w, t: (x[0], w, t), "expects hidden_states"),
        (lambda x, w, t: (x, w[:, :-1], t), "expects hidden_states"),
        (lambda x, w, t: (x, w, t[:-1]), "expects hidden_states"),
        (lambda x, w, t: (x, w[:0], t), "expects hidden_states"),
        (lambda x, w, t: (x, w.double(), t), "one dtype"),
        (lambda x, w, t: (x, w, t.int()), "int64"),
        (lambda x, w, t: (x.long(), w.long(), t), "floating point"),
    ],
    ids=["one-dimension", "hidden-size", "targets", "no-vocabulary", "dtypes", "int32", "integers"],
)
def test_refused(change, message: str, backend: str, device: torch.device) -> None:
    x, w, targets, _ = make_inputs(4, 8, 31, torch.float32, device)
    with pytest.raises(ValueError, match=message):
        linear_nll(*change(x, w, targets), backend=backend)


@pytest.mark.parametrize("option", ["softcap", "temperature"])
def test_refused_option(option: str, backend: str, device: torch.device) -> None:
    x, w, targets, _ = make_inputs(4, 8, 31, torch.float32, device)
    for value in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must be positive"):
            linear_nll(x, w, targets, backend=backend, **{option: value})


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_defaults_of_the_caller_do_not_matter(dtype: torch.dtype, device: torch.device) -> None:
    """C++ and Triton write float32, on the inputs' device, whatever PyTorch's defaults are."""
    x, w, targets, bias = derivative_inputs(device)

    def all_of() -> list[torch.Tensor]:
        leaf = x.clone().requires_grad_()
        nll = linear_nll(leaf, w, targets, bias=bias)
        nll.sum().backward()
        moved = torch.func.jvp(lambda x: linear_nll(x, w, targets, bias=bias), (x,), (x,))
        return [nll.detach(), *moved, leaf.grad, *linear_nll_stats(x, w, targets)]  # type: ignore[list-item]

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


def test_target_outside_the_vocabulary_is_nan(device: torch.device) -> None:
    x, w, targets, _ = make_inputs(4, 8, 31, torch.float32, device)
    targets[1] = 31
    assert linear_nll(x, w, targets).isnan().tolist() == [False, True, False, False]
