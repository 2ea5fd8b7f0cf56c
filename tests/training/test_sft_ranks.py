"""fine_tune on two ranks, replicated and sharded: equal to one rank with twice the accumulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_ranks
from training_cases import make_examples, make_plan, tiny, weights_of

from codeact.errors import InputError
from codeact.models import load_model
from codeact.training import TrainConfig, TrainResult, fine_tune

# The plans of one rank and of two group the bins of an epoch in other ways, so that a step is an
# epoch; that every rank gets its bins step by step is for tests/skins/test_hf_trainer.py.
BASE: dict[str, Any] = {
    "epochs": 3, "learning_rate": 0.05, "lr_scheduler": "linear", "warmup_ratio": 0.0,
    "optimizer": "sgd", "accumulation": 2,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"method": "lora", "lora_targets": ("q_proj", "down_proj")},
    "fsdp": {"fsdp": True},
    "fsdp-lora": {"method": "lora", "lora_targets": ("q_proj", "down_proj"), "fsdp": True},
}

# SGD holds no state, which is not to be told from one that was lost.
RESUMED = {"fsdp": True, "optimizer": "adamw", "learning_rate": 0.01, "save_steps": 2}


def train(
    model_folder: str, output: Path, num_ranks: int, *, capacity: int = 220, **options: Any
) -> tuple[TrainResult, Any]:
    model = tiny(model_folder)
    examples = make_examples(model_folder)
    plan = make_plan(model_folder, num_ranks, capacity)
    resume = options.pop("resume", False)
    result = fine_tune(
        model, examples, plan, TrainConfig(**{**BASE, **options}),
        folder=output / "work", save_to=output / "model", resume=resume,
    )  # fmt: skip
    return result, model


def ranks_train(rank: int, num_ranks: int, model_folder: str, output: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, options in KINDS.items():
        result, model = train(model_folder, Path(output) / name, num_ranks, **options)
        found[name] = result, type(next(model.parameters())).__name__
    found["whole"] = train(model_folder, Path(output) / "whole", num_ranks, **RESUMED)[0], ""
    # As if the ranks had been killed while they wrote the last checkpoint.
    last = max(
        (Path(output) / "whole/work").glob("checkpoint-*/codeact_run.json"),
        key=lambda path: int(path.parent.name.rpartition("-")[2]),
    )
    torch.distributed.barrier()
    if rank == 0:
        last.unlink()
    torch.distributed.barrier()
    resumed, _ = train(model_folder, Path(output) / "whole", num_ranks, **RESUMED, resume=True)
    found["resumed"] = resumed, ""
    # One bin for two ranks: the second one trains on nothing, and is waited for.
    lone, _ = train(model_folder, Path(output) / "lone", num_ranks, capacity=4000, max_steps=2)
    found["lone"] = lone, ""
    with pytest.raises(InputError, match="the plan is for 1 processes and 2 train"):
        fine_tune(
            tiny(model_folder), make_examples(model_folder), make_plan(model_folder, 1),
            TrainConfig(**BASE), folder=Path(output) / "refused",
        )  # fmt: skip
    return found


def test_two_ranks(tiny_model_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    names = {"model_folder": str(tiny_model_folder), "output": str(output)}
    mine, other = run_ranks(ranks_train, 2, tmp_path / "ranks", **names)
    single: dict[str, Any] = {}
    for name, options in KINDS.items():
        options = {key: value for key, value in options.items() if key != "fsdp"}
        result, _ = train(
            str(tiny_model_folder), tmp_path / f"single-{name}", 1, accumulation=4, **options
        )
        single[name] = result
        expected = [step.loss for step in result.steps]
        for theirs, kind in (mine[name], other[name]):
            assert kind == ("DTensor" if "fsdp" in name else "Parameter")
            np.testing.assert_allclose([s.loss for s in theirs.steps], expected, rtol=1e-5)
            assert theirs.num_tokens == result.num_tokens  # of both ranks
            assert [s.num_loss_tokens for s in theirs.steps] == [
                s.num_loss_tokens for s in result.steps
            ]
            assert theirs.num_ranks == 2
        before, after = (
            weights_of(read(tiny_model_folder, folder, name))
            for folder in (tmp_path / f"single-{name}", output / name)
        )
        assert before.keys() == after.keys()
        for key, value in before.items():
            assert (after[key] - value).abs().max() <= 1e-5 * value.abs().max(), (name, key)
    whole, resumed = mine["whole"][0], mine["resumed"][0]
    assert resumed.resumed_at == 2
    assert [step.loss for step in resumed.steps] == [step.loss for step in whole.steps]
    assert resumed.num_tokens == whole.num_tokens
    lone, _ = train(str(tiny_model_folder), tmp_path / "lone", 1, capacity=4000, max_steps=2)
    np.testing.assert_allclose(
        [step.loss for step in mine["lone"][0].steps], [step.loss for step in lone.steps], rtol=1e-5
    )


def read(model_folder: Path, output: Path, kind: str) -> Any:
    """What was saved, as a user reads it."""
    if "lora" in kind:
        return load_model(model_folder, device="cpu", adapter=output / "model").model
    return load_model(output / "model", device="cpu", tokenizer=model_folder).model


def test_sharding_needs_several_processes(tiny_model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got one: use torchrun"):
        train(str(tiny_model_folder), tmp_path, 1, fsdp=True)
