"""The gradient of a weighted sum of losses against plain reverse mode, a sequence at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from codeact.models import EmbeddingNoise, ScoredSequence, parameter_names, scored_from
from codeact.models.stream.gradient import LossGradient, loss_gradient

WEIGHTS = np.array([0.5, -1.25, 0.0, 2.0, 0.125])


def sequences() -> list[ScoredSequence]:
    rng = np.random.default_rng(0)
    rows = [rng.integers(3, 97, size=n).astype(np.int32) for n in (12, 2, 30, 21, 7)]
    return [scored_from(row, first) for row, first in zip(rows, (1, 1, 4, 9, 3), strict=True)]


def plain(model: PreTrainedModel, weights: np.ndarray) -> tuple[float, dict[str, Tensor]]:
    """In float64, without packing, from transformers' own logits."""
    twin = copy.deepcopy(model).double()
    twin.set_attn_implementation("eager")
    twin.requires_grad_(True)
    loss = torch.zeros((), dtype=torch.float64)
    for sequence, weight in zip(sequences(), weights.tolist(), strict=True):
        ids = torch.from_numpy(sequence.input_ids).long()
        labels = torch.from_numpy(sequence.labels).long()
        logits = twin(ids[None], use_cache=False).logits[0]
        loss = loss + weight * F.cross_entropy(logits[:-1], labels[1:], reduction="sum")
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in twin.named_parameters()
    }


def distance(found: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
    """Of the whole vectors, relative to the truth."""
    apart = sum(float((found[n].double().cpu() - truth[n].double()).square().sum()) for n in found)
    return (apart / sum(float(truth[n].double().square().sum()) for n in found)) ** 0.5


def run(model: PreTrainedModel, weights: np.ndarray = WEIGHTS, **options: object) -> LossGradient:
    names = parameter_names(model)
    return loss_gradient(model, sequences(), weights, names, **options)  # type: ignore[arg-type]


@pytest.fixture
def llama(make_tiny: Callable[..., PreTrainedModel]) -> PreTrainedModel:
    return make_tiny("llama-gqa")


def test_every_kind_of_model(tiny_model: PreTrainedModel) -> None:
    """Biases, windows, soft caps, scaled logits, tied weights (Gemma 2, Cohere)."""
    value, truth = plain(tiny_model, WEIGHTS)
    found = run(tiny_model)
    assert found.value == pytest.approx(value, rel=1e-5)
    assert list(found.gradient) == [name for name, _ in tiny_model.named_parameters()]
    for name, gradient in found.gradient.items():
        assert gradient.dtype == torch.float32
        assert distance({name: gradient}, truth) < 1e-4, name
    assert distance(found.gradient, truth) < 2e-5


@pytest.mark.parametrize("token_budget", [1, 40])
def test_packs_leave_no_trace(llama: PreTrainedModel, token_budget: int) -> None:
    whole = run(llama)
    found = run(llama, token_budget=token_budget)
    assert found.value == pytest.approx(whole.value, rel=1e-6)
    assert distance(found.gradient, whole.gradient) < 1e-5


def test_float64_weights_are_summed_in_float64(llama: PreTrainedModel) -> None:
    value, truth = plain(llama, WEIGHTS)
    found = run(llama.double())
    assert {gradient.dtype for gradient in found.gradient.values()} == {torch.float64}
    # transformers' norms and eager softmax round to float32 whatever the weights are.
    assert found.value == pytest.approx(value, rel=1e-7)
    assert distance(found.gradient, truth) < 1e-6


def test_bfloat16_weights_are_summed_in_float32(llama: PreTrainedModel) -> None:
    rounded = llama.to(torch.bfloat16)
    _, truth = plain(rounded, WEIGHTS)
    found = run(rounded, token_budget=1)
    assert {gradient.dtype for gradient in found.gradient.values()} == {torch.float32}
    assert distance(found.gradient, truth) < 0.1
    # Sums rounded to bfloat16 would have its 8 bits.
    some = found.gradient["model.embed_tokens.weight"]
    assert (some != some.to(torch.bfloat16).float()).any()


def test_small_weights_do_not_underflow_in_float16(llama: PreTrainedModel) -> None:
    """The mean over a large validation set has weights that float16 would lose."""
    half = llama.to(torch.float16)
    found, tiny = run(half), run(half, WEIGHTS * 2.0**-40)
    assert tiny.value == found.value * 2.0**-40
    for name, gradient in found.gradient.items():
        assert torch.equal(tiny.gradient[name], gradient * 2.0**-40), name


def test_some_parameters(llama: PreTrainedModel) -> None:
    """Only they are there, as without the others; flags, ``.grad`` and weights are untouched."""
    names = parameter_names(llama, "last:1")
    llama.model.embed_tokens.weight.requires_grad_(False)
    chosen = dict(llama.named_parameters())[names[0]].requires_grad_(False)
    chosen.grad = torch.ones_like(chosen)
    flags = [p.requires_grad for p in llama.parameters()]
    before = {name: p.detach().clone() for name, p in llama.named_parameters()}
    whole = run(llama)
    with torch.no_grad():
        found = loss_gradient(llama, sequences(), WEIGHTS, names)
    assert tuple(found.gradient) == names
    assert distance(found.gradient, whole.gradient) < 1e-5
    assert [p.requires_grad for p in llama.parameters()] == flags
    assert all(p.grad is None for p in llama.parameters() if p is not chosen)
    assert torch.equal(chosen.grad, torch.ones_like(chosen))
    assert all(torch.equal(before[name], p) for name, p in llama.named_parameters())


def test_parameters_the_loss_does_not_reach(llama: PreTrainedModel) -> None:
    llama.register_parameter("aside", torch.nn.Parameter(torch.ones(3)))
    found = run(llama)
    assert torch.equal(found.gradient["aside"], torch.zeros(3))
    alone = loss_gradient(llama, sequences(), WEIGHTS, ["aside"])
    assert torch.equal(alone.gradient["aside"], torch.zeros(3))
    assert alone.value == pytest.approx(found.value, rel=1e-6)


def test_nothing_scored_is_zero(llama: PreTrainedModel) -> None:
    nothing = scored_from(np.arange(3, 9, dtype=np.int32), 6)
    seen: list[tuple[int, int]] = []
    found = loss_gradient(
        llama, [nothing], np.ones(1), ["lm_head.weight"], on_progress=lambda *at: seen.append(at)
    )
    assert found.value == 0.0
    assert not found.gradient["lm_head.weight"].any()
    with_others = loss_gradient(
        llama, [nothing, *sequences()], np.array([9.0, *WEIGHTS]), parameter_names(llama)
    )
    assert with_others.value == pytest.approx(run(llama).value, rel=1e-6)


def test_progress_ends_at_all(llama: PreTrainedModel) -> None:
    seen: list[tuple[int, int]] = []
    run(llama, token_budget=20, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5, 5)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_a_gradient_that_is_not_finite_names_its_parameter(llama: PreTrainedModel) -> None:
    run(llama)  # the probe of isolation is behind us
    with torch.no_grad():
        llama.model.layers[1].mlp.down_proj.weight[0, 0] = torch.inf
    flags = [p.requires_grad for p in llama.parameters()]
    with pytest.raises(RuntimeError, match=r"not finite at parameter 'model\.embed_tokens\.weight"):
        run(llama)
    assert [p.requires_grad for p in llama.parameters()] == flags


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["lm_head.bias"]}, "names must be of .*'lm_head.bias'"),
        ({"names": []}, "at least one"),
        ({"names": ["lm_head.weight"] * 2}, "differ"),
        ({"weights": np.ones(4)}, r"one for each of 5 sequences, got shape \(4,\)"),
        ({"weights": np.full(5, np.nan)}, "finite"),
    ],
)
def test_bad_input(llama: PreTrainedModel, change: dict[str, object], message: str) -> None:
    options: dict[str, object] = {"weights": WEIGHTS, "names": ["lm_head.weight"]}
    with pytest.raises(ValueError, match=message):
        loss_gradient(llama, sequences(), **{**options, **change})  # type: ignore[arg-type]


def test_training_mode_and_noise_are_refused(llama: PreTrainedModel) -> None:
    noisy = [sequences()[0]._replace(noise=EmbeddingNoise(1, 0.5))]
    with pytest.raises(ValueError, match=r"sequences\[0\]"):
        loss_gradient(llama, noisy, np.ones(1), ["lm_head.weight"])
    with pytest.raises(ValueError, match="evaluation mode"):
        run(llama.train())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_gpu(llama: PreTrainedModel, dtype: torch.dtype) -> None:
    rounded = llama.to(dtype)
    value, truth = plain(rounded, WEIGHTS)
    found = run(rounded.to("cuda"))
    is_exact = dtype == torch.float32
    assert found.value == pytest.approx(value, rel=1e-3 if is_exact else 5e-2)
    assert {g.device.type for g in found.gradient.values()} == {"cuda"}
    assert distance(found.gradient, truth) < (1e-3 if is_exact else 0.1)
