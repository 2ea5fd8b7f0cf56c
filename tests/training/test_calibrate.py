"""A cost model fitted to timed steps predicts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedModel

from codeact.errors import InputError
from codeact.models import load_model
from codeact.packing import ModelCost, plan_bins
from codeact.training import calibrate_cost
from codeact.training.cost import calibrate

CAPACITY = 512


@pytest.fixture
def model(tiny_model_folder: Path) -> PreTrainedModel:
    return load_model(tiny_model_folder, device="cpu").model


@pytest.mark.parametrize("capacity", [128, 512, 32768])
@pytest.mark.parametrize("num_steps", [6, 20])
def test_packs_differ_enough_and_fit(capacity: int, num_steps: int) -> None:
    packs = calibrate._random_packs(np.random.default_rng(0), capacity, num_steps)
    totals = [int(pack.sum()) for pack in packs]
    assert max(totals) == capacity
    assert min(totals) <= 0.45 * capacity
    assert all((pack > 0).all() for pack in packs)
    assert [len(pack) for pack in packs[:2]] == [1, capacity // 32]


def test_known_times_are_found_again(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = ModelCost.from_config(model.config)
    per_pair = cost.attention[0].flops_per_pair * cost.attention[0].num_layers

    def seconds_of(_: Any, seqlens: np.ndarray, rng: np.random.Generator) -> float:
        lengths = seqlens.astype(float)
        pairs = (lengths * (lengths + 1) / 2).sum()
        return 0.5 + 1e-3 * lengths.sum() + 1e-5 * pairs

    monkeypatch.setattr(calibrate, "_seconds_of", seconds_of)
    fitted = calibrate_cost(model, cost, capacity=CAPACITY)
    assert fitted.unit == "seconds"
    assert fitted.per_step == pytest.approx(0.5, rel=1e-6)
    assert fitted.flops_per_token == pytest.approx(1e-3, rel=1e-6)
    assert fitted.attention[0].flops_per_pair == pytest.approx(
        1e-5 / cost.attention[0].num_layers, rel=1e-6
    )
    assert per_pair > 0


def test_real_times(model: PreTrainedModel) -> None:
    """They depend on the machine; what must hold is their order, and that nothing stays behind."""
    model.eval()
    fitted = calibrate_cost(model, ModelCost.from_config(model.config), capacity=CAPACITY)
    assert 0 < fitted.of_step([64]) < fitted.of_step([CAPACITY]) < 60
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training
    plan = plan_bins([64] * 8 + [CAPACITY] * 4, CAPACITY, world_size=2, cost=fitted)
    assert plan.num_tokens == 64 * 8 + CAPACITY * 4


def test_too_little_to_fit(model: PreTrainedModel) -> None:
    cost = ModelCost.from_config(model.config)
    with pytest.raises(InputError, match="capacity must be at least 128 and num_steps at least 6"):
        calibrate_cost(model, cost, capacity=127)
    with pytest.raises(InputError, match="got 512 and 5"):
        calibrate_cost(model, cost, capacity=512, num_steps=5)
