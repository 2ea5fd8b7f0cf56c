"""Which token comes next: the likeliest, or one drawn with a number of the sequence's own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codeact.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How sequences are continued.

    Of a model's ``generation_config`` nothing but the EOS tokens is used: no repetition penalty
    and no top-k, which some models ask for in it.

    Args:
        temperature: What logits are divided by; 0 takes the likeliest token (the first of equals).
        top_p: Draw from the smallest set of likeliest tokens whose probabilities, after the
            temperature, sum to ``top_p`` or more (nucleus sampling, arXiv:1904.09751); 1 is all.
        max_new_tokens: Where a sequence without an EOS token is cut.

    Raises:
        InputError: temperature is negative or infinite, top_p is not in (0, 1], or max_new_tokens
            is below 1.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 1024

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"temperature must be finite and at least 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p must lie in (0, 1], got {self.top_p}")
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")


def uniform_draws(seed: int, num_draws: int) -> NDArray[np.float64]:
    """(num_draws,) numbers in [0, 1) that hang on the seed alone; more of them begin the same."""
    return np.random.Generator(np.random.Philox(key=seed)).random(num_draws)


def choose_tokens(logits: Tensor, uniforms: Tensor | None, sampling: Sampling) -> Tensor:
    """The next token of each row.

    With probabilities p, sorted downwards where ``top_p`` is below 1 and in the order of the
    vocabulary elsewhere, it is the first token at which their running sum exceeds
    ``uniforms * (sum of the p that may be drawn)``: the inverse of the distribution function. One
    number a token, computed in float64, makes a draw depend on what stands beside it only through
    the rounding of the logits.

    Args:
        logits: (num_rows, vocab_size), any float dtype.
        uniforms: (num_rows,) float64 in [0, 1); None is allowed at temperature 0.
        sampling: Temperature and top_p.

    Returns:
        (num_rows,) int64.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    if uniforms is None:
        raise ValueError(f"temperature {sampling.temperature} needs uniforms, got None")
    # Subtracting the largest first keeps tiny temperatures from overflowing.
    shifted = logits.double() - logits.double().amax(dim=-1, keepdim=True)
    probabilities = torch.softmax(shifted / sampling.temperature, dim=-1)
    if sampling.top_p == 1:
        return _inverse(probabilities.cumsum(dim=-1), uniforms, None)
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    sums = ordered.cumsum(dim=-1)
    last = (sums < sampling.top_p).sum(dim=-1).clamp(max=sums.shape[1] - 1)
    return order.gather(1, _inverse(sums, uniforms, last)[:, None])[:, 0]


def _inverse(sums: Tensor, uniforms: Tensor, last: Tensor | None) -> Tensor:
    """The first place of each row whose running sum exceeds the row's share of the total."""
    total = sums[:, -1] if last is None else sums.gather(1, last[:, None])[:, 0]
    # A product that rounds up to the total would point behind the last token.
    below = torch.nextafter(total, torch.zeros_like(total))
    wanted = torch.minimum(uniforms * total, below)
    return torch.searchsorted(sums, wanted[:, None], right=True)[:, 0]
