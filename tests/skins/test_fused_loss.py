"""Stock trainers on a model with a fused loss: the steps are those of the same trainer without."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import LEARNING_RATE, Run, make_plan, make_store, parameters_of, tiny
from snippets import snippet
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from codeact.models import NotFusableError, fuse_loss, load_tokenizer, unfuse_loss

PAGE = "The loss without logits"


def options(folder: Path | str, **more: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "output_dir": str(folder), "gradient_accumulation_steps": 2, "num_train_epochs": 1,
        "per_device_train_batch_size": 3, "learning_rate": LEARNING_RATE, "optim": "sgd",
        "lr_scheduler_type": "constant", "max_grad_norm": 1e3, "use_cpu": True, "bf16": False,
        "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip
    return defaults | more


def padded_rows() -> list[dict[str, list[int]]]:
    return [
        {"input_ids": row.input_ids.tolist(), "labels": row.labels.tolist()}
        for row in (make_store()[index] for index in range(24))
    ]


def logs_of(trainer: Any, *names: str) -> list[list[float]]:
    return [[log[name] for name in names] for log in trainer.state.log_history if "loss" in log]


def run_plain(
    model_folder: Path | str, output: Path | str, *, fused: bool, **more: Any
) -> tuple[Run, list[list[float]], float]:
    """A stock Trainer on padded rows; its run, what it logged, and the loss it evaluates to."""
    model, rows = tiny(model_folder, "sdpa"), padded_rows()
    made: dict[str, Any] = {
        "args": TrainingArguments(**options(output, **more)),
        "data_collator": DataCollatorForSeq2Seq(load_tokenizer(model_folder)),
        "eval_dataset": rows[:7],
    }
    if fused:
        trainer = snippet(PAGE).make_plain_trainer(model, dataset=rows, **made)
    else:
        trainer = Trainer(model=model, train_dataset=rows, **made)
    trainer.train()
    logs = logs_of(trainer, "loss", "grad_norm")
    evaluated = trainer.evaluate()["eval_loss"]
    return Run([loss for loss, _ in logs], parameters_of(model)), logs, evaluated


RECOMPUTED = {"gradient_checkpointing": True}


@pytest.mark.parametrize("more", [{}, RECOMPUTED], ids=["plain", "recomputed"])
def test_stock_trainer(tiny_model_folder: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    """Losses, gradient norms and weights of every step, and the evaluation's loss."""
    theirs, their_logs, their_loss = run_plain(tiny_model_folder, tmp_path, fused=False)
    ours, our_logs, our_loss = run_plain(tiny_model_folder, tmp_path, fused=True, **more)
    assert len(ours.losses) == 4
    ours.assert_close(theirs)
    np.testing.assert_allclose(our_logs, their_logs, rtol=1e-5)
    assert our_loss == pytest.approx(their_loss, rel=1e-5)


def test_stock_trainer_in_bfloat16(tiny_model_folder: Path, tmp_path: Path) -> None:
    """Accelerate wraps the fused forward in autocast; parameters and gradients stay float32."""
    exact, _, exact_loss = run_plain(tiny_model_folder, tmp_path, fused=False)
    theirs, _, _ = run_plain(tiny_model_folder, tmp_path, fused=False, bf16=True)
    ours, _, our_loss = run_plain(tiny_model_folder, tmp_path, fused=True, bf16=True)
    assert our_loss != pytest.approx(exact_loss, rel=1e-7)

    def error(run: Run) -> float:
        pairs = zip(run.parameters, exact.parameters, strict=True)
        return float(torch.stack([(mine - true).square().sum() for mine, true in pairs]).sum())

    assert all(parameter.dtype == torch.float32 for parameter in ours.parameters)
    assert error(ours) <= 1.2 * error(theirs)


def ranks_run_plain(rank: int, num_ranks: int, model_folder: str, output: str) -> list[Run]:
    return [
        run_plain(model_folder, output, fused=fused, average_tokens_across_devices=True)[0]
        for fused in (False, True)
    ]


def test_stock_trainer_on_two_ranks(
    tiny_model_folder: Path, tmp_path: Path, run_ranks: Callable[..., list[Any]]
) -> None:
    folders = {"model_folder": str(tiny_model_folder), "output": str(tmp_path / "output")}
    (theirs, ours), (_, others) = run_ranks(ranks_run_plain, **folders)
    ours.assert_close(theirs)
    for mine, other in zip(ours.parameters, others.parameters, strict=True):
        assert torch.equal(mine, other)


needs_trl = pytest.mark.skipif(find_spec("trl") is None, reason="needs trl")
METRICS = ("loss", "grad_norm", "entropy", "mean_token_accuracy", "num_tokens")


def make_sft(model_folder: Path, output: Path, **more: Any) -> Any:
    model, tokenizer = tiny(model_folder), load_tokenizer(model_folder)
    given = options(output, **more)
    del given["per_device_train_batch_size"], given["num_train_epochs"]
    return snippet("TRL").make_sft_trainer(
        model, tokenizer, make_store(), make_plan(), epochs=1, **given
    )


@needs_trl
@pytest.mark.parametrize("loss_type", ["nll", "dft"])
def test_sft_trainer(tiny_model_folder: Path, tmp_path: Path, loss_type: str) -> None:
    """Loss, gradient norm, weights, and every metric that TRL logs."""
    from codeact.models.fused import trl_head

    theirs = make_sft(tiny_model_folder, tmp_path, loss_type=loss_type)
    theirs.train()
    ours = snippet(PAGE).fuse_sft_trainer(
        make_sft(tiny_model_folder, tmp_path, loss_type=loss_type)
    )
    calls: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        original = trl_head.token_stats
        patch.setattr(
            trl_head,
            "token_stats",
            lambda rows, t: (calls.append(len(rows.hidden_states)), original(rows, t))[1],
        )
        ours.train()
    assert sum(calls) == make_store().num_scored.sum()  # it is ours that was asked, rows only
    np.testing.assert_allclose(logs_of(ours, *METRICS), logs_of(theirs, *METRICS), rtol=1e-5)
    run = Run([log[0] for log in logs_of(ours, "loss")], parameters_of(ours.model))
    run.assert_close(Run([log[0] for log in logs_of(theirs, "loss")], parameters_of(theirs.model)))


def test_a_broken_row_is_no_hit() -> None:
    from codeact.models.fused.forward import ProjectedRows, ScoredRows
    from codeact.models.fused.head_call import LogitForm
    from codeact.models.fused.trl_head import token_stats

    hidden_states, targets = torch.eye(3)[:2] * 9, torch.tensor([0, 1])
    hidden_states[1] = float("nan")
    scored = ScoredRows(torch.arange(2), targets, None)
    rows = ProjectedRows(hidden_states, torch.eye(3), None, LogitForm(1.0, None), scored)
    assert token_stats(rows, 1.0).is_top1.tolist() == [True, False]


@needs_trl
def test_head_of_another_trainer_is_refused_or_heeded(tiny_model_folder: Path) -> None:
    from trl.trainer.utils import add_fused_lm_head

    ids = torch.arange(3, 23)[None]
    model = tiny(tiny_model_folder)
    labels = model(ids).logits.argmax(dim=-1).roll(1, dims=1)  # the likeliest tokens,
    labels[0, ::3] = ids[0, ::3]  # but for some,
    labels[0, 1:8:3] = -100  # and a few that do not count
    inputs = {"input_ids": ids, "labels": labels, "fused_lm_head": True}
    names = ("log_probs", "entropy", "is_top1")
    add_fused_lm_head(model, temperature=0.7, outputs=names)
    theirs = model(**inputs)
    ours = fuse_loss(model)(**inputs)
    for name in (*names, "label_mask"):
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-6)
    assert 0 < ours.is_top1.sum() < ours.label_mask.sum() < 19
    unfuse_loss(model)
    assert type(model(**inputs)) is type(theirs)
    other = tiny(tiny_model_folder)
    add_fused_lm_head(other, outputs=("log_probs", "mean_logits"))
    with pytest.raises(NotFusableError, match=r"mean_logits.*leave its model as it is"):
        fuse_loss(other)
