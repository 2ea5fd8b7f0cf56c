"""Gradients made a chunk of rows at a time, against autograd of the definition in float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from codeact.ops.linear_nll import linear_nll_reference
from codeact.ops.linear_nll_gradient import (
    Gradients,
    linear_nll_gradients,
    unrounded_gradients,
)
from codeact.ops.streamed import Logits

BACKENDS = ["reference", "cpu", "triton"]
PLAIN = Logits()
# A gradient is rounded once to its dtype; Triton's gradient of the logits is rounded before.
SLACK = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


class Inputs(NamedTuple):
    hidden_states: Tensor
    weight: Tensor
    targets: Tensor
    row_gradients: Tensor
    bias: Tensor


def make_inputs(
    num_tokens: int, dim: int, vocab_size: int, dtype: torch.dtype, device: torch.device
) -> Inputs:
    generator = torch.Generator().manual_seed(num_tokens + vocab_size)
    row_gradients = torch.randn(num_tokens, generator=generator)
    row_gradients[::3] = 0.0
    return Inputs(
        torch.randn(num_tokens, dim, generator=generator).to(device, dtype),
        (torch.randn(vocab_size, dim, generator=generator) / dim**0.5).to(device, dtype),
        torch.randint(0, vocab_size, (num_tokens,), generator=generator).to(device),
        row_gradients.to(device),
        torch.randn(vocab_size, generator=generator).to(device, dtype),
    )


def gradients_of(inputs: Inputs, backend: Any, logits: Logits = PLAIN, **options: Any) -> Gradients:
    wanted = dict.fromkeys(["want_hidden", "want_weight", "want_bias"], True)
    return linear_nll_gradients(
        inputs.hidden_states,
        inputs.weight,
        inputs.targets,
        options.pop("row_gradients", inputs.row_gradients),
        **{"bias": inputs.bias, "logits": logits, "ignore_index": -100, **wanted, **options},
        backend=backend,
    )


def truth_of(inputs: Inputs, logits: Logits = PLAIN) -> Gradients:
    """The definition in float64, differentiated by autograd."""
    x, w, b = (t.double().requires_grad_() for t in (inputs[0], inputs[1], inputs[4]))
    nll = linear_nll_reference(
        x,
        w,
        inputs.targets,
        b,
        logits.softcap,
        logit_scale=logits.scale,
        temperature=logits.temperature,
    )
    total = (nll * inputs.row_gradients.double()).sum()
    return Gradients(nll.detach(), *torch.autograd.grad(total, [x, w, b]))


def worst(found: Tensor | None, truth: Tensor | None) -> float:
    """Largest error, in units of the largest true value."""
    assert found is not None
    assert truth is not None
    return float((found.double() - truth).abs().max() / truth.abs().max())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", SLACK, ids=str)
@pytest.mark.parametrize(
    "logits",
    [PLAIN, Logits(0.25, None, 0.7), Logits(1.5, 3.0, 2.0)],
    ids=["plain", "scaled", "capped"],
)
def test_matches_float64(
    backend: str, dtype: torch.dtype, logits: Logits, device: torch.device
) -> None:
    inputs = make_inputs(37, 24, 131, dtype, device)
    truth = truth_of(inputs, logits)
    found = gradients_of(inputs, backend, logits, workspace_bytes=10 * 131 * 4)
    assert found.nll.dtype == torch.float32
    torch.testing.assert_close(found.nll.double(), truth.nll, rtol=1e-6, atol=1e-5)
    for gradient, true in zip(found[1:], truth[1:], strict=True):
        assert gradient is not None
        assert gradient.dtype == dtype
        assert worst(gradient, true) <= SLACK[dtype]


@pytest.mark.parametrize("workspace_bytes", [1, 20 * 37 * 8, 1 << 20], ids=["least", "20", "all"])
def test_chunks_add_up_in_float64(workspace_bytes: int, device: torch.device) -> None:
    inputs = make_inputs(43, 8, 37, torch.float64, device)
    logits = Logits(1.5, 3.0, 0.7)
    found = gradients_of(inputs, "auto", logits, workspace_bytes=workspace_bytes)
    for gradient, true in zip(found, truth_of(inputs, logits), strict=True):
        torch.testing.assert_close(gradient, true, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_row_gradients_each_loss_counts_once(backend: str, device: torch.device) -> None:
    inputs = make_inputs(9, 8, 31, torch.float32, device)
    ones = inputs._replace(row_gradients=torch.ones(9, device=device))
    truth = truth_of(ones)
    found = gradients_of(inputs, backend, row_gradients=None)
    assert worst(found.weight, truth.weight) <= SLACK[torch.float32]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("num_chunks", [1, 8, 32])
def test_number_of_chunks_does_not_cost_accuracy(backend: str, num_chunks: int) -> None:
    device = torch.device("cpu")
    inputs = make_inputs(512, 32, 200, torch.float32, device)
    truth = truth_of(inputs).weight
    assert truth is not None
    x, w, b = (t.clone().requires_grad_() for t in (inputs[0], inputs[1], inputs[4]))
    nll = linear_nll_reference(x, w, inputs.targets, b)
    (single,) = torch.autograd.grad((nll * inputs.row_gradients).sum(), [w])
    workspace = 200 * 4 * (512 // num_chunks)
    found = gradients_of(inputs, backend, workspace_bytes=workspace).weight
    assert found is not None
    assert (found - truth).norm() <= 1.2 * (single - truth).norm()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", SLACK, ids=str)
def test_ignored_rows_are_not_looked_at(
    backend: str, dtype: torch.dtype, device: torch.device
) -> None:
    inputs = make_inputs(40, 8, 31, dtype, device)
    kept = torch.arange(40, device=device) % 4 != 1
    truth = truth_of(Inputs(*(t[kept] if len(t) == 40 else t for t in inputs)))
    inputs.targets[~kept] = -100
    inputs.hidden_states[~kept] = float("nan")
    inputs.row_gradients[~kept] = float("inf")
    found = gradients_of(inputs, backend, workspace_bytes=31 * 4 * 20)
    assert found.hidden_states is not None
    assert (found.nll[~kept] == 0).all()
    assert (found.hidden_states[~kept] == 0).all()
    torch.testing.assert_close(found.nll[kept].double(), truth.nll, rtol=1e-6, atol=1e-5)
    assert worst(found.hidden_states[kept], truth.hidden_states) <= SLACK[dtype]
    assert worst(found.weight, truth.weight) <= SLACK[dtype]
    assert worst(found.bias, truth.bias) <= SLACK[dtype]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_tokens", [0, 3], ids=["no-rows", "all-ignored"])
def test_nothing_scored_is_zero(backend: str, num_tokens: int, device: torch.device) -> None:
    inputs = make_inputs(3, 8, 31, torch.float16, device)
    x, w, targets, row_gradients, bias = inputs
    targets[:] = -100
    n = num_tokens
    inputs = Inputs(x[:n], w, targets[:n], row_gradients[:n], bias)
    likes = (targets[:n], x[:n], w, bias)
    for value, like in zip(gradients_of(inputs, backend), likes, strict=True):
        assert value is not None
        assert value.shape == like.shape
        assert (value == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_target_outside_the_vocabulary_is_nan(backend: str, device: torch.device) -> None:
    inputs = make_inputs(4, 8, 31, torch.float32, device)
    inputs.targets[1] = 31
    found = gradients_of(inputs, backend, row_gradients=None)
    assert found.hidden_states is not None
    assert found.nll.isnan().tolist() == [False, True, False, False]
    assert found.hidden_states.isnan().any(dim=1).tolist() == [False, True, False, False]
    assert found.weight is not None
    assert found.weight.isnan().any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_inputs(backend: str, device: torch.device) -> None:
    inputs = make_inputs(20, 24, 65, torch.float32, device)
    strided = Inputs(
        inputs.hidden_states.t().contiguous().t(),
        inputs.weight.t().contiguous().t(),
        *(t.repeat_interleave(2)[::2] for t in inputs[2:]),
    )
    assert not any(tensor.is_contiguous() for tensor in strided)
    for one, other in zip(
        gradients_of(strided, backend), gradients_of(inputs, backend), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_column_of_minus_infinity_has_no_gradient(backend: str, device: torch.device) -> None:
    inputs = make_inputs(6, 8, 31, torch.float32, device)
    inputs.bias[7] = float("-inf")
    inputs.targets[inputs.targets == 7] = 8
    found = gradients_of(inputs, backend)
    for gradient in found:
        assert gradient is not None
        assert gradient.isfinite().all()
    assert found.weight is not None
    assert (found.weight[7] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_small_row_gradients_survive_float16(backend: str, device: torch.device) -> None:
    inputs = make_inputs(20, 16, 300, torch.float16, device)
    inputs = inputs._replace(row_gradients=inputs.row_gradients * 1e-6)
    truth = truth_of(inputs)
    found = unrounded_gradients(
        *inputs[:4],
        bias=inputs.bias,
        logits=PLAIN,
        ignore_index=-100,
        wanted=(True, True, True),
        workspace_bytes=None,
        backend=backend,  # type: ignore[arg-type]
    )
    for gradient, true in zip(found[1:], truth[1:], strict=True):
        assert gradient is not None
        assert gradient.dtype == torch.float32
        assert worst(gradient, true) <= 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_same_bits_twice_and_under_autocast(backend: str, device: torch.device) -> None:
    inputs = make_inputs(33, 24, 65, torch.float32, device)
    first = gradients_of(inputs, backend, workspace_bytes=1000)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        second = gradients_of(inputs, backend, workspace_bytes=1000)
    for one, other in zip(first, second, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wanted", ["want_hidden", "want_weight", "want_bias"])
def test_makes_only_what_is_wanted(backend: str, wanted: str, device: torch.device) -> None:
    inputs = make_inputs(7, 8, 31, torch.float32, device)
    unwanted = dict.fromkeys({"want_hidden", "want_weight", "want_bias"} - {wanted}, False)
    found = gradients_of(inputs, backend, **unwanted)
    field = {"want_hidden": "hidden_states", "want_weight": "weight", "want_bias": "bias"}[wanted]
    assert worst(getattr(found, field), getattr(truth_of(inputs), field)) <= 2e-6
    assert sum(gradient is None for gradient in found[1:]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_states": torch.zeros(3, 9)}, "expects hidden_states"),
        ({"row_gradients": torch.zeros(4)}, "expects hidden_states"),
        ({"bias": torch.zeros(4)}, "expects hidden_states"),
        ({"weight": torch.zeros(31, 8, dtype=torch.float64)}, "one dtype"),
        ({"targets": torch.zeros(3, dtype=torch.int32)}, "int64"),
    ],
    ids=["hidden-size", "row-gradients", "bias", "dtypes", "targets"],
)
def test_refused(change: dict[str, Tensor], message: str) -> None:
    inputs = make_inputs(3, 8, 31, torch.float32, torch.device("cpu"))
    with pytest.raises(ValueError, match=message):
        gradients_of(inputs._replace(**change), "auto")


def test_refuses_what_it_cannot_do() -> None:
    inputs = make_inputs(3, 8, 31, torch.float64, torch.device("cpu"))
    with pytest.raises(ValueError, match="float64"):
        gradients_of(inputs, "cpu")
    with pytest.raises(ValueError, match="temperature"):
        gradients_of(inputs, "auto", Logits(1.0, None, 0.0))
    with pytest.raises(RuntimeError, match="no derivative"):
        gradients_of(inputs._replace(weight=inputs.weight.requires_grad_()), "auto")
    inputs.weight.requires_grad_(False)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(inputs.weight, inputs.weight)
        with pytest.raises(RuntimeError, match="no derivative"):
            gradients_of(inputs._replace(weight=dual), "auto")
