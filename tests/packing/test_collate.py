"""Bins become batches with every key a transformers model reads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch.utils.data import DataLoader

from codeact.packing import PackedBatchSampler, PackedCollator, PackedDataset, plan_bins


class Row(NamedTuple):
    input_ids: np.ndarray
    labels: np.ndarray


def make_store(num_rows: int) -> list[Row]:
    rng = np.random.default_rng(0)
    rows = []
    for n in rng.integers(3, 12, size=num_rows):
        ids = rng.integers(3, 90, size=n).astype(np.int32)
        rows.append(Row(ids, np.where(np.arange(n) < 2, -100, ids).astype(np.int32)))
    return rows


def loader(store: list[Row], sampler: PackedBatchSampler) -> DataLoader:
    return DataLoader(PackedDataset(store), batch_sampler=sampler, collate_fn=PackedCollator())


def test_keys_and_values() -> None:
    store = make_store(2)
    features = [PackedDataset(store)[0], PackedDataset(store)[1]]
    batch = PackedCollator()(features)
    assert set(batch) == {
        "input_ids", "labels", "position_ids", "cu_seq_lens_q", "cu_seq_lens_k",
        "max_length_q", "max_length_k", "seq_idx", "use_cache",
    }  # fmt: skip
    both = np.concatenate([store[0].input_ids, store[1].input_ids])
    assert batch["input_ids"][0].tolist() == both.tolist()
    expected = np.concatenate([store[0].labels, store[1].labels])
    assert batch["labels"][0].tolist() == expected.tolist()
    assert isinstance(batch["max_length_q"], int)


def test_an_epoch_sees_every_token_once() -> None:
    store = make_store(50)
    plan = plan_bins([len(row.input_ids) for row in store], 32)
    batches = list(loader(store, PackedBatchSampler(plan)))
    assert len(batches) == plan.num_bins == len(PackedBatchSampler(plan))
    seen = sorted(np.concatenate([batch["input_ids"][0].numpy() for batch in batches]).tolist())
    assert seen == sorted(np.concatenate([row.input_ids for row in store]).tolist())
    assert max(batch["input_ids"].shape[1] for batch in batches) <= 32


def test_epochs_advance_or_are_set() -> None:
    plan = plan_bins([len(row.input_ids) for row in make_store(50)], 32)
    sampler = PackedBatchSampler(plan)
    first, second = list(sampler), list(sampler)
    assert first != second
    sampler.set_epoch(1)
    sampler.set_epoch(1)  # some trainers say it twice
    assert list(sampler) == second
