"""Interrupted and resumed, with any number of ranks, a run sees every sequence once an epoch."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from codeact.errors import InputError
from codeact.packing.cost import AttentionCost, ModelCost
from codeact.packing.plan import BinPlan, plan_bins
from codeact.packing.sampler import PackedBatchSampler

COST = ModelCost(10.0, (AttentionCost(1, 1.0),))


def make_plan(lengths: list[int] | np.ndarray, world_size: int, order: str = "shuffle") -> BinPlan:
    return plan_bins(
        lengths, 40, window=8, order=order, seed=2, world_size=world_size, cost=COST
    )  # fmt: skip


def without_fillers(plan: BinPlan, bins: list[list[int]]) -> list[int]:
    return [span for spans in bins for span in spans if span != plan.spans.filler]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=4, max_size=60),
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 25)), min_size=1, max_size=5),
    st.sampled_from(["shuffle", "preserve", "compat"]),
)
def test_exactly_once_however_often_the_world_changes(
    lengths: list[int], runs: list[tuple[int, int]], order: str
) -> None:
    """Each run trains some steps with its own number of ranks and is killed; the last ends."""
    state: dict[str, Any] | None = None
    seen: dict[int, Counter[int]] = {}
    for number, (world_size, num_steps) in enumerate([*runs, (3, 10**6)]):
        plan = make_plan(lengths, world_size, order)
        samplers = [PackedBatchSampler(plan, rank=rank) for rank in range(world_size)]
        for sampler in samplers:
            if state is not None:
                sampler.load_state_dict(json.loads(json.dumps(state)))
        is_last = number == len(runs)
        last_epoch = samplers[0].epoch + is_last  # the last run ends its epoch and does one more
        for _ in range(num_steps):
            epoch = samplers[0].epoch
            if is_last and epoch > last_epoch:
                break
            running = [iter(sampler) for sampler in samplers]
            left = [len(sampler) for sampler in samplers]
            assert len(set(left)) == 1
            steps = list(zip(*running, strict=True))[:num_steps]
            num_steps -= len(steps)
            bins = [spans for step in steps for spans in step]
            seen.setdefault(epoch, Counter()).update(without_fillers(plan, bins))
            for sampler in samplers:
                assert all(len(spans) for spans in bins)
                state = sampler.state_dict(len(steps))
            if num_steps <= 0:
                break
            assert len(steps) == left[0]
    epochs = sorted(seen)
    assert epochs == list(range(len(epochs)))
    for epoch in epochs:
        assert seen[epoch] == Counter(range(len(lengths)))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_rest_is_what_was_left(world_size: int) -> None:
    plan = make_plan(np.random.default_rng(0).integers(1, 30, 90), world_size)
    whole = list(PackedBatchSampler(plan))
    for done in (0, 1, plan.num_steps - 1):
        sampler = PackedBatchSampler(plan)
        running = iter(sampler)
        for _ in range(done * world_size):
            next(running)
        resumed = PackedBatchSampler(plan)
        resumed.load_state_dict(sampler.state_dict())
        assert len(resumed) == (plan.num_steps - done) * world_size
        assert list(resumed) == whole[done * world_size :]
        assert len(resumed) == plan.num_bins
        assert list(resumed) == [spans.tolist() for spans in plan.epoch(1)]


def test_state_is_small_and_says_what_was_trained() -> None:
    plan = make_plan(np.random.default_rng(0).integers(1, 30, 90), 2)
    sampler = PackedBatchSampler(plan)
    assert sampler.state_dict() == {
        "version": 1, "fingerprint": plan.fingerprint, "epoch": 0, "segments": [],
    }  # fmt: skip
    running = iter(sampler)
    for _ in range(9):  # a loader fetches ahead: four steps and a half
        next(running)
    assert sampler.state_dict()["segments"] == [[2, 4]]
    assert sampler.state_dict(3)["segments"] == [[2, 3]]
    resumed = PackedBatchSampler(plan, rank=1)
    resumed.load_state_dict(sampler.state_dict(3))
    list(resumed)
    assert resumed.state_dict(2)["segments"] == [[2, 5]]
    assert len(json.dumps(sampler.state_dict())) < 200
    with pytest.raises(InputError, match=r"step must lie in \[0, \d+\], .* got 1000"):
        sampler.state_dict(1000)


def test_the_end_of_an_epoch_is_the_start_of_the_next() -> None:
    plan = make_plan(np.arange(1, 30), 1)
    sampler = PackedBatchSampler(plan)
    list(sampler)
    state = sampler.state_dict()
    assert (state["epoch"], state["segments"]) == (0, [[1, plan.num_steps]])
    resumed = PackedBatchSampler(plan)
    resumed.load_state_dict(state)
    assert (resumed.epoch, len(resumed)) == (1, plan.num_bins)
    assert list(resumed) == [spans.tolist() for spans in plan.epoch(1)]


def test_the_rest_is_balanced_and_mixed_anew() -> None:
    lengths = np.random.default_rng(0).integers(1, 30, 400)
    four, two = make_plan(lengths, 4), make_plan(lengths, 2)
    sampler = PackedBatchSampler(four)
    running = iter(sampler)
    done = [next(running) for _ in range(40)]
    resumed = PackedBatchSampler(two)
    resumed.load_state_dict(sampler.state_dict())
    assert len(resumed) == len(four.epoch(0)) - 40
    rest = list(resumed)
    assert {tuple(spans) for spans in rest} <= {tuple(spans) for spans in four.epoch(0)}
    assert rest != [spans.tolist() for spans in four.epoch(0)[40:]]
    assert sorted(without_fillers(four, done) + without_fillers(two, rest)) == list(range(400))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fingerprint": "0" * 32}, "state is of a plan with the fingerprint 0000"),
        ({"version": 2}, "state must be of version 1, got version 2"),
        ({"epoch": -1}, "state holds a negative number"),
        ({"segments": [[1, -2]]}, "state holds a negative number"),
        ({"segments": [[0, 2]]}, "state holds a negative number"),
        ({"segments": [[1, 10**6]]}, "the state has 1000000 steps of 1 ranks done in epoch 0"),
        ({"segments": [[2, 10**6]]}, "the state has 1000000 steps of 2 ranks done in epoch 0"),
        ({"segments": 5}, "state must be what PackedBatchSampler.state_dict gave"),
        ({"segments": [[1]]}, "state must be what PackedBatchSampler.state_dict gave"),
        ({"epoch": None}, "state must be what PackedBatchSampler.state_dict gave"),
    ],
)
def test_states_refused(changed: dict[str, Any], message: str) -> None:
    sampler = PackedBatchSampler(make_plan(np.arange(1, 30), 1))
    with pytest.raises(InputError, match=message):
        sampler.load_state_dict(sampler.state_dict() | changed)
    with pytest.raises(InputError, match="state must be what PackedBatchSampler"):
        sampler.load_state_dict({})


class Numbers(Dataset[int]):
    """Item i is i."""

    def __len__(self) -> int:
        return 90

    def __getitem__(self, index: int) -> int:
        return index


def stateful_loader(plan: BinPlan, num_workers: int) -> StatefulDataLoader[Any]:
    return StatefulDataLoader(
        Numbers(), batch_sampler=PackedBatchSampler(plan, rank=0), num_workers=num_workers
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_stateful_loader_resumes_where_it_was(num_workers: int) -> None:
    plan = make_plan(np.random.default_rng(0).integers(1, 30, 90), 1)
    epochs = [[spans.tolist() for spans in plan.epoch(epoch)] for epoch in range(3)]
    for done in (0, 3, plan.num_bins - 1, plan.num_bins):
        loader = stateful_loader(plan, num_workers)
        assert [batch.tolist() for batch in loader] == epochs[0]
        state = loader.state_dict()
        for _ in zip(range(done), loader, strict=False):
            state = loader.state_dict()
        resumed = stateful_loader(plan, num_workers)
        resumed.load_state_dict(state)
        rest = [batch.tolist() for batch in resumed]
        # What ended stays ended: torchdata begins the next epoch where its loader was finished,
        # and gives an empty pass where only the last batch had been taken.
        assert rest == epochs[1][done:]
        assert [batch.tolist() for batch in resumed] == epochs[2]


def test_stateful_loader_does_not_read_up_to_the_place() -> None:
    plan = make_plan(np.arange(1, 30).repeat(3), 1)
    loader = stateful_loader(plan, 0)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    resumed = stateful_loader(plan, 0)
    resumed.load_state_dict(state)
    next(iter(resumed))
    sampler: Any = resumed.batch_sampler
    assert sampler.state_dict()["segments"] == [[1, 2]]
    assert sampler._pass._num_yielded == 1


def train(folder: Path, world_size: int) -> None:
    """Three epochs; every other step is a checkpoint of what was seen and of the sampler."""
    plan = plan_bins(KILLED_LENGTHS, 100, window=32, world_size=world_size, seed=4)
    samplers = [PackedBatchSampler(plan, rank=rank) for rank in range(world_size)]
    seen: dict[str, list[int]] = {}
    checkpoint = folder / "checkpoint.json"
    if checkpoint.exists():
        saved = json.loads(checkpoint.read_text())
        seen = saved["seen"]
        for sampler in samplers:
            sampler.load_state_dict(saved["state"])
    while (epoch := samplers[0].epoch) < 3:
        num_steps = len(samplers[0])
        for step, bins in enumerate(zip(*samplers, strict=True), 1):
            seen.setdefault(str(epoch), []).extend(without_fillers(plan, list(bins)))
            if step % 2 == 0 or step == num_steps:
                saved = {"seen": seen, "state": samplers[0].state_dict(step)}
                temporary = checkpoint.with_suffix(".tmp")
                temporary.write_text(json.dumps(saved))
                os.replace(temporary, checkpoint)
            time.sleep(0.001)


KILLED_LENGTHS = list(range(1, 61)) * 4


def test_killed_processes_see_everything_once(tmp_path: Path) -> None:
    """SIGKILL wherever it strikes, then another number of ranks goes on from the checkpoint."""
    num_killed = 0
    for generation in range(200):
        world_size = (2, 3, 1, 4)[generation % 4]
        process = multiprocessing.get_context("fork").Process(
            target=train, args=(tmp_path, world_size)
        )
        process.start()
        process.join(0.02 + 0.01 * (generation % 5))
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        num_killed += 1
    else:
        pytest.fail("never came to its end")
    assert num_killed >= 2
    seen = json.loads((tmp_path / "checkpoint.json").read_text())["seen"]
    assert {epoch: sorted(spans) for epoch, spans in seen.items()} == {
        str(epoch): list(range(240)) for epoch in range(3)
    }
