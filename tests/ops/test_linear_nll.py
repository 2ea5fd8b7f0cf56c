"""Losses from hidden states, no further from float64 than plain PyTorch is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from linear_nll_inputs import OPTIONS, SLACK, make_inputs

from codeact.ops import linear_nll, linear_nll_reference, linear_nll_stats


@pytest.fixture(params=["auto", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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


def test_target_outside_the_vocabulary_is_nan(device: torch.device) -> None:
    x, w, targets, _ = make_inputs(4, 8, 31, torch.float32, device)
    targets[1] = 31
    assert linear_nll(x, w, targets).isnan().tolist() == [False, True, False, False]
