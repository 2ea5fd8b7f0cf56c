"""softmax_gradient against autograd in float64, in memory of its own and in that of the logits."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
import codeact.kernels.softmax_gradient as module
from codeact.kernels.softmax_gradient import softmax_gradient

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# Half a unit in the last place of a gradient below 4.
ROUNDING = {torch.float32: 1e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}
INF, NAN = float("inf"), float("nan")
OPTIONS = {"scale": 0.7, "softcap": 9.0, "temperature": 1.3}
PLAIN = {"scale": 1.0, "softcap": None, "temperature": 1.0}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch, device):
    """Rows of several blocks in the interpreter, as real vocabularies are on a GPU."""
    if device.type != "cuda":
        monkeypatch.setattr(module, "MAX_BLOCK_SIZE", 128)


def make_inputs(num_tokens, vocab_size, dtype, device):
    """logits, labels, weights (one 0, one negative), bias."""
    generator = torch.Generator().manual_seed(vocab_size)
    logits = 4 * torch.randn(num_tokens, vocab_size, generator=generator)
    labels = torch.randint(vocab_size, (num_tokens,), generator=generator)
    weights = torch.linspace(-1, 2, num_tokens)
    weights[num_tokens // 2 :][:1] = 0.0
    bias = torch.randn(vocab_size, generator=generator)
    return logits.to(device, dtype), labels.to(device), weights.to(device), bias.to(device)


def truth(logits, labels, weights, bias, scale, softcap, temperature):
    inputs = scale * logits.double() + (0 if bias is None else bias.double())
    inputs = inputs.detach().requires_grad_()
    capped = inputs if softcap is None else softcap * torch.tanh(inputs / softcap)
    nll = torch.nn.functional.cross_entropy(capped / temperature, labels, reduction="none")
    (gradient,) = torch.autograd.grad(nll, inputs, weights.double())
    return nll.detach(), gradient


def memory_for(out, logits):
    """Where the gradient goes: ``out`` is a dtype, "in place", or a view of half the pitch."""
    if out == "in place":
        return logits
    if out == "half the pitch":
        return logits.view(torch.bfloat16)[:, : logits.shape[1]]
    return torch.empty_like(logits, dtype=out)


@pytest.mark.parametrize(
    ("dtype", "out"),
    [
        *((dtype, "in place") for dtype in DTYPES),
        (torch.float32, "half the pitch"),
        (torch.float32, torch.float16),
        (torch.bfloat16, torch.float32),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("vocab_size", "options"), [(1, PLAIN), (129, OPTIONS), (700, PLAIN)], ids=[1, 129, 700]
)
def test_matches_float64(dtype, out, vocab_size, options, device):
    logits, labels, weights, bias = make_inputs(5, vocab_size, dtype, device)
    bias = bias if options is OPTIONS else None
    true_nll, true_gradient = truth(logits, labels, weights, bias, **options)
    gradient = memory_for(out, logits)
    nll = softmax_gradient(
        logits, labels, weights, gradient, bias, *options.values(), ignore_index=-100
    )
    torch.testing.assert_close(nll.double(), true_nll, rtol=1e-6, atol=1e-5)
    atol = ROUNDING[gradient.dtype] + 1e-6
    torch.testing.assert_close(gradient.double(), true_gradient, rtol=0, atol=atol)


def test_weights_of_one_by_default(device):
    logits, labels, weights, _ = make_inputs(3, 300, torch.float32, device)
    out = torch.empty_like(logits)
    softmax_gradient(logits, labels, None, out, None, *PLAIN.values(), ignore_index=-100)
    _, expected = truth(logits, labels, torch.ones_like(weights), None, **PLAIN)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-6)


def test_rows_further_apart_than_the_vocabulary(device):
    logits, labels, weights, _ = make_inputs(4, 200, torch.float32, device)
    wide = torch.full((4, 207), 1e4, device=device)
    wide[:, :200] = logits
    _, expected = truth(logits, labels, weights, None, **PLAIN)
    row = wide[:, :200]
    softmax_gradient(row, labels, weights, row, None, *PLAIN.values(), ignore_index=-100)
    torch.testing.assert_close(row.double(), expected, rtol=0, atol=1e-6)
    assert (wide[:, 200:] == 1e4).all(), "wrote beyond the vocabulary"


def test_ignored_rows_get_zeros_and_bad_labels_nan(device):
    logits, _, _, _ = make_inputs(5, 300, torch.float32, device)
    logits[0] = NAN
    labels = torch.tensor([7, 300, -1, 2**40, 5], device=device)
    out = torch.full_like(logits, 3.0)
    nll = softmax_gradient(logits, labels, None, out, None, *PLAIN.values(), ignore_index=7)
    assert nll.isnan().tolist() == [False, True, True, True, False]
    assert out.isnan().all(1).tolist() == [False, True, True, True, False]
    assert nll[0].item() == out[0].abs().max().item() == 0.0


def test_minus_infinity_has_no_gradient(device):
    logits, labels, weights, _ = make_inputs(4, 300, torch.float32, device)
    logits[:, 100:] = -INF  # two of the interpreter's blocks hold nothing
    labels %= 100
    logits[3] = -INF
    out = torch.empty_like(logits)
    nll = softmax_gradient(logits, labels, weights, out, None, *PLAIN.values(), ignore_index=-1)
    _, expected = truth(logits[:3], labels[:3], weights[:3], None, **PLAIN)
    torch.testing.assert_close(out[:3].double(), expected, rtol=0, atol=1e-6)
    assert nll[3].isnan(), "a row without any finite logit has no likelihood"


@pytest.mark.parametrize("value", [INF, NAN])
def test_a_broken_logit_is_not_hidden(value, device):
    logits, labels, _, _ = make_inputs(2, 300, torch.float32, device)
    logits[1, 299] = value
    out = torch.empty_like(logits)
    nll = softmax_gradient(logits, labels, None, out, None, *PLAIN.values(), ignore_index=-100)
    assert nll.isnan().tolist() == [False, True]
    assert out[1].isnan().all()


def test_the_label_keeps_its_digits(device):
    """p - 1 of a likely label is far below the rounding of p to bfloat16."""
    logits = torch.zeros(1, 300, device=device)
    logits[0, 5] = 16.0
    out = logits.view(torch.bfloat16)[:, :300]
    label = torch.tensor([5], device=device)
    _, expected = truth(logits, label, torch.ones(1, device=device), None, **PLAIN)
    softmax_gradient(logits, label, None, out, None, *PLAIN.values(), ignore_index=-100)
    torch.testing.assert_close(out[0, 5].double(), expected[0, 5], rtol=2**-7, atol=0)


def test_zero_rows(device):
    logits, labels, _, _ = make_inputs(0, 5, torch.float32, device)
    assert softmax_gradient(
        logits, labels, None, logits, None, *PLAIN.values(), ignore_index=-100
    ).shape == (0,)


@pytest.mark.gpu
@pytest.mark.parametrize("out", ["in place", "half the pitch"])
@pytest.mark.parametrize("vocab_size", [50_257, 128_256, 256_000])
def test_real_vocabularies(vocab_size, out, device):
    """Threads run ahead of each other here: a missing barrier would spoil rows in place."""
    logits, labels, weights, bias = make_inputs(300, vocab_size, torch.float32, device)
    if out == "half the pitch" and vocab_size % 2:
        logits = torch.nn.functional.pad(logits, (0, 1))[:, :vocab_size]
    true_nll, true_gradient = truth(logits, labels, weights, bias, **OPTIONS)
    gradient = logits
    if out == "half the pitch":
        whole = logits.as_strided((300, logits.stride(0)), logits.stride())
        gradient = whole.view(torch.bfloat16)[:, :vocab_size]
    nll = softmax_gradient(
        logits, labels, weights, gradient, bias, *OPTIONS.values(), ignore_index=-100
    )
    torch.testing.assert_close(nll.double(), true_nll, rtol=1e-6, atol=2e-5)
    atol = ROUNDING[gradient.dtype] + 1e-6
    torch.testing.assert_close(gradient.double(), true_gradient, rtol=0, atol=atol)


@pytest.mark.gpu
def test_offsets_beyond_int32(device):
    logits = torch.zeros(2**14 + 1, 2**17, dtype=torch.float16, device=device)
    labels = torch.full((2**14 + 1,), -100, device=device)
    labels[-1] = 3
    nll = softmax_gradient(logits, labels, None, logits, None, *PLAIN.values(), ignore_index=-100)
    assert nll[-1].item() == pytest.approx(17 * 0.6931471805599453, rel=1e-6)
    assert logits[-1, 3].item() == pytest.approx(-1.0, abs=1e-3)
    assert logits[:-1].abs().max().item() == 0.0
