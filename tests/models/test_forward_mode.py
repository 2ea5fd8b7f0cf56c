"""One pass in dual numbers gives every token's directional derivative, as reverse mode has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp
from transformers import PreTrainedModel

from codeact.models.hidden_states import hidden_states, output_head
from codeact.ops.varlen import IGNORE_INDEX, PackedBatch, pack_sequences

MODELS = ["llama-gqa", "qwen2-bias", "mistral-window", "gemma2-softcap"]
SEQLENS = (9, 2, 13, 4)

Parameters = dict[str, Tensor]


class TokenNll(nn.Module):
    """The losses of a packed batch, logits never formed, as a module to call functionally."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PackedBatch) -> Tensor:
        states = hidden_states(self.model, batch)[batch.rows]
        return output_head(self.model).nll(states, batch.targets)


def sequences() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Token ids, and labels that leave the first third of each sequence unscored."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(3, 97, size=n) for n in SEQLENS]
    labels = [np.where(np.arange(len(x)) < len(x) // 3, IGNORE_INDEX, x) for x in ids]
    return ids, labels


def direction_of(module: nn.Module, only: str = "") -> tuple[Parameters, Parameters]:
    """Parameters, detached, and a random direction for those whose name contains ``only``."""
    values = {name: p.detach() for name, p in module.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    along = {
        name: torch.randn(p.shape, generator=generator).to(p.dtype)
        for name, p in values.items()
        if only in name
    }
    return values, along


def tangents(
    module: Callable[..., Tensor], values: Parameters, along: Parameters, batch: PackedBatch
) -> tuple[Tensor, Tensor]:
    """Losses of a packed batch and their derivative along ``along``."""

    def nll_of(moved: Parameters) -> Tensor:
        nll: Tensor = functional_call(module, {**values, **moved}, (batch,))
        return nll

    found: tuple[Tensor, Tensor] = jvp(nll_of, ({k: values[k] for k in along},), (along,))
    return found


def reverse_mode(model: PreTrainedModel, along: Parameters) -> tuple[Tensor, Tensor]:
    """Losses and dot products of their gradients with ``along``, a token and a sequence at a time.

    By transformers' own attention and loss: nothing of codeact takes part.
    """
    losses, dots = [], []
    named = {f"model.{name}": p for name, p in model.named_parameters()}
    for ids, labels in zip(*sequences(), strict=True):
        logits = model(torch.from_numpy(ids)[None], use_cache=False).logits[0, :-1]
        targets = torch.from_numpy(labels[1:])
        for nll in F.cross_entropy(logits, targets, reduction="none")[targets != IGNORE_INDEX]:
            gradients = torch.autograd.grad(
                nll, [named[name] for name in along], retain_graph=True, allow_unused=True
            )
            pairs = zip(gradients, along.values(), strict=True)
            losses.append(nll.detach())
            dots.append(sum((g * d).sum() for g, d in pairs if g is not None))
    return torch.stack(losses), torch.stack(dots)


def worst(found: Tensor, truth: Tensor) -> float:
    return float((found.double() - truth).abs().max() / truth.abs().max())


# transformers takes norms in float32 whatever the model is: 1e-6 is what float64 leaves of it.
@pytest.mark.parametrize(("dtype", "slack"), [(torch.float64, 2e-6), (torch.float32, 1e-4)])
@pytest.mark.parametrize("name", MODELS)
def test_every_token_equals_its_reverse_mode_dot_product(
    make_tiny: Callable[..., PreTrainedModel], name: str, dtype: torch.dtype, slack: float
) -> None:
    module = TokenNll(make_tiny(name).to(dtype))
    values, along = direction_of(module)
    nll, tangent = tangents(module, values, along, pack_sequences(*sequences()))
    stock = make_tiny(name, "eager").double()
    losses, dots = reverse_mode(stock, {k: v.double() for k, v in along.items()})
    assert worst(nll, losses) <= slack
    assert worst(tangent, dots) <= slack


@pytest.mark.parametrize("only", ["layers.1.self_attn.k_proj", "layers.0.mlp", "embed_tokens"])
def test_a_subset_of_the_parameters(make_tiny: Callable[..., PreTrainedModel], only: str) -> None:
    """Tangents that begin in the middle reach attention on some of its inputs only."""
    module = TokenNll(make_tiny("llama-gqa").double())
    values, along = direction_of(module, only)
    assert 1 <= len(along) < len(values)
    _, tangent = tangents(module, values, along, pack_sequences(*sequences()))
    _, dots = reverse_mode(make_tiny("llama-gqa", "eager").double(), along)
    assert worst(tangent, dots) <= 2e-6


@pytest.mark.parametrize("name", MODELS)
def test_packing_does_not_change_a_tangent(
    make_tiny: Callable[..., PreTrainedModel], name: str
) -> None:
    module = TokenNll(make_tiny(name))
    values, along = direction_of(module)
    _, packed = tangents(module, values, along, pack_sequences(*sequences()))
    alone = [
        tangents(module, values, along, pack_sequences([ids], [labels]))[1]
        for ids, labels in zip(*sequences(), strict=True)
    ]
    assert worst(packed, torch.cat(alone)) <= 1e-5


@pytest.mark.parametrize("where", ["jvp-of-compiled", "compiled-jvp"])
def test_compiled_a_tangent_is_right_or_an_error(
    make_tiny: Callable[..., PreTrainedModel], where: str
) -> None:
    """Silent zeros are what torch.compile makes of a custom operator's tangent."""
    model: Any = make_tiny("llama-gqa").double()
    model.model.layers = model.model.layers[:1]  # Dynamo takes seconds for each
    module = TokenNll(model)
    batch = pack_sequences(*sequences())
    values, along = direction_of(module)
    _, truth = tangents(module, values, along, batch)
    torch._dynamo.reset()
    try:
        if where == "compiled-jvp":
            run = torch.compile(
                lambda moved: tangents(module, values, moved, batch)[1], backend="eager"
            )
            found = run(along)
        else:
            model.model.layers[0].compile(backend="eager")
            with torch.no_grad():
                module(batch)  # the graph without tangents exists already
            _, found = tangents(module, values, along, batch)
    except (RuntimeError, NotImplementedError):
        return  # loud is as good as right
    assert worst(found, truth) <= 1e-9
