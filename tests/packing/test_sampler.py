"""The sampler's epochs, ranks and lengths, alone and inside loaders that look for them."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from codeact.errors import InputError
from codeact.packing.plan import BinPlan, plan_bins
from codeact.packing.sampler import PackedBatchSampler


class Numbers(Dataset[int]):
    """Item i is i, so a batch of it is the bin itself."""

    def __init__(self, plan: BinPlan) -> None:
        self.num_spans = len(plan.spans)

    def __len__(self) -> int:
        return self.num_spans

    def __getitem__(self, index: int) -> int:
        return index


def make_plan(world_size: int = 1, **options: Any) -> BinPlan:
    lengths = np.random.default_rng(0).integers(1, 60, 120)
    return plan_bins(lengths, 100, window=32, world_size=world_size, **options)


def bins_of(plan: BinPlan, epoch: int) -> list[list[int]]:
    return [spans.tolist() for spans in plan.epoch(epoch)]


def test_yields_the_plan() -> None:
    plan = make_plan()
    sampler = PackedBatchSampler(plan)
    assert list(sampler) == bins_of(plan, 0)
    assert len(sampler) == plan.num_bins


def test_ranks_share_a_step() -> None:
    plan = make_plan(world_size=3)
    by_rank = [list(PackedBatchSampler(plan, rank=rank)) for rank in range(3)]
    assert [len(PackedBatchSampler(plan, rank=rank)) for rank in range(3)] == [plan.num_steps] * 3
    assert [bin_ for step in zip(*by_rank, strict=True) for bin_ in step] == bins_of(plan, 0)
    assert list(PackedBatchSampler(plan)) == bins_of(plan, 0)


@pytest.mark.parametrize("rank", [-1, 3])
def test_rank_refused(rank: int) -> None:
    with pytest.raises(InputError, match=rf"rank must lie in \[0, 3\), got {rank}"):
        PackedBatchSampler(make_plan(world_size=3), rank=rank)


def test_epochs_advance_or_are_set() -> None:
    plan = make_plan()
    sampler = PackedBatchSampler(plan)
    assert [list(sampler), list(sampler)] == [bins_of(plan, 0), bins_of(plan, 1)]
    sampler.set_epoch(1)
    sampler.set_epoch(1)  # some trainers say it twice
    assert sampler.epoch == 1
    assert list(sampler) == bins_of(plan, 1)
    assert sampler.epoch == 2
    sampler.set_epoch(7)
    sampler.set_epoch(5)
    assert list(sampler) == bins_of(plan, 5)


def test_a_pass_given_up_counts_and_an_unused_iterator_does_not() -> None:
    plan = make_plan()
    sampler = PackedBatchSampler(plan)
    iter(sampler)
    unused = iter(sampler)
    assert next(iter(sampler)) == bins_of(plan, 0)[0]
    assert list(sampler) == bins_of(plan, 1)
    assert list(unused) == bins_of(plan, 2)


def test_setting_the_epoch_under_way_changes_nothing() -> None:
    plan = make_plan()
    sampler = PackedBatchSampler(plan)
    running = iter(sampler)
    first = next(running)
    sampler.set_epoch(0)
    assert sampler.state_dict()["segments"] == [[1, 1]]
    assert [first, *running] == bins_of(plan, 0)
    assert list(sampler) == bins_of(plan, 1)


def test_an_epoch_may_be_played_again() -> None:
    plan = make_plan()
    sampler = PackedBatchSampler(plan)
    next(iter(sampler))
    sampler.set_epoch(0)
    assert list(sampler) == bins_of(plan, 0)


def test_lightning_and_accelerate_find_set_epoch() -> None:
    plan = make_plan()
    sampler = PackedBatchSampler(plan)
    sampler.sampler.set_epoch(3)
    assert list(sampler) == bins_of(plan, 3)
    with pytest.raises(TypeError):
        iter(sampler.sampler)  # type: ignore[call-overload]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_in_a_loader(num_workers: int) -> None:
    plan = make_plan()
    loader = DataLoader(
        Numbers(plan),
        batch_sampler=PackedBatchSampler(plan),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    assert len(loader) == plan.num_bins
    for epoch in (0, 1):
        assert [batch.tolist() for batch in loader] == bins_of(plan, epoch)


def test_accelerate_deals_the_global_order() -> None:
    from accelerate.data_loader import BatchSamplerShard

    plan = make_plan(world_size=2)
    shards = [
        BatchSamplerShard(PackedBatchSampler(plan), 2, rank, even_batches=False)
        for rank in range(2)
    ]
    assert [len(shard) for shard in shards] == [plan.num_steps] * 2
    for rank, shard in enumerate(shards):
        assert list(shard) == list(PackedBatchSampler(plan, rank=rank))


def test_accelerate_sets_the_epoch() -> None:
    from accelerate.data_loader import prepare_data_loader

    plan = make_plan()
    loader = DataLoader(Numbers(plan), batch_sampler=PackedBatchSampler(plan))
    loader = prepare_data_loader(loader, num_processes=1, process_index=0, put_on_device=False)
    assert [batch.tolist() for batch in loader] == bins_of(plan, 0)
    loader.set_epoch(4)
    assert [batch.tolist() for batch in loader] == bins_of(plan, 4)


def test_leaving_a_loaded_position_is_said(caplog: pytest.LogCaptureFixture) -> None:
    plan = make_plan()
    sampler = PackedBatchSampler(plan)
    sampler.set_epoch(2)
    running = iter(sampler)
    next(running)
    resumed = PackedBatchSampler(plan)
    resumed.load_state_dict(sampler.state_dict())
    with caplog.at_level(logging.WARNING, logger="codeact"):
        resumed.set_epoch(2)
        assert not caplog.records
        resumed.set_epoch(0)
    assert "set_epoch(0) leaves the loaded position in epoch 2 aside" in caplog.text
    resumed.set_epoch(2)  # a trainer that counts from 0 first and then knows better
    assert list(resumed) == bins_of(plan, 2)[1:]
    resumed.set_epoch(2)
    assert list(resumed) == bins_of(plan, 2)
