"""Training on pairs in two processes: the loss and the weights of a plain loop."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "skins")]  # a rank's process runs this file alone

from dpo_cases import make_pairs, plain_losses, tiny  # noqa: E402

from codeact.models import load_tokenizer  # noqa: E402
from codeact.packing import plan_bins  # noqa: E402
from codeact.training.config import TrainConfig  # noqa: E402
from codeact.training.dpo.reference import reference_log_probs  # noqa: E402
from codeact.training.dpo.tuning import fine_tune_dpo  # noqa: E402

BETA = 0.3
KINDS = ["replicated", "fsdp"]
SGD = TrainConfig(
    epochs=1.0, learning_rate=5e-4, lr_scheduler="constant", warmup_ratio=0.0, optimizer="sgd",
    max_grad_norm=0.0, capacity=400, accumulation=1,
)  # fmt: skip


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert (weight - theirs[name]).abs().max() <= 1e-5 * theirs[name].abs().max(), name


def ranks_train(rank: int, num_ranks: int, model_folder: str, output: str) -> list[Any]:
    found = []
    for kind in KINDS:
        model, folder = tiny(model_folder), Path(output) / kind
        result = fine_tune_dpo(
            model,
            make_pairs(model_folder),
            replace(SGD, fsdp=kind == "fsdp"),
            folder=folder,
            beta=BETA,
            save_to=folder / "saved",
            tokenizer=load_tokenizer(model_folder),
        )
        # Under FSDP this rank has its shards alone; what was saved is whole.
        weights = weights_of(tiny(folder / "saved") if kind == "fsdp" else model)
        found.append((asdict(result), weights))
    return found


def test_two_ranks_are_one_with_twice_the_accumulation(tiny_model_folder: Path, tmp_path: Path):
    from ranks import run_ranks

    folders = {"model_folder": str(tiny_model_folder), "output": str(tmp_path / "run")}
    by_rank = run_ranks(ranks_train, 2, tmp_path / "ranks", **folders)
    pairs, model = make_pairs(tiny_model_folder), tiny(tiny_model_folder)
    # The same bins as two ranks get, one after the other.
    plan = plan_bins(pairs.seqlens, SGD.capacity, seed=SGD.seed, world_size=2)
    losses = []
    reference = reference_log_probs(model, pairs)
    plain = tiny(tiny_model_folder, attn_implementation="eager")
    optimizer = torch.optim.SGD(plain.parameters(), lr=SGD.learning_rate)
    bins = [np.asarray(bin_).tolist() for bin_ in plan.epoch(0)]
    for at in range(0, len(bins), 2):
        step = [i for bin_ in bins[at : at + 2] for i in bin_ if i < len(pairs)]
        loss = plain_losses(plain, pairs, reference, BETA, step).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert len({len(bin_) for bin_ in bins}) > 1  # a mean over ranks would be another loss
    assert len(losses) > 1
    for kind, mine, other in zip(KINDS, *by_rank, strict=True):
        for result, weights in (mine, other):
            found = [step["loss"] for step in result["steps"]]
            assert found == pytest.approx(losses, rel=1e-5), kind
            assert result["num_ranks"] == 2
            assert_close(weights, weights_of(plain))
        assert mine[0]["rewards"] == other[0]["rewards"]
        assert all(torch.equal(weight, other[1][name]) for name, weight in mine[1].items())
