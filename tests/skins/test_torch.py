"""A plain PyTorch loop on packs, with DataLoader and with torchdata's StatefulDataLoader."""

from __future__ import annotations

import contextlib
import itertools
import json
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
from torch.nn.parallel import DistributedDataParallel

from codeact.errors import InputError
from codeact.models import assert_isolated
from codeact.packing import BinPlan, PackedCollator, PackedDataset, plan_bins
from codeact.training import PackedLoader, packed_loss, total_weight

PAGE = "PyTorch"
DTYPES = (torch.float32, torch.float64)


def run_loop(
    model_folder: Path | str,
    plan: BinPlan,
    *,
    rank: int = 0,
    state: dict[str, Any] | None = None,
    stop: int | None = None,
    ddp: bool = False,
    parameters: list[torch.Tensor] | None = None,
    **options: Any,
) -> tuple[Run, list[dict[str, Any]], torch.nn.Module]:
    """The page's loop, from ``state`` and ``parameters`` on, for ``stop`` optimizer steps."""
    model = tiny(model_folder).train()
    assert_isolated(model)
    if parameters is not None:
        with torch.no_grad():
            for ours, saved in zip(model.parameters(), parameters, strict=True):
                ours.copy_(saved)
    seen = watch(model)
    wrapped = DistributedDataParallel(model) if ddp else model
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    steps = snippet(PAGE).train(
        wrapped, optimizer, make_store(), plan, epochs=EPOCHS, rank=rank,
        accumulation=ACCUMULATION, state=state, **options,
    )  # fmt: skip
    losses, states = [], []
    for loss, place in itertools.islice(steps, stop):
        losses.append(loss)
        states.append(json.loads(json.dumps(place)))  # a checkpoint may be a JSON file
    return Run(losses, parameters_of(model), seen), states, model


@pytest.mark.parametrize("loss_norm", ["token", "sample"])
def test_equals_unpacked(tiny_model_folder: Path, loss_norm: str) -> None:
    plan = make_plan()
    run, _, _ = run_loop(tiny_model_folder, plan, loss_norm=loss_norm)
    run.assert_close(train_unpacked(tiny_model_folder, updates(plan), loss_norm=loss_norm))
    assert_each_once([run.seen])


def test_plan_for_other_ranks_is_dealt_to_these(tiny_model_folder: Path) -> None:
    """One process with a plan for two would see half of the examples and not know."""
    run, _, _ = run_loop(tiny_model_folder, make_plan(2))
    assert_each_once([run.seen])


def test_resumes_after_every_step(tiny_model_folder: Path) -> None:
    plan = make_plan()
    whole, states, _ = run_loop(tiny_model_folder, plan)
    for stop in range(1, len(whole.losses)):
        first, _, _ = run_loop(tiny_model_folder, plan, stop=stop)
        second, _, _ = run_loop(
            tiny_model_folder, plan, state=states[stop - 1], parameters=first.parameters
        )
        assert first.losses + second.losses == whole.losses
        assert first.seen + second.seen == whole.seen


def ranks_train(
    rank: int, num_ranks: int, model_folder: str, loss_norm: str
) -> tuple[Run, list[dict[str, Any]], Run]:
    """The whole run, the place after each step, and a run of the first step alone."""
    plan, options = make_plan(num_ranks), {"rank": rank, "ddp": True, "loss_norm": loss_norm}
    whole, states, _ = run_loop(model_folder, plan, **options)
    first, _, _ = run_loop(model_folder, plan, stop=1, **options)
    resumed, _, _ = run_loop(
        model_folder, plan, state=states[0], parameters=first.parameters, **options
    )
    assert resumed.losses == whole.losses[1:]
    assert resumed.seen == whole.seen[ACCUMULATION:]
    return whole, states, first


@pytest.mark.parametrize("loss_norm", ["token", "sample"])
def test_two_ranks(
    tiny_model_folder: Path, run_ranks: Callable[..., list[Any]], loss_norm: str
) -> None:
    """Two ranks under DistributedDataParallel; then one goes on alone with what they left."""
    by_rank = run_ranks(ranks_train, model_folder=str(tiny_model_folder), loss_norm=loss_norm)
    plan = make_plan(2)
    reference = train_unpacked(tiny_model_folder, updates(plan), loss_norm=loss_norm)
    (whole, states, first), (other, other_states, other_first) = by_rank
    mean = Run(np.mean([whole.losses, other.losses], axis=0).tolist(), whole.parameters)
    mean.assert_close(reference)
    for mine, theirs in zip(whole.parameters, other.parameters, strict=True):
        assert torch.equal(mine, theirs)
    assert_each_once([whole.seen, other.seen])
    assert states == other_states  # any rank's state may be saved

    alone, _, _ = run_loop(
        tiny_model_folder, make_plan(1), state=states[0], parameters=first.parameters,
        loss_norm=loss_norm,
    )  # fmt: skip
    bins_alone = make_plan(1).num_steps  # those of the next epoch, which is whole again
    first_epoch = first.seen + other_first.seen + alone.seen[:-bins_alone]
    assert sorted(itertools.chain(*first_epoch)) == list(range(NUM_EXAMPLES))
    assert sorted(itertools.chain(*alone.seen[-bins_alone:])) == list(range(NUM_EXAMPLES))


NORMS: list[dict[str, Any]] = [
    {"loss_norm": "token"},
    {"loss_norm": "sample"},
    {"loss_norm": "token", "weights": np.linspace(0, 3, NUM_EXAMPLES)},
]


def ranks_take_one_step(
    rank: int, num_ranks: int, model_folder: str
) -> list[tuple[float, list[torch.Tensor]]]:
    """The whole set as one optimizer step: loss and gradients for each way to weigh."""
    plan, found = make_plan(num_ranks), []
    for norm in NORMS:
        model = DistributedDataParallel(tiny(model_folder).train())
        dataset = PackedDataset(make_store(), plan, weights=norm.get("weights"))
        collate = PackedCollator(loss_norm=norm["loss_norm"])
        batches = list(PackedLoader(dataset, plan, rank=rank, collate_fn=collate))
        weight, loss = total_weight(batches), 0.0
        for number, batch in enumerate(batches, start=1):
            with contextlib.nullcontext() if number == len(batches) else model.no_sync():
                share = packed_loss(model, batch, weight)
                share.backward()
                loss += share.item()
        found.append((loss, [parameter.grad for parameter in model.parameters()]))
    return found


def test_two_ranks_one_step_to_rounding(
    tiny_model_folder: Path, run_ranks: Callable[..., list[Any]]
) -> None:
    """Loss to 1e-6; gradients no further from float64 than unpacked float32 is, plus 1e-6."""
    by_rank = run_ranks(ranks_take_one_step, model_folder=str(tiny_model_folder))
    for norm, (mine, gradients), (other, _) in zip(NORMS, *by_rank, strict=True):
        single, double = (tiny(tiny_model_folder, "eager").to(dtype) for dtype in DTYPES)
        losses = [
            unpacked_loss(model, list(range(NUM_EXAMPLES)), **norm) for model in (single, double)
        ]
        assert (mine + other) / 2 == pytest.approx(losses[1].item(), rel=1e-6)
        theirs = torch.autograd.grad(losses[0], list(single.parameters()))
        truth = torch.autograd.grad(losses[1], list(double.parameters()))
        for ours, plain, true in zip(gradients, theirs, truth, strict=True):
            allowed = (plain - true).abs().max() + 1e-6 * true.abs().max()
            assert (ours - true).abs().max() <= allowed


def ranks_run_out(rank: int, num_ranks: int, model_folder: str) -> list[float]:
    """Three long examples for two ranks: in the last step one has a token and no loss."""
    store = make_store([60, 50, 55])
    plan = plan_bins(store.seqlens, 64, world_size=num_ranks)
    model = DistributedDataParallel(tiny(model_folder).train())
    dataset, collate = PackedDataset(store, plan), PackedCollator()
    losses = []
    for batch in PackedLoader(dataset, plan, rank=rank):
        loss = packed_loss(model, batch, total_weight([batch]))
        loss.backward()
        losses.append(loss.item())
    assert all(parameter.grad is not None for parameter in model.parameters())
    everything = collate([dataset[index] for index in range(3)])
    count = total_weight([everything]).item() / num_ranks  # both ranks counted all of it
    alone = [packed_loss(tiny(model_folder), collate([dataset[i]]), count) for i in range(3)]
    return [*losses, sum(alone).item() / num_ranks]


def test_more_ranks_than_bins(tiny_model_folder: Path, run_ranks: Callable[..., list[Any]]) -> None:
    """A rank that gets no sequence any more neither hangs the others nor adds to the loss."""
    mine, other = run_ranks(ranks_run_out, model_folder=str(tiny_model_folder))
    assert sorted([mine[1] == 0.0, other[1] == 0.0]) == [False, True]
    means = np.mean([mine, other], axis=0)
    store = make_store([60, 50, 55])
    num_scored = store.num_scored
    plan = plan_bins(store.seqlens, 64, world_size=2)
    by_step = [
        sum(
            int(num_scored[span])
            for bin_ in plan.epoch(0)[at : at + 2]
            for span in bin_
            if span < 3
        )
        for at in (0, 2)
    ]
    whole = float(np.dot(means[:2], by_step) / num_scored.sum())
    assert whole == pytest.approx(means[2], rel=1e-6)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 3, "epoch"])
def test_stateful_loader_resumes(num_workers: int, stop: int | str) -> None:
    """Workers read ahead; the loader's state is that of the batches it gave out."""
    plan = make_plan()
    stop = plan.num_steps if stop == "epoch" else int(stop)

    def batches(loader: Any, count: int) -> list[list[int]]:
        found: list[list[int]] = []
        while len(found) < count:  # pass after pass, with no set_epoch
            for batch in loader:
                found.append(batch["input_ids"][0].tolist())
                if len(found) == count:
                    break
        return found

    make_loader = snippet(PAGE).make_loader
    whole = batches(make_loader(make_store(), plan, num_workers=num_workers), 2 * plan.num_steps)
    firsts = [ids[0] - 3 for ids in whole]
    assert len(set(map(tuple, whole[: plan.num_steps]))) == plan.num_steps
    assert firsts[: plan.num_steps] != firsts[plan.num_steps :]  # packed anew

    loader = make_loader(make_store(), plan, num_workers=num_workers)
    iterator = iter(loader)
    first = [next(iterator)["input_ids"][0].tolist() for _ in range(stop)]
    state = loader.state_dict()
    resumed = make_loader(make_store(), plan, num_workers=num_workers)
    resumed.load_state_dict(state)
    assert first == whole[:stop]
    assert batches(resumed, len(whole) - stop) == whole[stop:]


def test_stateful_loader_resumes_on_fewer_ranks() -> None:
    """What two ranks left of an epoch, one gets: their states are alike."""
    plan, store = make_plan(2), make_store()
    make_loader = snippet(PAGE).make_loader
    seen: list[int] = []

    def note(batch: dict[str, Any]) -> None:
        seen.extend((batch["input_ids"][0][batch["position_ids"][0] == 0] - 3).tolist())

    states = []
    for rank in range(2):
        loader = make_loader(store, plan, rank=rank)
        iterator = iter(loader)
        for _ in range(plan.num_steps // 2):
            note(next(iterator))
        states.append(loader.state_dict())
    alone = make_loader(store, make_plan(1))
    alone.load_state_dict(states[1])
    for batch in alone:
        note(batch)
    assert sorted(seen) == list(range(NUM_EXAMPLES))
    assert states[0] == states[1]


def test_packed_loader_counts_what_it_gave_out() -> None:
    """Also while workers read ahead; to a trainer a resumed pass is as long as any epoch."""
    plan, store = make_plan(), make_store()
    dataset = PackedDataset(store, plan)
    whole = [batch["input_ids"].tolist() for batch in PackedLoader(dataset, plan)]
    loader = PackedLoader(dataset, plan, num_workers=2)
    first = [batch["input_ids"].tolist() for batch in itertools.islice(loader, 2)]
    resumed = PackedLoader(dataset, plan)
    mid_epoch = loader.state_dict()
    resumed.load_state_dict(mid_epoch)
    resumed.set_epoch(0)
    rest = [batch["input_ids"].tolist() for batch in resumed]
    assert first + rest == whole
    assert len(resumed) == len(whole) == plan.num_steps
    again = PackedLoader(dataset, plan)
    again.load_state_dict(resumed.state_dict())  # the epoch's end is the next one's start
    assert sorted(len(batch["input_ids"][0]) for batch in again) == sorted(
        plan.epoch(1).num_tokens.tolist()
    )
    resumed.set_epoch(1)  # before a batch of it is asked for, it is all there still
    state = resumed.state_dict()
    again.load_state_dict(state)
    assert state["epoch"] == 1
    assert len(list(again)) == plan.num_steps
    with pytest.raises(InputError, match="for 2 processes and 1 train"):
        PackedLoader(PackedDataset(store, make_plan(2)), make_plan(2))
    shorter = plan_bins(store.seqlens, 20, overflow="truncate")
    with pytest.raises(InputError, match=r"PackedDataset\(store, plan\) of the plan"):
        PackedLoader(dataset, shorter)
