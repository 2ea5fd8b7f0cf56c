"""Exact one-step influence against torch.optim on a copy of the model, a sequence at a time."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from codeact.errors import InputError
from codeact.models import ScoredSequence, load_model, parameter_names, scored_from
from codeact.models.stream.gradient import loss_gradient
from codeact.scoring.influence import oracle
from codeact.scoring.influence.adam import AdamState
from codeact.scoring.influence.oracle import (
    AdamWStep,
    SgdStep,
    one_step_influence,
    task_losses,
)


def sequences(seed: int, *seqlens: int) -> list[ScoredSequence]:
    rng = np.random.default_rng(seed)
    return [scored_from(rng.integers(3, 200, size=n).astype(np.int32), 4) for n in seqlens]


ROWS = sequences(0, 9, 21, 6)
TASKS = {"short": sequences(1, 8, 12), "long": sequences(2, 31)}


@pytest.fixture
def model(tiny_model_folder: Path) -> PreTrainedModel:
    return load_model(tiny_model_folder, device="cpu").model


def random_state(model: PreTrainedModel, **options: Any) -> AdamState:
    """Moments as of gradients about as long as real ones."""
    generator = torch.Generator().manual_seed(3)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    draw = {name: torch.randn(s, generator=generator) * 0.1 for name, s in shapes.items()}
    again = {name: torch.randn(s, generator=generator) * 0.1 for name, s in shapes.items()}
    return AdamState(draw, {name: x.square() + 1e-3 for name, x in again.items()}, 7, **options)


def optimizer_at(
    state: AdamState, parameters: dict[str, torch.nn.Parameter], **options: Any
) -> torch.optim.AdamW:
    """torch's, with the moments of ``state``."""
    optimizer = torch.optim.AdamW(
        parameters.values(), betas=state.betas, eps=state.eps, foreach=False, **options
    )
    for name, parameter in parameters.items():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(state.step)),
            "exp_avg": state.exp_avg[name].to(parameter).clone(),
            "exp_avg_sq": state.exp_avg_sq[name].to(parameter).clone(),
        }
    return optimizer


def mean_loss(model: PreTrainedModel, sequence: ScoredSequence) -> Tensor:
    """From transformers' logits."""
    ids = torch.from_numpy(sequence.input_ids).long()
    labels = torch.from_numpy(sequence.labels).long()
    logits = model(ids[None], use_cache=False).logits[0]
    return F.cross_entropy(logits[:-1], labels[1:])


def plain_influence(
    model: PreTrainedModel, make_optimizer: Any, *, names: Any = None, max_grad_norm: Any = None
) -> NDArray[np.float64]:
    """Another copy of the model for every row."""

    def losses(model: PreTrainedModel) -> NDArray[np.float64]:
        with torch.no_grad():
            return np.array(
                [np.mean([mean_loss(model, s).item() for s in task]) for task in TASKS.values()]
            )

    found = []
    for row in ROWS:
        twin = copy.deepcopy(model)
        twin.set_attn_implementation("eager")
        moving = {n: p for n, p in twin.named_parameters() if names is None or n in names}
        optimizer = make_optimizer(moving)
        before = losses(twin)
        mean_loss(twin, row).backward()  # type: ignore[no-untyped-call]
        if max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(moving.values(), max_grad_norm)
        optimizer.step()
        found.append(before - losses(twin))
    return np.array(found)


def assert_close(found: NDArray[np.float64], truth: NDArray[np.float64]) -> None:
    """Float64 weights: what is left is transformers' float32 norms, 1e-7 of a loss of 6."""
    assert np.abs(found - truth).max() < 1e-5
    assert np.abs(truth).min() > 1e-3


def test_sgd(model: PreTrainedModel) -> None:
    truth = plain_influence(model.double(), lambda p: torch.optim.SGD(p.values(), lr=0.02))
    assert_close(one_step_influence(model, ROWS, TASKS, SgdStep(0.02)), truth)


@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
def test_adamw(model: PreTrainedModel, max_grad_norm: float | None) -> None:
    state = random_state(model.double(), betas=(0.9, 0.95), weight_decay=0.3)
    truth = plain_influence(
        model,
        lambda p: optimizer_at(state, p, lr=0.01, weight_decay=0.3),
        max_grad_norm=max_grad_norm,
    )
    step = AdamWStep(0.01, state, max_grad_norm=max_grad_norm)
    assert_close(one_step_influence(model, ROWS, TASKS, step), truth)


def test_some_parameters(model: PreTrainedModel) -> None:
    names = parameter_names(model.double(), "last:1")
    truth = plain_influence(model, lambda p: torch.optim.SGD(p.values(), lr=0.1), names=names)
    found = one_step_influence(model, ROWS, TASKS, SgdStep(0.1), names=names)
    assert_close(found, truth)
    everything = one_step_influence(model, ROWS, TASKS, SgdStep(0.1))
    assert np.abs(found - everything).max() > 1e-2


def test_a_small_step_is_the_product_of_gradients(model: PreTrainedModel) -> None:
    """phi of the fast scores: eta * <grad l(x), grad L(V)> + O(eta ** 2)."""
    names, rate = parameter_names(model.double()), 1e-5

    def gradient_of(rows: list[ScoredSequence]) -> Tensor:
        weights = np.array([1 / ((s.labels[1:] != -100).sum() * len(rows)) for s in rows])
        found = loss_gradient(model, rows, weights, names).gradient
        return torch.cat([part.flatten() for part in found.values()])

    truth = [[gradient_of([row]) @ gradient_of(task) for task in TASKS.values()] for row in ROWS]
    found = one_step_influence(model, ROWS, TASKS, SgdStep(rate)) / rate
    np.testing.assert_allclose(found, np.array(truth), rtol=0, atol=0.02 * np.abs(truth).max())


@pytest.mark.parametrize("name", ["sgd", "adamw", "adamw-clipped", "fresh"])
def test_steps_are_those_of_torch_to_the_bit(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (5, 7), "b": (3,)}

    def draw() -> dict[str, Tensor]:
        return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}

    parameters = {key: torch.nn.Parameter(value) for key, value in draw().items()}
    before = {key: parameter.detach().clone() for key, parameter in parameters.items()}
    gradient, second = draw(), {key: value.square() for key, value in draw().items()}
    state = AdamState(draw(), second, 3, (0.8, 0.97), 1e-7, {"a": 0.1})
    max_norm = 1.5 if name == "adamw-clipped" else None
    step: SgdStep | AdamWStep = AdamWStep(0.3, state, max_grad_norm=max_norm)
    if name == "fresh":
        zeros = {key: torch.zeros(shape) for key, shape in shapes.items()}
        state = AdamState(zeros, zeros, 0)
        step = AdamWStep(0.3, state, weight_decay=0.1)
    optimizer: torch.optim.Optimizer = optimizer_at(state, parameters, lr=0.3, weight_decay=0.1)
    if name == "sgd":
        step, optimizer = SgdStep(0.3), torch.optim.SGD(parameters.values(), 0.3, foreach=False)
    elif name != "fresh":  # "b" does not decay
        optimizer.add_param_group({"params": []} | {"weight_decay": 0.0})
        optimizer.param_groups[1]["params"].append(optimizer.param_groups[0]["params"].pop())
    moments = {key: value.clone() for key, value in state.exp_avg.items()}
    for key, parameter in parameters.items():
        parameter.grad = gradient[key].clone()
    if max_norm is not None:
        torch.nn.utils.clip_grad_norm_(parameters.values(), max_norm)
    optimizer.step()
    found = step.after(before, gradient)
    for key, parameter in parameters.items():
        assert torch.equal(found[key], parameter), key
        assert not torch.equal(before[key], parameter)
        assert torch.equal(moments[key], state.exp_avg[key])  # nothing is written to the state


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_weights_come_back_to_the_bit(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, error: type[BaseException] | None
) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    kept = {name: (p.data_ptr(), p.requires_grad) for name, p in model.named_parameters()}
    step = AdamWStep(0.1, random_state(model))
    if error is None:
        one_step_influence(model, ROWS, TASKS, step)
    else:
        calls, real = [], oracle.stream_losses

        def interrupted(*args: Any, **options: Any) -> Any:
            calls.append(args)
            if len(calls) == 3:  # after the step on the second row
                assert not all(torch.equal(before[n], p) for n, p in model.named_parameters())
                raise error
            return real(*args, **options)

        monkeypatch.setattr(oracle, "stream_losses", interrupted)
        with pytest.raises(error):
            one_step_influence(model, ROWS, TASKS, step)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert kept == {n: (p.data_ptr(), p.requires_grad) for n, p in model.named_parameters()}


def test_the_same_rows_give_the_same_numbers(model: PreTrainedModel) -> None:
    """Nothing of one row is left in the weights when the next is looked at."""
    found = one_step_influence(model, [ROWS[0], ROWS[1], ROWS[0]], TASKS, SgdStep(0.05))
    assert (found[0] == found[2]).all()
    assert (found[0] != found[1]).all()


def test_a_row_without_a_loss_has_no_influence(model: PreTrainedModel) -> None:
    nothing = scored_from(np.arange(3, 9, dtype=np.int32), 6)
    seen: list[tuple[int, int]] = []
    found = one_step_influence(
        model, [nothing, ROWS[0]], TASKS, SgdStep(0.05), on_progress=lambda *at: seen.append(at)
    )
    assert np.isnan(found[0]).all()
    assert (found[1] == one_step_influence(model, ROWS[:1], TASKS, SgdStep(0.05))[0]).all()
    assert seen == [(1, 2), (2, 2)]


def test_task_losses_are_means_of_means(model: PreTrainedModel) -> None:
    truth = [np.mean([mean_loss(model, s).item() for s in task]) for task in TASKS.values()]
    np.testing.assert_allclose(task_losses(model, TASKS), truth, rtol=1e-5)
    np.testing.assert_allclose(task_losses(model, TASKS, token_budget=1), truth, rtol=1e-5)


def test_bad_input(model: PreTrainedModel) -> None:
    step, nothing = SgdStep(0.1), scored_from(np.arange(3, 9, dtype=np.int32), 6)
    with pytest.raises(InputError, match="at least one validation task"):
        one_step_influence(model, ROWS, {}, step)
    for problems in ([], [ROWS[0], nothing]):
        with pytest.raises(InputError, match="validation task 'empty' must have problems"):
            one_step_influence(model, ROWS, {"empty": problems}, step)
    with pytest.raises(InputError, match="no moments of lm_head"):
        one_step_influence(
            model, ROWS, TASKS, AdamWStep(0.1, AdamState({}, {}, 1)), names=["lm_head.weight"]
        )
    with pytest.raises(InputError, match="names must be of parameters of the model, got 'head'"):
        one_step_influence(model, ROWS, TASKS, step, names=["head"])
    with pytest.raises(InputError, match=r"float32 weights, got .* in torch\.bfloat16"):
        one_step_influence(model.to(torch.bfloat16), ROWS, TASKS, step)


def test_a_row_that_is_not_finite_is_named(model: PreTrainedModel) -> None:
    task_losses(model, TASKS)  # the probe of isolation is behind us
    with torch.no_grad():
        model.get_input_embeddings().weight[250] = torch.inf
    bad = ROWS[0].input_ids.copy()
    bad[2] = 250
    with pytest.raises(RuntimeError, match=r"rows\[1\]: the gradient of the loss is not finite"):
        one_step_influence(model, [ROWS[1], scored_from(bad, 4)], TASKS, SgdStep(0.1))


@pytest.mark.gpu
def test_on_gpu(model: PreTrainedModel) -> None:
    step = AdamWStep(0.01, random_state(model))  # its moments stay on the CPU
    truth = one_step_influence(model, ROWS, TASKS, step)
    found = one_step_influence(model.to("cuda"), ROWS, TASKS, step)
    np.testing.assert_allclose(found, truth, rtol=0, atol=0.01 * np.abs(truth).max())
