"""Lightning on packs: automatic optimisation, on one rank and two, resumed from its checkpoints."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from importlib.util import find_spec
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

from codeact.errors import InputError
from codeact.packing import BinPlan, FlatTokens

pytestmark = pytest.mark.skipif(find_spec("lightning") is None, reason="needs lightning")


def run_lightning(
    model_folder: Path | str,
    output: Path | str,
    plan: BinPlan,
    *,
    resume: str | None = None,
    store: FlatTokens | None = None,
    **options: Any,
) -> Run:
    """The page's module and trainer, with plain SGD and a checkpoint after every step."""
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint

    page = snippet("Lightning")

    class Module(page.PackedModule):  # type: ignore[name-defined, misc]
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=LEARNING_RATE)

    losses: list[float] = []

    class Losses(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step > len(losses) + before:
                losses.append(trainer.callback_metrics["loss"].item())

    before = 0 if resume is None else int(Path(resume).stem.split("=")[1])
    save = ModelCheckpoint(dirpath=output, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = page.make_trainer(
        accelerator="cpu", max_epochs=EPOCHS, accumulate_grad_batches=ACCUMULATION,
        logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[Losses(), save], default_root_dir=output, **options,
    )  # fmt: skip
    model = tiny(model_folder).train()
    module = Module(model, store or make_store(), plan)
    seen = watch(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, ckpt_path=resume, weights_only=False)
    return Run(losses, parameters_of(model), seen)


def check_resumed(
    model_folder: Path | str, output: Path | str, plan: BinPlan, **options: Any
) -> Run:
    whole = run_lightning(model_folder, output, plan, **options)
    an_epoch = plan.num_updates(ACCUMULATION)
    done = {1: ACCUMULATION, an_epoch: plan.num_steps, an_epoch + 1: plan.num_steps + ACCUMULATION}
    for step, num_bins in done.items():
        resumed = run_lightning(
            model_folder, output, plan, resume=f"{output}/step={step}.ckpt", **options
        )
        assert resumed.losses == whole.losses[step:], step
        assert resumed.seen == whole.seen[num_bins:], step
        for ours, theirs in zip(resumed.parameters, whole.parameters, strict=True):
            assert torch.equal(ours, theirs)
    return whole


def test_one_process(tiny_model_folder: Path, tmp_path: Path) -> None:
    plan = make_plan()
    run = check_resumed(tiny_model_folder, tmp_path, plan)
    run.assert_close(train_unpacked(tiny_model_folder, updates(plan)))
    assert_each_once([run.seen])


def ranks_train(rank: int, num_ranks: int, model_folder: str, output: str) -> Run:
    plan = make_plan(num_ranks)
    return check_resumed(model_folder, output, plan, strategy="ddp", devices=num_ranks)


def test_two_ranks(
    tiny_model_folder: Path, tmp_path: Path, run_ranks: Callable[..., list[Any]]
) -> None:
    mine, other = run_ranks(
        ranks_train, model_folder=str(tiny_model_folder), output=str(tmp_path / "output")
    )
    plan = make_plan(2)
    mine.assert_close(train_unpacked(tiny_model_folder, updates(plan)))
    for ours, theirs in zip(mine.parameters, other.parameters, strict=True):
        assert torch.equal(ours, theirs)
    assert_each_once([mine.seen, other.seen])


def test_gradients_are_put_right_before_clipping(tiny_model_folder: Path, tmp_path: Path) -> None:
    """A clip at a norm far above the true one changes nothing; the raw sum would hit it."""
    plan = make_plan()
    clipped = run_lightning(tiny_model_folder, tmp_path, plan, gradient_clip_val=1e3)
    clipped.assert_close(train_unpacked(tiny_model_folder, updates(plan)))


def test_step_without_a_scored_token_changes_nothing(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    """The first two bins carry no loss; 0 / 0 would end the run."""
    plan, store = make_plan(), make_store()
    labels = store.labels.copy()
    for example in updates(plan)[0]:
        labels[store.offsets[example] : store.offsets[example + 1]] = -100
    unscored = FlatTokens(store.input_ids, labels, store.offsets)
    run = run_lightning(tiny_model_folder, tmp_path, plan, store=unscored, max_steps=1)
    assert run.losses == [0.0]
    for ours, before in zip(run.parameters, tiny(tiny_model_folder).parameters(), strict=True):
        assert torch.equal(ours, before)


def ranks_of_another_run(rank: int, num_ranks: int, model_folder: str, output: str) -> None:
    plan, resume = make_plan(num_ranks), f"{output}/step=1.ckpt"
    with pytest.raises(InputError, match="taken with 1 ranks, the plan has 2"):
        run_lightning(model_folder, output, plan, resume=resume, strategy="ddp", devices=num_ranks)


def test_another_number_of_processes_is_refused(
    tiny_model_folder: Path, tmp_path: Path, run_ranks: Callable[..., list[Any]]
) -> None:
    run_lightning(tiny_model_folder, tmp_path, make_plan())
    run_ranks(ranks_of_another_run, model_folder=str(tiny_model_folder), output=str(tmp_path))


def test_leaking_model_is_refused(tiny_model_folder: Path) -> None:
    with pytest.raises(RuntimeError, match="not isolated"):
        snippet("Lightning").PackedModule(leaking(tiny_model_folder), make_store(), make_plan())
