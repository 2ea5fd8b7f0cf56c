"""A killed run goes on as if nothing had happened: the same losses, the same weights."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from ranks import run_ranks
from training_cases import assert_equal_weights, make_examples, make_plan, tiny, weights_of

from codeact.errors import InputError
from codeact.training import StepLog, TrainConfig, TrainResult, fine_tune

CONFIG = TrainConfig(epochs=3, learning_rate=0.01, accumulation=1, save_steps=3)
METHODS: dict[str, dict[str, Any]] = {
    # Ends within an epoch, where a Trainer that resumed from the end would take a step too many.
    "full": {"max_steps": 7},
    # Its dropout draws from the random state, which has to be the same after the break.
    "lora": {"method": "lora", "lora_dropout": 0.3, "lora_rank": 4},
}
DIES_IN = 5


def train(
    model_folder: str, work: Path, *, resume: bool = False, on_step: Any = None, **options: Any
) -> tuple[TrainResult, Any]:
    model = tiny(model_folder)
    result = fine_tune(
        model, make_examples(model_folder), make_plan(model_folder),
        dataclasses.replace(CONFIG, **options), folder=work, resume=resume, on_step=on_step,
    )  # fmt: skip
    return result, model


def curve(result: TrainResult) -> list[tuple[Any, ...]]:
    """All of every step but the time it took."""
    return [dataclasses.astuple(dataclasses.replace(step, seconds=0)) for step in result.steps]


def die(rank: int, num_ranks: int, model_folder: str, work: str, method: str) -> None:
    def kill(step: StepLog, total: int) -> None:
        if step.step == DIES_IN:
            os.kill(os.getpid(), signal.SIGKILL)

    train(model_folder, Path(work), on_step=kill, **METHODS[method])


@pytest.mark.parametrize("method", METHODS)
def test_killed_run_goes_on(tiny_model_folder: Path, tmp_path: Path, method: str) -> None:
    folder, work, options = str(tiny_model_folder), tmp_path / "work", METHODS[method]
    whole, expected = train(folder, tmp_path / "whole", **options)
    with pytest.raises(AssertionError, match=r"\[-9\]"):
        run_ranks(die, 1, tmp_path / "ranks", model_folder=folder, work=str(work), method=method)
    # A later checkpoint of which some files were written, when it died.
    shutil.copytree(work / "checkpoint-3", work / "checkpoint-4")
    (work / "checkpoint-4" / "codeact_run.json").unlink()
    resumed, model = train(folder, work, resume=True, **options)
    assert resumed.resumed_at == 3
    assert curve(resumed) == curve(whole)
    assert [s.seconds for s in resumed.steps] == sorted(s.seconds for s in resumed.steps)
    assert_equal_weights(weights_of(model), weights_of(expected))
    assert len({step.loss for step in whole.steps}) == len(whole.steps) > DIES_IN
    again, model = train(folder, work, resume=True, **options)  # of a run that has ended
    assert again.resumed_at == len(whole.steps)
    assert curve(again) == curve(whole)
    assert again.num_tokens == whole.num_tokens
    assert_equal_weights(weights_of(model), weights_of(expected))


def test_checkpoints_of_another_run_are_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = str(tiny_model_folder)
    first, _ = train(folder, tmp_path, max_steps=3)
    with pytest.raises(InputError, match=r"written with learning_rate = 0\.01, this run has 0\.02"):
        train(folder, tmp_path, max_steps=3, learning_rate=0.02, resume=True)
    with pytest.raises(InputError, match="checkpoint-3 of an earlier run: resume it"):
        train(folder, tmp_path, max_steps=3)
    fresh, _ = train(folder, tmp_path / "empty", max_steps=3, save_steps=None, resume=True)
    assert fresh.resumed_at == 0
    assert curve(fresh) == curve(first)
    assert not list((tmp_path / "empty").glob("*"))
