"""Losses from hidden states, no further from float64 than plain PyTorch is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from codeact.ops.linear_nll import LinearNllBackend, linear_nll, linear_nll_reference

SLACK = {torch.float32: 1e-5, torch.float16: 1e-4, torch.bfloat16: 1e-4}


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


@pytest.mark.parametrize("backend", ["tiled", "reference", "auto"])
@pytest.mark.parametrize("dtype", SLACK, ids=str)
@pytest.mark.parametrize(
    ("num_tokens", "vocab_size"),
    [(1, 1), (3, 2), (7, 4095), (257, 4096), (300, 4097), (5, 9000)],
    ids=["one-token", "tiny", "below-tile", "tile", "above-tile", "two-tiles"],
)
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_matches_float64(
    backend: LinearNllBackend,
    dtype: torch.dtype,
    num_tokens: int,
    vocab_size: int,
    softcap: float | None,
    device: torch.device,
) -> None:
    x, w, targets, bias = make_inputs(num_tokens, 24, vocab_size, dtype, device)
    truth = linear_nll_reference(x.double(), w.double(), targets, bias.double(), softcap)
    plain = linear_nll_reference(x, w, targets, bias, softcap)
    allowed = (plain - truth).abs() + SLACK[dtype]
    nll = linear_nll(x, w, targets, bias=bias, softcap=softcap, backend=backend)
    assert nll.dtype == torch.float32
    error = (nll - truth).abs()
    assert (error <= allowed).all(), f"worst excess {(error - allowed).max():.2e}"


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


def test_derivatives_are_right_or_refused(device: torch.device) -> None:
    x, w, targets, _ = make_inputs(4, 8, 31, torch.float64, device)
    x.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: linear_nll(x, w, targets), (x,), check_forward_ad=True
    )
    with pytest.raises(RuntimeError, match="no derivative"):
        linear_nll(x, w, targets, backend="tiled")
    tangent = torch.randn_like(w)
    _, along = torch.func.jvp(lambda w: linear_nll(x.detach(), w, targets), (w,), (tangent,))
    assert along.abs().min() > 0
    with pytest.raises(RuntimeError, match="no derivative"):
        torch.func.jvp(
            lambda w: linear_nll(x.detach(), w, targets, backend="tiled"), (w,), (tangent,)
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, w, t: (x[0], w, t), "expects hidden_states"),
        (lambda x, w, t: (x, w[:, :-1], t), "expects hidden_states"),
        (lambda x, w, t: (x, w, t[:-1]), "expects hidden_states"),
        (lambda x, w, t: (x, w.double(), t), "one dtype"),
    ],
    ids=["one-dimension", "hidden-size", "targets", "dtypes"],
)
def test_refused(change, message: str, device: torch.device) -> None:
    x, w, targets, _ = make_inputs(4, 8, 31, torch.float32, device)
    with pytest.raises(ValueError, match=message):
        linear_nll(*change(x, w, targets))


def test_target_outside_the_vocabulary_is_nan(device: torch.device) -> None:
    x, w, targets, _ = make_inputs(4, 8, 31, torch.float32, device)
    targets[1] = 31
    assert linear_nll(x, w, targets).isnan().tolist() == [False, True, False, False]
