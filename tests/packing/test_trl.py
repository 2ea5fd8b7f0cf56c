"""Bins as rows of a dataset: TRL's collator makes of them what ours makes of the bins."""

from __future__ import annotations

import pickle
from typing import Any

import datasets
import numpy as np
import pytest
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from codeact.errors import InputError
from codeact.packing import FlatTokens, PackedCollator, PackedDataset, plan_bins, to_trl


def make_store(num_rows: int = 40) -> FlatTokens:
    rng = np.random.default_rng(0)
    rows = []
    for n in rng.integers(0, 30, size=num_rows):
        ids = rng.integers(3, 90, size=n)
        rows.append({"input_ids": ids, "labels": np.where(np.arange(n) < 2, -100, ids)})
    return FlatTokens.from_rows(rows)


@pytest.mark.parametrize("overflow", ["error", "drop", "truncate", "split"])
@pytest.mark.parametrize("lazy", [False, True], ids=["whole", "lazy"])
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "rows"])
def test_rows_are_bins(overflow: Any, lazy: bool, flat: bool) -> None:
    store = make_store()
    plan = plan_bins(
        store.seqlens, 40 if overflow == "error" else 20, overflow=overflow, world_size=2
    )
    source: Any = store if flat else list(store)
    rows = to_trl(source, plan, epoch=1, lazy=lazy)
    assert isinstance(rows, datasets.Dataset)
    assert len(rows) == plan.num_bins
    dataset = PackedDataset(store, plan)
    for row, bin_ in zip(rows, plan.epoch(1), strict=True):
        features = dataset.__getitems__(bin_.tolist())
        batch = PackedCollator()(features)
        assert np.asarray(row["input_ids"]).tolist() == batch["input_ids"][0].tolist()
        assert np.asarray(row["labels"]).tolist() == batch["labels"][0].tolist()
        assert row["seq_lengths"] == [len(feature["input_ids"]) for feature in features]


@pytest.mark.parametrize("lazy", [False, True], ids=["whole", "lazy"])
def test_their_collator_and_ours_agree(lazy: bool) -> None:
    store = make_store()
    plan = plan_bins(store.seqlens, 40)
    rows = to_trl(store, plan, lazy=lazy)
    theirs = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    for index in range(len(rows)):
        batch, ours = theirs([rows[index]]), PackedCollator()([rows[index]])
        for name in ("input_ids", "labels", "position_ids"):
            assert batch[name].tolist() == ours[name].tolist(), name
    # Two rows together are one longer stream for both.
    batch, ours = theirs([rows[0], rows[1]]), PackedCollator()([rows[0], rows[1]])
    assert batch["position_ids"].tolist() == ours["position_ids"].tolist()


def test_lazy_rows_read_the_store_when_asked() -> None:
    store = make_store()
    plan = plan_bins(store.seqlens, 40)
    rows = to_trl(store, plan, lazy=True)
    assert rows.column_names == ["bin_index"]
    before = np.asarray(rows[3]["input_ids"]).tolist()
    store.input_ids += 1
    assert np.asarray(rows[3]["input_ids"]).tolist() == [token + 1 for token in before]
    assert len(rows[[0, 2]]["input_ids"]) == 2
    copied = pickle.loads(pickle.dumps(rows))  # as worker processes receive it
    assert copied[3]["seq_lengths"] == rows[3]["seq_lengths"]


def test_a_plan_of_other_lengths_is_refused() -> None:
    with pytest.raises(InputError, match="made for 1 examples, the store has 40"):
        to_trl(make_store(), plan_bins([3], 40))
