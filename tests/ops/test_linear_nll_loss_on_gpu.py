"""The reduced loss at real shapes on a GPU: accuracy, no wait for the device, memory, no TF32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from codeact.ops.linear_nll_gradient import Gradients, linear_nll_gradients
from codeact.ops.linear_nll_loss import linear_nll_loss
from codeact.ops.streamed import Logits

pytestmark = pytest.mark.gpu


def make_inputs(
    num_tokens: int, dim: int, vocab_size: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden_states = torch.randn(num_tokens, dim, device="cuda", dtype=dtype)
    weight = (torch.randn(vocab_size, dim, device="cuda") / dim**0.5).to(dtype)
    targets = torch.randint(0, vocab_size, (num_tokens,), device="cuda")
    targets[::5] = -100
    return hidden_states, weight, targets


def gradients(x: Tensor, w: Tensor, targets: Tensor, workspace_bytes: int | None) -> Gradients:
    return linear_nll_gradients(
        x,
        w,
        targets,
        None,
        bias=None,
        logits=Logits(),
        ignore_index=-100,
        want_hidden=True,
        want_weight=True,
        want_bias=False,
        workspace_bytes=workspace_bytes,
    )


def distance(found: Tensor | None, truth: Tensor | None) -> float:
    """Of the whole gradient, relative to its length."""
    assert found is not None
    assert truth is not None
    return float((found.double() - truth).norm() / truth.norm())


@contextmanager
def no_wait() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("num_tokens", "dim", "vocab_size"),
    [(3001, 768, 50257), (2048, 1024, 151936)],
    ids=["odd", "qwen"],
)
def test_matches_float64_without_waiting(
    num_tokens: int, dim: int, vocab_size: int, dtype: torch.dtype
) -> None:
    x, w, targets = make_inputs(num_tokens, dim, vocab_size, dtype)
    truth = gradients(x.double(), w.double(), targets, None)
    x.requires_grad_()
    w.requires_grad_()
    with no_wait():
        loss = linear_nll_loss(x, w, targets, workspace_bytes=1024 * vocab_size * 4)
        loss.backward()
    torch.testing.assert_close(loss.double(), truth.nll.sum(), rtol=1e-6, atol=0.0)
    # Rounding of the gradient of the logits and of the result: 2^-9 or 2^-12 each at most.
    allowed = {torch.bfloat16: 4e-3, torch.float16: 5e-4, torch.float32: 2e-6}[dtype]
    assert distance(x.grad, truth.hidden_states) <= allowed
    assert distance(w.grad, truth.weight) <= allowed


def test_number_of_chunks_does_not_cost_accuracy() -> None:
    x, w, targets = make_inputs(8192, 512, 32000, torch.bfloat16)
    truth = gradients(x.double(), w.double(), targets, None).weight
    whole = distance(gradients(x, w, targets, 8192 * 32000 * 4).weight, truth)
    assert distance(gradients(x, w, targets, 1).weight, truth) <= 1.2 * whole


def test_memory_is_workspace_and_gradients() -> None:
    num_tokens, dim, vocab_size = 8192, 1024, 128256
    x, w, targets = make_inputs(num_tokens, dim, vocab_size, torch.bfloat16)
    x.requires_grad_()
    w.requires_grad_()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    workspace_bytes = 1024 * vocab_size * 4
    linear_nll_loss(x, w, targets, workspace_bytes=workspace_bytes).backward()
    peak = torch.cuda.max_memory_allocated() - before
    # The sums are float32, the gradients half of that; a tenth for the rest.
    sums = 4 * dim * (num_tokens + vocab_size)
    assert peak <= 1.1 * (workspace_bytes + 1.5 * sums)


def test_float32_is_not_tf32() -> None:
    x, w, targets = make_inputs(2048, 256, 4096, torch.float32)
    truth = gradients(x.double(), w.double(), targets, None)
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        found = gradients(x, w, targets, None)
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    assert distance(found.weight, truth.weight) <= 2e-6
    assert distance(found.hidden_states, truth.hidden_states) <= 2e-6
