"""TRL's SFTTrainer on our bins: the three recipes, on one rank and two, and resumed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import (
    ACCUMULATION,
    EPOCHS,
    LEARNING_RATE,
    Run,
    assert_each_once,
    leaking,
    make_plan,
    make_store,
    parameters_of,
    tiny,
    train_unpacked,
    updates,
    watch,
)
from snippets import snippet

from codeact.models import load_tokenizer
from codeact.packing import BinPlan

pytestmark = pytest.mark.skipif(find_spec("trl") is None, reason="needs trl")

RECIPES = ["their collator", "our collator", "lazy"]


def run_trl(
    recipe: str,
    model_folder: Path | str,
    output: Path | str,
    plan: BinPlan,
    *,
    resume: str | None = None,
    attn_implementation: str = "codeact",
    **more: Any,
) -> Run:
    options: dict[str, Any] = {
        "output_dir": str(output), "gradient_accumulation_steps": ACCUMULATION,
        "learning_rate": LEARNING_RATE, "optim": "sgd", "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0, "use_cpu": True, "bf16": False, "logging_steps": 1,
        "save_strategy": "steps", "save_steps": 1, "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip
    page, model = snippet("TRL"), tiny(model_folder, attn_implementation)
    given = (model, load_tokenizer(model_folder), make_store(), plan)
    if recipe == "lazy":
        trainer = page.make_lazy_sft_trainer(*given, num_train_epochs=EPOCHS, **options | more)
    else:
        trainer = page.make_sft_trainer(
            *given, epochs=EPOCHS, our_collator=recipe == "our collator", **options | more
        )
    seen = watch(model)
    trainer.train(resume_from_checkpoint=resume)
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return Run(losses, parameters_of(model), seen)


def expected_updates(recipe: str, plan: BinPlan) -> list[Any]:
    """The steps of all epochs; a step may hold the end of one epoch and the start of the next."""
    if recipe == "lazy":
        return updates(plan, epochs=1) * EPOCHS
    size = ACCUMULATION * plan.world_size
    bins = [bin_.tolist() for epoch in range(EPOCHS) for bin_ in plan.epoch(epoch)]
    return [list(chain(*bins[at : at + size])) for at in range(0, len(bins), size)]


def check_resumed(recipe: str, model_folder: Any, output: Any, plan: BinPlan) -> Run:
    whole = run_trl(recipe, model_folder, output, plan)
    resumed = run_trl(
        recipe, model_folder, output, plan, resume=f"{output}/checkpoint-1", save_strategy="no"
    )
    assert resumed.losses == whole.losses
    assert resumed.seen == whole.seen[ACCUMULATION:]
    return whole


@pytest.mark.parametrize("recipe", RECIPES)
def test_one_process(tiny_model_folder: Path, tmp_path: Path, recipe: str) -> None:
    plan = make_plan()
    run = check_resumed(recipe, tiny_model_folder, tmp_path, plan)
    run.assert_close(train_unpacked(tiny_model_folder, expected_updates(recipe, plan)))
    if recipe != "lazy":
        assert_each_once([run.seen])


@pytest.mark.parametrize("recipe", RECIPES)
def test_isolated_with_sdpa_too(tiny_model_folder: Path, tmp_path: Path, recipe: str) -> None:
    plan = make_plan()
    run = run_trl(
        recipe, tiny_model_folder, tmp_path, plan, attn_implementation="sdpa", save_strategy="no"
    )
    run.assert_close(train_unpacked(tiny_model_folder, expected_updates(recipe, plan)))


def ranks_train(rank: int, num_ranks: int, model_folder: str, output: str) -> list[Run]:
    plan = make_plan(num_ranks)
    return [
        check_resumed(recipe, model_folder, f"{output}/{number}", plan)
        for number, recipe in enumerate(RECIPES)
    ]


def test_two_ranks(
    tiny_model_folder: Path, tmp_path: Path, run_ranks: Callable[..., list[Any]]
) -> None:
    folders = {"model_folder": str(tiny_model_folder), "output": str(tmp_path / "output")}
    by_rank = run_ranks(ranks_train, **folders)
    plan = make_plan(2)
    for recipe, mine, other in zip(RECIPES, *by_rank, strict=True):
        mine.assert_close(train_unpacked(tiny_model_folder, expected_updates(recipe, plan)))
        for ours, theirs in zip(mine.parameters, other.parameters, strict=True):
            assert torch.equal(ours, theirs)
        if recipe != "lazy":
            assert_each_once([mine.seen, other.seen])


def test_leaking_model_is_refused(tiny_model_folder: Path) -> None:
    page, plan = snippet("TRL"), make_plan()
    given = (leaking(tiny_model_folder), load_tokenizer(tiny_model_folder), make_store(), plan)
    with pytest.raises(RuntimeError, match="not isolated"):
        page.make_sft_trainer(*given, epochs=1)
    with pytest.raises(RuntimeError, match="not isolated"):
        page.make_lazy_sft_trainer(*given)
