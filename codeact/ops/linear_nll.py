"""Per-token loss straight from hidden states: the logits are never stored whole."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from codeact.ops._backend import Backend
from codeact.ops._derivatives import eager_only, refuse_derivatives
from codeact.ops._linear_nll_function import LinearNll
from codeact.ops._streamed_reference import row_logits
from codeact.ops.linear_nll_gradient import check_linear
from codeact.ops.streamed import Logits, choose_backend, row_lse
from codeact.ops.varlen import IGNORE_INDEX


class TokenStats(NamedTuple):
    """What a softmax over the vocabulary says of each token, (num_tokens,) float32, in nats."""

    nll: Tensor
    lse: Tensor
    entropy: Tensor


@eager_only
def linear_nll(
    hidden_states: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    temperature: float = 1.0,
    ignore_index: int = IGNORE_INDEX,
    backend: Backend = "auto",
) -> Tensor:
    """Negative log-likelihood, in nats, of each target under ``hidden_states @ weight.T``.

    With ``u = logit_scale * hidden_states[i] @ weight.T + bias`` and ``z = cap(u) / temperature``
    the value is ``logsumexp(z) - z[targets[i]]``, where ``cap(u) = softcap * tanh(u / softcap)`` if
    a softcap is given (online softmax, Milakov & Gimelshein, arXiv:1805.02867). Products, sums and
    exponentials are float32 whatever the inputs are; the target's logit comes from the same
    product as the sum, so the value is below zero by rounding at most. Ignored positions score 0
    and are left out of the product, on a GPU without waiting for it.

    Differentiable once, in reverse and in forward mode (the tangent is not differentiable again),
    and under ``torch.compile``, which it leaves by a graph break. The reverse pass computes the
    logits again, a chunk of rows at a time.

    Args:
        hidden_states: (num_tokens, hidden_size) float32, float16 or bfloat16; float64 goes to the
            reference.
        weight: (vocab_size, hidden_size), the output projection, of the same dtype.
        targets: (num_tokens,) int64, already shifted; values are not checked, since reading them
            would wait for the device. The loss of one outside the vocabulary is NaN.
        bias: (vocab_size,) of any floating dtype, or None.
        softcap: Gemma 2's final logit cap, or None.
        logit_scale: Cohere's factor of the product.
        temperature: Divides the logits.
        ignore_index: The target that scores 0.
        backend: ``"cpu"`` and ``"triton"`` keep a running log-sum-exp over tiles; ``"reference"``
            forms all logits and is differentiable any number of times. ``"auto"`` is the first
            of these that works on the device. ``"cuda"`` is a kernel for Hopper and bfloat16
            without any derivative, taken on request only.

    Returns:
        (num_tokens,) float32, on the device of ``hidden_states``; float64 from float64.

    Raises:
        ValueError: Shapes, dtypes or devices differ from these.
        RuntimeError: A second derivative, or one under vmap, of any backend but the reference; a
            first one of ``"cuda"``.
    """
    logits = Logits(logit_scale, softcap, temperature)
    check_linear("linear_nll", hidden_states, weight, targets, bias, logits)
    chosen = choose_backend(backend, hidden_states, forward_only=True)
    if chosen == "cuda":
        refuse_derivatives("linear_nll with backend='cuda'", hidden_states, weight, bias)
    if chosen == "reference":
        return linear_nll_reference(
            hidden_states, weight, targets, bias, softcap, ignore_index, logit_scale, temperature
        )
    nll: Tensor = LinearNll.apply(  # type: ignore[no-untyped-call]
        hidden_states, weight, bias, targets, logits, ignore_index, backend
    )
    return nll


@eager_only
def linear_nll_stats(
    hidden_states: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    temperature: float = 1.0,
    ignore_index: int = IGNORE_INDEX,
    backend: Backend = "auto",
) -> TokenStats:
    """:func:`linear_nll`, the log-sum-exp and the entropy ``-sum p log p`` of each position.

    Ignored positions are 0 in all three. Not differentiable: raises where a derivative is wanted.
    Arguments as of :func:`linear_nll`, but no ``backend="cuda"``, which makes no entropy.
    """
    logits = Logits(logit_scale, softcap, temperature)
    check_linear("linear_nll_stats", hidden_states, weight, targets, bias, logits)
    refuse_derivatives("linear_nll_stats", hidden_states, weight, bias)
    found = row_lse(
        hidden_states,
        weight,
        targets,
        bias=bias,
        logits=logits,
        skip=ignore_index,
        expectation=True,
        backend=backend,
    )
    assert found.expected is not None
    stats = (found.lse - found.label_logits, found.lse, found.lse - found.expected)
    return TokenStats(*(values.masked_fill(targets == ignore_index, 0.0) for values in stats))


def linear_nll_reference(
    hidden_states: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    softcap: float | None = None,
    ignore_index: int = IGNORE_INDEX,
    logit_scale: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """The definition: all logits at once in float32 (float64 if given), then cross-entropy."""
    logits = row_logits(hidden_states, weight, bias, logit_scale, softcap, temperature)
    is_column = (targets >= 0) & (targets < len(weight))
    nll = F.cross_entropy(logits, torch.where(is_column, targets, 0), reduction="none")
    nll = nll.masked_fill(~is_column, float("nan"))
    return nll.masked_fill(targets == ignore_index, 0.0)
