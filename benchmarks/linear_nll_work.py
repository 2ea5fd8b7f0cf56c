"""Inputs, floors and truths of the loss from hidden states."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from codeact.models import PeakMemory

Shape = tuple[int, int, int]  # num_tokens, hidden_size, vocab_size
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def make_inputs(
    shape: Shape, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, weight and targets whose losses lie where a trained model's do.

    Each state leans towards its target's row of the weight, so that a token has a loss of a few
    nats and a softmax with a few likely tokens, as real ones have; noise alone would not.
    """
    num_tokens, hidden_size, vocab_size = shape
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device=device)

    weight = normal(vocab_size, hidden_size)
    targets = torch.randint(vocab_size, (num_tokens,), generator=generator, device=device)
    lean = 24 * torch.rand(num_tokens, 1, generator=generator, device=device) / hidden_size
    states = 2 * normal(num_tokens, hidden_size) / hidden_size**0.5 + lean * weight[targets]
    return states.to(dtype), weight.to(dtype), targets


def bare_product(hidden_states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The matrix product alone, stored: what no way of computing the loss can be faster than."""
    return hidden_states @ weight.t()


def three_products(hidden_states: Tensor, weight: Tensor, targets: Tensor, logits: Tensor) -> None:
    """The products of a forward and a backward, into memory that is there already."""
    torch.mm(hidden_states, weight.t(), out=logits)
    torch.mm(logits, weight)
    torch.mm(logits.t(), hidden_states)


def backward(loss: Loss, hidden_states: Tensor, weight: Tensor, targets: Tensor) -> None:
    """Both gradients of a loss."""
    x, w = hidden_states.detach().requires_grad_(), weight.detach().requires_grad_()
    loss(x, w, targets).backward()


def in_float64(hidden_states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The truth, a few rows at a time."""
    w = weight.double()
    losses = [
        F.cross_entropy(x.double() @ w.t(), t, reduction="none")
        for x, t in zip(hidden_states.split(16), targets.split(16), strict=True)
    ]
    return torch.cat(losses)


def extra_mib(call: Callable[[], object]) -> float:
    """Memory that a call needs beyond what is in use before it, its result included."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
    else:
        with PeakMemory() as resident:  # nothing happens inside: what the process has now
            pass
        before = resident.mib
    with PeakMemory() as memory:
        call()
    return max(0.0, memory.mib - before)
