"""Directions: which parameters they move, the derivative along them, and what is left behind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from codeact.errors import InputError
from codeact.models import (
    ScoredSequence,
    SequenceLoss,
    along,
    moved,
    parameter_names,
    scored_from,
    stream_losses,
)

LENGTHS = (23, 5, 41, 12, 2)


@pytest.fixture
def sequences() -> list[ScoredSequence]:
    rng = np.random.default_rng(3)
    rows = [rng.integers(3, 97, n).astype(np.int32) for n in LENGTHS]
    return [scored_from(row, len(row) // 2) for row in rows]


def random_direction(
    model: PreTrainedModel, names: tuple[str, ...], seed: int = 0
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(model.named_parameters())
    return {n: torch.randn(parameters[n].shape, generator=generator) * 0.1 for n in names}


def losses_of(model: PreTrainedModel, sequences: list[ScoredSequence]) -> list[SequenceLoss]:
    found = {}
    for pack in stream_losses(model, [sequences], token_budget=30, token_nlls=True):
        found.update(pack)
    return [found[index] for index in range(len(sequences))]


def reverse_dots(
    model: PreTrainedModel, sequence: ScoredSequence, direction: dict[str, Tensor]
) -> np.ndarray:
    """<gradient of each token's loss, direction> by one backward pass a token, from logits."""
    model.set_attn_implementation("eager")
    parameters = dict(model.named_parameters())
    logits = model(
        torch.from_numpy(sequence.input_ids.astype(np.int64))[None], use_cache=False
    ).logits[0]
    dots = []
    for place in np.flatnonzero(sequence.labels[1:] >= 0):
        nll = -logits[place].log_softmax(-1)[int(sequence.labels[place + 1])]
        grads = torch.autograd.grad(
            nll, [parameters[n] for n in direction], retain_graph=True, allow_unused=True
        )
        dots.append(
            sum(
                float((g * v).sum())
                for g, v in zip(grads, direction.values(), strict=True)
                if g is not None
            )
        )
    model.set_attn_implementation("codeact")
    return np.array(dots)


def test_every_token_gets_its_derivative(
    tiny_model: PreTrainedModel, sequences: list[ScoredSequence]
) -> None:
    """All of attention's and the head's features, packed, on two threads, against reverse mode."""
    direction = random_direction(tiny_model, parameter_names(tiny_model))
    plain = losses_of(tiny_model, sequences)
    with along(tiny_model, direction):
        moving = losses_of(tiny_model, sequences)
    for sequence, still, loss in zip(sequences, plain, moving, strict=True):
        expected = reverse_dots(tiny_model, sequence, direction)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(loss.token_tangents, expected, atol=2e-5 * scale, rtol=2e-4)
        assert loss.tangent == pytest.approx(loss.token_tangents.astype(np.float64).sum(), rel=1e-6)
        assert loss.total == pytest.approx(still.total, rel=1e-6)
        assert still.tangent is None
        assert still.token_tangents is None


def test_the_derivative_is_linear_in_the_direction(
    make_tiny: Callable[..., PreTrainedModel], sequences: list[ScoredSequence]
) -> None:
    model = make_tiny("llama-gqa")
    names = parameter_names(model)
    first, second = (random_direction(model, names, seed) for seed in (1, 2))
    both = {n: 2 * first[n] - 3 * second[n] for n in names}
    tangents = []
    for direction in (first, second, both):
        with along(model, direction):
            tangents.append(np.array([loss.tangent for loss in losses_of(model, sequences)]))
    combined = 2 * tangents[0] - 3 * tangents[1]
    scale = np.abs(tangents[0]) * 2 + np.abs(tangents[1]) * 3
    assert (np.abs(tangents[2] - combined) <= 1e-5 * scale).all()


@pytest.mark.parametrize("which", ["all", "last:1", "last:2"])
def test_parameters_that_are_not_named_stay(
    which: str, make_tiny: Callable[..., PreTrainedModel], sequences: list[ScoredSequence]
) -> None:
    model = make_tiny("llama-gqa")
    names = parameter_names(model, which)
    direction = random_direction(model, names)
    with along(model, direction):
        found = losses_of(model, sequences)
    expected = [reverse_dots(model, sequence, direction).sum() for sequence in sequences]
    np.testing.assert_allclose([loss.tangent for loss in found], expected, rtol=5e-4, atol=1e-4)


def test_the_last_layers_are_those_and_the_norm(make_tiny: Callable[..., PreTrainedModel]) -> None:
    names = parameter_names(make_tiny("llama-gqa"), "last:1")
    assert {name.split(".")[1] for name in names} == {"layers", "norm"}
    assert all(name.startswith("model.layers.1.") for name in names if "layers" in name)


@pytest.mark.parametrize("which", ["last:0", "last:3", "last", "lora", "some"])
def test_parameters_that_are_not_there(
    which: str, make_tiny: Callable[..., PreTrainedModel]
) -> None:
    with pytest.raises(InputError, match="parameters"):
        parameter_names(make_tiny("llama-gqa"), which)


@pytest.mark.parametrize("context", ["along", "moved"])
def test_the_model_is_as_it_was(
    context: str, make_tiny: Callable[..., PreTrainedModel], sequences: list[ScoredSequence]
) -> None:
    """Also after an error, and in the order that optimizers and checkpoints go by."""
    model = make_tiny("gemma2-softcap")  # tied weights
    before = list(model.named_parameters())
    direction = random_direction(model, parameter_names(model))
    opened = along(model, direction) if context == "along" else moved(model, direction, 0.5)
    with pytest.raises(KeyError, match="inside"), opened:
        _raise_if_tied(model)
    after = list(model.named_parameters())
    assert [name for name, _ in before] == [name for name, _ in after]
    assert all(a is b for (_, a), (_, b) in zip(before, after, strict=True))


def _raise_if_tied(model: PreTrainedModel) -> None:
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    raise KeyError("inside")


def test_moved_weights_are_moved(
    make_tiny: Callable[..., PreTrainedModel], sequences: list[ScoredSequence]
) -> None:
    model, other = make_tiny("qwen2-bias"), make_tiny("qwen2-bias")
    direction = random_direction(model, parameter_names(model))
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            parameter.add_(direction[name], alpha=-0.25)
    with moved(model, direction, -0.25):
        found = losses_of(model, sequences)
    expected = losses_of(other, sequences)
    assert [loss.total for loss in found] == [loss.total for loss in expected]


def test_moved_in_another_dtype(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model = make_tiny("llama-gqa").to(torch.bfloat16)
    name = "model.norm.weight"
    with moved(model, {name: torch.ones(32, dtype=torch.bfloat16)}, 1e-4, dtype=torch.float32):
        inside = dict(model.named_parameters())
        assert {p.dtype for p in inside.values()} == {torch.float32}
        assert torch.equal(inside[name], torch.full((32,), 1.0001))


def test_a_direction_unlike_the_model(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model = make_tiny("llama-gqa")
    for name, tangent in (
        ("model.norm.weight", torch.ones(31)),
        ("model.norm.weight", torch.ones(32, dtype=torch.bfloat16)),
        ("model.norm.bias", torch.ones(32)),
    ):
        with pytest.raises(ValueError, match="direction"), along(model, {name: tangent}):
            pass


def test_a_direction_that_does_not_reach_the_loss(
    make_tiny: Callable[..., PreTrainedModel],
    sequences: list[ScoredSequence],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody's operation dropped the tangent: never a zero."""
    model = make_tiny("llama-gqa")
    decoder = model.get_decoder()
    norm = decoder.norm.forward
    monkeypatch.setattr(decoder.norm, "forward", lambda x: norm(x.detach()).detach())
    names = parameter_names(model, "last:1")
    with (
        pytest.raises(RuntimeError, match="does not reach the loss"),
        along(model, random_direction(model, names)),
    ):
        losses_of(model, sequences)


def test_padding_has_no_derivative_as_it_has_no_gradient(
    make_tiny: Callable[..., PreTrainedModel],
) -> None:
    model = make_tiny("llama-gqa")
    assert model.get_input_embeddings().padding_idx == 0
    ids = np.array([5, 0, 7, 0, 9, 11], dtype=np.int32)
    sequence = scored_from(ids, 1)
    name = "model.embed_tokens.weight"
    direction = random_direction(model, (name,))
    with along(model, direction):
        (loss,) = losses_of(model, [sequence])
    expected = reverse_dots(model, sequence, direction)
    np.testing.assert_allclose(loss.token_tangents, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("which", ["model.embed_tokens.weight", "all"])
@pytest.mark.parametrize("name", ["llama-gqa", "gemma2-softcap"])
def test_differences_leave_out_the_padding_too(
    name: str, which: str, make_tiny: Callable[..., PreTrainedModel]
) -> None:
    """Else they contradict reverse mode where tied weights move the row by the head's gradient."""
    model = make_tiny(name).double()
    names = parameter_names(model) if which == "all" else (which,)
    sequence = scored_from(np.array([5, 0, 7, 0, 9, 11], dtype=np.int32), 1)
    direction = {n: v.double() for n, v in random_direction(model, names).items()}
    totals = []
    for step in (1e-3, -1e-3):  # norms are in float32: a smaller one meets their rounding
        with moved(model, direction, step):
            totals += [loss.total for loss in losses_of(model, [sequence])]
    found = (totals[0] - totals[1]) / 2e-3
    assert found == pytest.approx(reverse_dots(model, sequence, direction).sum(), rel=5e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_gpu(
    dtype: torch.dtype,
    make_tiny: Callable[..., PreTrainedModel],
    sequences: list[ScoredSequence],
) -> None:
    model = make_tiny("llama-gqa")
    direction = random_direction(model, parameter_names(model))
    expected = [reverse_dots(model, sequence, direction).sum() for sequence in sequences]
    there = make_tiny("llama-gqa").to("cuda", dtype)
    with along(there, {n: v.to("cuda", dtype) for n, v in direction.items()}):
        found = [loss.tangent for loss in losses_of(there, sequences)]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        found, expected, atol=scale * (1e-4 if dtype == torch.float32 else 0.08)
    )
