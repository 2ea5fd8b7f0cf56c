"""Influence under the preconditioner that the trainer's AdamW has at each step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from in_run_cases import (
    StepRecorder,
    explicit_gradients,
    key_of,
    packed_trainer,
    random_rows,
    sequences,
    tiny_model,
)
from transformers import LlamaForCausalLM

from codeact.errors import InputError
from codeact.training import (
    InRunInfluence,
)
from codeact.training.in_run.optimizer import adam_direction


@pytest.fixture
def model() -> LlamaForCausalLM:
    return tiny_model()


def test_adam_direction_is_the_step_of_torch(model: LlamaForCausalLM) -> None:
    """Without momentum the preconditioned gradient is what AdamW moves by."""
    weight = torch.nn.Parameter(torch.randn(7))
    unused = torch.nn.Parameter(torch.randn(2))
    optimizer = torch.optim.AdamW([weight, unused], lr=1e-3, betas=(0.0, 0.9), weight_decay=0.0)
    parameters = {"weight": weight, "unused": unused}
    gradient = {"weight": torch.randn(7), "unused": torch.zeros(2)}
    assert adam_direction(gradient, parameters, optimizer) is None
    for _ in range(5):
        weight.grad, unused.grad = gradient["weight"].clone(), torch.zeros(2)
        before = weight.detach().clone()
        direction = adam_direction(gradient, parameters, optimizer)
        optimizer.step()
    assert direction is not None
    assert torch.allclose((before - weight.detach()) / 1e-3, direction["weight"], rtol=1e-3)
    # What was never moved is not moved without bound.
    unseen = adam_direction(gradient | {"unused": torch.ones(2)}, parameters, optimizer)
    assert unseen is not None
    assert (unseen["unused"] < 10).all()
    sgd = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
    sgd.step()
    with pytest.raises(InputError, match="exp_avg_sq"):
        adam_direction({"weight": gradient["weight"]}, parameters, sgd)


def test_a_weight_that_no_batch_reached_is_at_its_first_step() -> None:
    """AdamW without decay then moves it by its rate, whatever the gradient."""
    weight, unreached = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = torch.optim.AdamW([weight, unreached], lr=1.0, weight_decay=0.0)
    weight.grad = torch.ones(2)
    optimizer.step()
    gradient = {"weight": torch.ones(2), "unreached": torch.tensor([0.0, -3.0])}
    found = adam_direction(gradient, {"weight": weight, "unreached": unreached}, optimizer)
    assert found is not None
    before = unreached.detach().clone()
    unreached.grad, weight.grad = gradient["unreached"], None
    optimizer.step()
    assert torch.allclose(found["unreached"], before - unreached.detach(), rtol=1e-5)


def test_an_optimizer_without_any_state_is_no_adam_before_its_first_step() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    plain = torch.optim.SGD([weight], lr=1.0)
    with pytest.raises(InputError, match="the trainer's optimizer has no betas: use optimizer"):
        adam_direction({"weight": torch.ones(2)}, {"weight": weight}, plain)


def test_preconditioned_by_the_trainers_adam(model: LlamaForCausalLM, tmp_path: Path) -> None:
    rows, validation = random_rows(6), random_rows(3, seed=1)
    trainer = packed_trainer(
        model, rows, tmp_path, capacity=100, num_train_epochs=3, optim="adamw_torch"
    )
    moments = []
    draw = trainer.get_batch_samples

    def record(*args: Any) -> Any:
        state = trainer.optimizer.state
        moments.append([state[p]["exp_avg_sq"].clone() for p in model.parameters() if state.get(p)])
        return draw(*args)

    trainer.get_batch_samples = record
    recorder = StepRecorder(trainer)
    influence = InRunInfluence(sequences(validation), optimizer="adamw").attach(trainer)
    trainer.train()
    assert [step.step for step in influence.steps] == [1, 2]  # no moments before the first
    expected = dict.fromkeys((key_of(row) for row in rows), 0.0)
    for step in (1, 2):
        at, drawn, rate = recorder.steps[step]
        gradients, gradient = explicit_gradients(at, drawn, validation)
        moment = torch.cat([m.flatten().double() for m in moments[step]])
        moment = torch.maximum(moment, 0.001 * gradient**2) / (1 - 0.999**step)
        products = rate * gradients @ (gradient / (moment.sqrt() + 1e-8))
        for row, value in zip(drawn, products.tolist(), strict=True):
            expected[key_of(row)] += value
    for record_ in influence.table.to_pylist():
        assert record_["influence"] == pytest.approx(expected[record_["sequence_hash"]], rel=1e-3)
