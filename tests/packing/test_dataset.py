"""The dataset serves the plan's spans, lazily where the store is flat, with weights and counts."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from codeact.errors import InputError
from codeact.packing import FlatTokens, PackedCollator, PackedDataset, plan_bins
from codeact.packing.dataset import SpanFeatures

SEQLENS = [4, 11, 0, 7, 25, 1, 9]
OVERFLOWS = ["drop", "truncate", "truncate_prompt_left", "split"]


def make_store() -> FlatTokens:
    """Token t of example k is 100 k + t; the first two of each carry no label."""
    rows = []
    for example, seqlen in enumerate(SEQLENS):
        ids = 100 * example + np.arange(seqlen)
        rows.append({"input_ids": ids, "labels": np.where(np.arange(seqlen) < 2, -100, ids)})
    return FlatTokens.from_rows(rows)


def as_rows(store: FlatTokens) -> list[Any]:
    """The same examples as no flat store: objects and dicts."""
    return [row if k % 2 else row._asdict() for k, row in enumerate(store)]


def plain(feature: dict[str, Any]) -> dict[str, Any]:
    return {key: np.asarray(value).tolist() for key, value in feature.items()}


def test_without_a_plan_items_are_examples() -> None:
    store = make_store()
    dataset = PackedDataset(store)
    assert len(dataset) == len(SEQLENS)
    assert plain(dataset[1]) == {
        "input_ids": list(range(100, 111)), "labels": [-100, -100, *range(102, 111)]
    }  # fmt: skip
    assert np.shares_memory(dataset[1]["input_ids"], store.input_ids)
    assert plain(dataset[-1]) == plain(dataset[len(SEQLENS) - 1])
    with pytest.raises(IndexError, match="index 7 is out of range for 7 spans"):
        dataset[7]
    assert dataset.num_unscored == 2  # lengths 0 and 1


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("world_size", [1, 3])
def test_items_are_spans(overflow: Any, world_size: int) -> None:
    store = make_store()
    plan = plan_bins(
        SEQLENS, 10, overflow=overflow, prompt_seqlens=store.prompt_seqlens, world_size=world_size
    )
    dataset, by_row = PackedDataset(store, plan), PackedDataset(as_rows(store), plan)
    spans = plan.spans
    assert len(dataset) == len(by_row) == len(spans)
    for index in range(len(spans)):
        first = 100 * int(spans.example[index])
        bounds = range(first + int(spans.start[index]), first + int(spans.stop[index]))
        assert dataset[index]["input_ids"].tolist() == list(bounds)
        assert plain(dataset[index]) == plain(by_row[index])
    packed = [int(span) for bin_ in plan.epoch(0) for span in bin_ if span != spans.filler]
    unscored = sum(all(t < 0 for t in dataset[span]["labels"][1:].tolist()) for span in packed)
    assert dataset.num_unscored == by_row.num_unscored == unscored


def test_a_flat_batch_holds_no_token_until_asked() -> None:
    dataset = PackedDataset(make_store(), weights=np.arange(7.0))
    features = dataset.__getitems__([3, 0])
    assert isinstance(features, SpanFeatures)
    assert [plain(feature) for feature in features] == [plain(dataset[3]), plain(dataset[0])]
    assert plain(features[-1]) == plain(dataset[0])
    part = features[1:]
    assert [plain(feature) for feature in part] == [plain(dataset[0])]
    assert part[0]["weight"] == 0.0


@pytest.mark.parametrize("flat", [True, False], ids=["flat", "rows"])
def test_weights_and_counts_follow_the_example(flat: bool) -> None:
    store = make_store()
    plan = plan_bins(SEQLENS, 10, overflow="split", world_size=2)
    weights = np.array([0.5, 2.0, 1.0, 0.0, 3.0, 1.0, 0.25])
    dataset = PackedDataset(store if flat else as_rows(store), plan, weights=weights)
    scored_in_example = np.zeros(7, dtype=int)
    for index, example in enumerate(plan.spans.example.tolist()):
        scored = sum(label >= 0 for label in dataset[index]["labels"][1:].tolist())
        scored_in_example[example] += scored
        assert dataset[index]["weight"] == weights[example]
    # Three pieces of 25 tokens: two labels at the start have no loss, nor have two at the cuts.
    assert scored_in_example[4] == 25 - 2 - 2
    for index, example in enumerate(plan.spans.example.tolist()):
        assert dataset[index]["num_scored"] == scored_in_example[example]


@pytest.mark.parametrize(
    ("overflow", "world_size"),
    [("drop", 1), ("truncate", 4), ("truncate_prompt_left", 1), ("split", 4)],
)
def test_bins_are_gathered_on_the_device(overflow: Any, world_size: int, device: Any) -> None:
    store = make_store()
    plan = plan_bins(
        store.seqlens, 8, overflow=overflow, world_size=world_size,
        prompt_seqlens=store.prompt_seqlens,
    )  # fmt: skip
    dataset, collate = PackedDataset(store, plan), PackedCollator()
    tokens = dataset.on_device(device)
    for spans in plan.epoch(0):
        batch, want = tokens.gather(spans).to("cpu"), collate.pack(dataset.__getitems__(spans))
        assert torch.equal(batch.input_ids, want.input_ids)
        assert torch.equal(batch.labels, want.labels)
        assert torch.equal(batch.cu_seqlens, want.cu_seqlens)
        assert batch.cu_rows.tolist() == want.cu_rows.tolist()


def test_what_a_device_cannot_hold_is_refused() -> None:
    store = make_store()
    with pytest.raises(InputError, match="on_device needs a flat store"):
        PackedDataset(as_rows(store)).on_device("cpu")
    with pytest.raises(InputError, match="on_device has no weights"):
        PackedDataset(store, weights=np.ones(len(store))).on_device("cpu")


@pytest.mark.parametrize("flat", [True, False], ids=["flat", "rows"])
def test_workers_receive_no_plan(flat: bool) -> None:
    store = make_store()
    plan = plan_bins(SEQLENS, 10, overflow="split", world_size=2)
    plan.epoch(0)
    dataset = PackedDataset(store if flat else as_rows(store), plan, weights=np.arange(7.0))
    copied = pickle.loads(pickle.dumps(dataset))
    assert copied.plan is None
    assert dataset.plan is plan
    assert len(copied) == len(dataset)
    assert copied.num_unscored == dataset.num_unscored
    assert [plain(copied[k]) for k in range(len(copied))] == [
        plain(dataset[k]) for k in range(len(dataset))
    ]


def test_whole_examples_need_no_count() -> None:
    store = make_store()
    for overflow in ("truncate", "split"):
        plan = plan_bins(SEQLENS, 25, overflow=overflow)
        assert set(PackedDataset(store, plan)[0]) == {"input_ids", "labels"}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0] * 6, r"weights must be a row of 7, one an example, got shape \(6,\)"),
        ([[1.0] * 7], r"got shape \(1, 7\)"),
        ([1.0] * 6 + [float("nan")], r"weights\[6\] = nan"),
        ([1.0, -1.0] + [1.0] * 5, r"at least 0, got weights\[1\] = -1\.0"),
    ],
    ids=["short", "2-D", "nan", "negative"],
)
def test_weights_refused(weights: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PackedDataset(make_store(), weights=weights)


def test_another_plan_is_refused() -> None:
    store = make_store()
    with pytest.raises(InputError, match="made for 2 examples, the store has 7"):
        PackedDataset(store, plan_bins([3, 4], 10))
    other = plan_bins([4, 11, 0, 8, 25, 1, 9], 25)
    with pytest.raises(InputError, match="example 3 has 7 tokens, not 8"):
        PackedDataset(store, other)
    with pytest.raises(InputError, match="row 3 of the store has 7 input_ids and 7 labels, expec"):
        PackedDataset(as_rows(store), other)[3]
