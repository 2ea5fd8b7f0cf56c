"""Ranks time their own steps, but plan with the first one's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from reference import make_plan, tiny

from codeact.packing import ModelCost
from codeact.training import calibrate_cost


def ranks_calibrate(rank: int, num_ranks: int, model_folder: str) -> tuple[ModelCost, str]:
    model = tiny(model_folder)
    cost = calibrate_cost(model, ModelCost.from_config(model.config), capacity=512, num_steps=8)
    return cost, make_plan(num_ranks, cost=cost).fingerprint


def test_ranks_plan_alike(tiny_model_folder: Path, run_ranks: Callable[..., list[Any]]) -> None:
    mine, other = run_ranks(ranks_calibrate, model_folder=str(tiny_model_folder))
    assert mine[0].unit == "seconds"
    assert mine[1] == other[1]
    assert mine[0] == other[0]
