"""transformers.Trainer on packs: equal to unpacked training, on one rank and two, and resumed."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import (
    ACCUMULATION,
    EPOCHS,
    LEARNING_RATE,
    NUM_EXAMPLES,
    Run,
    assert_each_once,
    leaking,
    make_plan,
    make_store,
    parameters_of,
    tiny,
    train_unpacked,
    unpacked_loss,
    updates,
    watch,
)
from snippets import snippet
from transformers import TrainerCallback, TrainingArguments

from codeact.errors import InputError
from codeact.models import isolation
from codeact.packing import BinPlan, PackedDataset
from codeact.training import CodeActTrainer


def arguments(folder: Path | str, **options: Any) -> TrainingArguments:
    defaults: dict[str, Any] = {
        "output_dir": str(folder), "gradient_accumulation_steps": ACCUMULATION,
        "num_train_epochs": EPOCHS, "learning_rate": LEARNING_RATE, "optim": "sgd",
        "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "use_cpu": True,
        "logging_steps": 1, "save_strategy": "steps", "save_steps": 1, "report_to": "none",
        "disable_tqdm": True,
    }  # fmt: skip
    return TrainingArguments(**(defaults | options))


def run_trainer(
    model_folder: Path | str,
    output: Path | str,
    plan: BinPlan,
    *,
    resume: str | bool | None = None,
    options: dict[str, Any] | None = None,
    **trainer_options: Any,
) -> tuple[Run, CodeActTrainer]:
    model = tiny(model_folder)
    trainer = snippet("Hugging Face Trainer").make_trainer(
        model, make_store(), plan, arguments(output, **(options or {})), **trainer_options
    )
    seen = watch(model)
    trainer.train(resume_from_checkpoint=resume)
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return Run(losses, parameters_of(model), seen), trainer


@pytest.mark.parametrize("loss_norm", ["token", "sample"])
def test_equals_unpacked(tiny_model_folder: Path, tmp_path: Path, loss_norm: str) -> None:
    plan = make_plan()
    run, trainer = run_trainer(
        tiny_model_folder, tmp_path, plan, options={"save_strategy": "no"}, loss_norm=loss_norm
    )
    run.assert_close(train_unpacked(tiny_model_folder, updates(plan), loss_norm=loss_norm))
    assert_each_once([run.seen])
    assert len(run.losses) == EPOCHS * plan.num_updates(ACCUMULATION)
    assert trainer.num_tokens_seen == EPOCHS * plan.num_tokens
    assert hasattr(trainer.model, isolation._CHECKED)


def test_weights_reach_the_loss(tiny_model_folder: Path, tmp_path: Path) -> None:
    plan = make_plan()
    weights = np.random.default_rng(0).uniform(0, 2, size=NUM_EXAMPLES)
    model = tiny(tiny_model_folder)
    trainer = CodeActTrainer(
        model=model, args=arguments(tmp_path, save_strategy="no"), plan=plan,
        train_dataset=PackedDataset(make_store(), plan, weights=weights),
    )  # fmt: skip
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    reference = train_unpacked(tiny_model_folder, updates(plan), weights=weights)
    Run(losses, parameters_of(model)).assert_close(reference)


def test_lora_and_gradient_checkpointing(tiny_model_folder: Path, tmp_path: Path) -> None:
    """An adapter trains, what it adapts does not, and recomputing activations changes nothing."""
    from peft import LoraConfig, get_peft_model

    plan, losses = make_plan(), []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        model = get_peft_model(tiny(tiny_model_folder), config)
        options = {"gradient_checkpointing": checkpointing, "num_train_epochs": 4}
        trainer = CodeActTrainer(
            model=model, plan=plan, train_dataset=PackedDataset(make_store(), plan),
            args=arguments(tmp_path, save_strategy="no", **options),
        )  # fmt: skip
        trainer.train()
        losses.append([log["loss"] for log in trainer.state.log_history if "loss" in log])
        frozen = dict(tiny(tiny_model_folder).named_parameters())["model.embed_tokens.weight"]
        assert torch.equal(model.get_input_embeddings().weight, frozen)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
    assert np.mean(losses[0][-4:]) < np.mean(losses[0][:4]) - 0.1


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_is_the_whole_run(
    tiny_model_folder: Path, tmp_path: Path, workers: int
) -> None:
    """From the middle of an epoch and from an epoch's end, where the Trainer skips nothing."""
    plan, options = make_plan(), {"dataloader_num_workers": workers}
    whole, _ = run_trainer(tiny_model_folder, tmp_path, plan, options=options)
    an_epoch = plan.num_updates(ACCUMULATION)
    bins_done = {1: ACCUMULATION, an_epoch: plan.num_steps, an_epoch + 1: plan.num_steps + 2}
    for step, num_bins in bins_done.items():
        checkpoint = str(tmp_path / f"checkpoint-{step}")
        resumed, _ = run_trainer(
            tiny_model_folder, tmp_path, plan, resume=checkpoint,
            options={**options, "save_strategy": "no"},
        )  # fmt: skip
        assert resumed.losses == whole.losses
        assert resumed.seen == whole.seen[num_bins:]
        for ours, theirs in zip(resumed.parameters, whole.parameters, strict=True):
            assert torch.equal(ours, theirs)


def ranks_train(rank: int, num_ranks: int, model_folder: str, output: str) -> list[Run]:
    """A whole run that saves every step, one resumed mid-epoch, one resumed between epochs."""
    plan = make_plan(num_ranks)
    runs = [run_trainer(model_folder, output, plan)[0]]
    for step in (1, plan.num_updates(ACCUMULATION)):
        resume = f"{output}/checkpoint-{step}"
        options = {"save_strategy": "no"}
        runs.append(run_trainer(model_folder, output, plan, resume=resume, options=options)[0])
    return runs


def test_two_ranks(
    tiny_model_folder: Path, tmp_path: Path, run_ranks: Callable[..., list[Any]]
) -> None:
    folders = {"model_folder": str(tiny_model_folder), "output": str(tmp_path / "output")}
    by_rank = run_ranks(ranks_train, **folders)
    plan = make_plan(2)
    reference = train_unpacked(tiny_model_folder, updates(plan))
    wholes, mid_epochs, betweens = ([runs[kind] for runs in by_rank] for kind in range(3))
    assert_each_once([run.seen for run in wholes])
    num_bins = plan.num_steps
    for whole, mid_epoch, between in zip(wholes, mid_epochs, betweens, strict=True):
        whole.assert_close(reference)  # every rank logs the mean over ranks
        for resumed, done in ((mid_epoch, ACCUMULATION), (between, num_bins)):
            assert resumed.losses == whole.losses
            assert resumed.seen == whole.seen[done:]
        for run in (wholes[0], mid_epoch, between):
            for ours, theirs in zip(run.parameters, whole.parameters, strict=True):
                assert torch.equal(ours, theirs)


def ranks_are_killed(rank: int, num_ranks: int, model_folder: str, output: str) -> None:
    """The process dies in the third step, with two checkpoints behind it."""

    class Kill(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 2:
                os.kill(os.getpid(), signal.SIGKILL)

    run_trainer(model_folder, output, make_plan(num_ranks), callbacks=[Kill()])


def ranks_go_on(rank: int, num_ranks: int, model_folder: str, output: str) -> tuple[Run, float]:
    """Resumes from the last checkpoint, then evaluates the model it started from."""
    plan, store = make_plan(num_ranks), make_store()
    run, _ = run_trainer(model_folder, output, plan, resume=True)
    trainer = CodeActTrainer(
        model=tiny(model_folder), plan=plan, eval_dataset=PackedDataset(store),
        args=arguments(output, per_device_eval_batch_size=8),
    )  # fmt: skip
    return run, trainer.evaluate()["eval_loss"]


def test_killed_ranks_go_on(
    tiny_model_folder: Path, tmp_path: Path, run_ranks: Callable[..., list[Any]]
) -> None:
    folders = {"model_folder": str(tiny_model_folder), "output": str(tmp_path / "output")}
    with pytest.raises(AssertionError, match=r"\[-9, -9\]"):
        run_ranks(ranks_are_killed, **folders)
    (mine, loss), (other, _) = run_ranks(ranks_go_on, **folders)
    plan = make_plan(2)
    mine.assert_close(train_unpacked(tiny_model_folder, updates(plan)))
    bins = [bin_.tolist() for epoch in range(EPOCHS) for bin_ in plan.epoch(epoch)]
    for rank, run in enumerate((mine, other)):
        assert run.seen == bins[rank::2][2 * ACCUMULATION :]
    # Two batches at a time; in the second round one rank repeats the first eight examples, and the
    # Trainer counts the round half.
    model = tiny(tiny_model_folder, "eager")
    rounds = [list(range(16)), [*range(16, 24), *range(8)]]
    by_round = [unpacked_loss(model, examples).item() for examples in rounds]
    assert loss == pytest.approx((2 * by_round[0] + by_round[1]) / 3, rel=1e-5)


def test_checkpoint_of_another_run_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    run_trainer(tiny_model_folder, tmp_path, make_plan(), options={"max_steps": 1})
    checkpoint = str(tmp_path / "checkpoint-1")
    with pytest.raises(InputError, match="written with fingerprint"):
        run_trainer(tiny_model_folder, tmp_path, make_plan(seed=1), resume=checkpoint)
    with pytest.raises(InputError, match="written with accumulation = 2, this run has 1"):
        run_trainer(
            tiny_model_folder, tmp_path, make_plan(), resume=checkpoint,
            options={"gradient_accumulation_steps": 1},
        )  # fmt: skip


def test_evaluation_is_the_mean_over_batches(tiny_model_folder: Path, tmp_path: Path) -> None:
    plan, store = make_plan(), make_store()
    options = {"per_device_eval_batch_size": NUM_EXAMPLES, "prediction_loss_only": True}
    trainer = CodeActTrainer(
        model=tiny(tiny_model_folder), args=arguments(tmp_path, **options), plan=plan,
        train_dataset=PackedDataset(store, plan), eval_dataset=PackedDataset(store),
    )  # fmt: skip
    reference = train_unpacked(tiny_model_folder, [list(range(NUM_EXAMPLES))])
    assert trainer.evaluate()["eval_loss"] == pytest.approx(reference.losses[0], rel=1e-5)
    assert trainer.num_tokens_seen == 0


def test_what_would_change_the_loss_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    plan, store = make_plan(), make_store()

    def trainer(dataset: Any = None, **options: Any) -> CodeActTrainer:
        return CodeActTrainer(
            model=tiny(tiny_model_folder), plan=plan,
            args=arguments(tmp_path, **options.pop("args", {})),
            train_dataset=dataset or PackedDataset(store, plan), **options,
        )  # fmt: skip

    with pytest.raises(InputError, match=r"label_smoothing_factor = 0\.1"):
        trainer(args={"label_smoothing_factor": 0.1})
    with pytest.raises(InputError, match="lower the plan's capacity"):
        trainer(args={"auto_find_batch_size": True})
    with pytest.raises(InputError, match="ignore_data_skip would repeat examples"):
        trainer(args={"ignore_data_skip": True})
    with pytest.raises(InputError, match="leave out compute_loss_func"):
        trainer(compute_loss_func=lambda *_, **__: None)
    with pytest.raises(InputError, match=r"for 2 processes and 1 train: .*world_size=1"):
        CodeActTrainer(
            model=tiny(tiny_model_folder), args=arguments(tmp_path), plan=make_plan(2),
            train_dataset=PackedDataset(store, make_plan(2)),
        )  # fmt: skip
    with pytest.raises(InputError, match="of the plan that it is read with, got PackedDataset"):
        trainer(PackedDataset(store, make_plan(2)))
    with pytest.raises(InputError, match="of the plan that it is read with, got list"):
        trainer([store[0]])


def test_leaking_model_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    """The check looks at the model that trains, not at what it was loaded as."""
    plan = make_plan()
    with pytest.raises(RuntimeError, match="not isolated"):
        CodeActTrainer(
            model=leaking(tiny_model_folder), args=arguments(tmp_path), plan=plan,
            train_dataset=PackedDataset(make_store(), plan),
        )  # fmt: skip


def test_warnings_hold_numbers(
    tiny_model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan, store = make_plan(), make_store()
    unscored = type(store)(store.input_ids, np.array(store.labels), store.offsets)
    unscored.labels[: unscored.offsets[3]] = -100
    with caplog.at_level(logging.WARNING, logger="codeact"):
        CodeActTrainer(
            model=tiny(tiny_model_folder), plan=plan, train_dataset=PackedDataset(unscored, plan),
            args=arguments(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=1),
        )  # fmt: skip
    assert f"3 of {NUM_EXAMPLES} examples carry no loss" in caplog.text
    assert plan.update_warning(batch_size=1, epochs=EPOCHS) in caplog.text
