"""Bins become batches with every key a transformers model reads, of any store alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

from codeact.errors import InputError
from codeact.ops import block_mask, dense_mask
from codeact.ops.varlen import IGNORE_INDEX, pack_sequences
from codeact.packing import (
    FlatTokens,
    PackedBatchSampler,
    PackedCollator,
    PackedDataset,
    plan_bins,
)

KEYS = {
    "input_ids", "labels", "position_ids", "cu_seq_lens_q", "cu_seq_lens_k",
    "max_length_q", "max_length_k", "seq_idx", "use_cache",
}  # fmt: skip


def make_store(num_rows: int, *, seed: int = 0) -> FlatTokens:
    rng = np.random.default_rng(seed)
    rows = []
    for n in rng.integers(1, 12, size=num_rows):
        ids = rng.integers(3, 90, size=n)
        rows.append({"input_ids": ids, "labels": np.where(rng.random(n) < 0.4, -100, ids)})
    return FlatTokens.from_rows(rows)


def as_dicts(store: FlatTokens) -> list[dict[str, Any]]:
    return [row._asdict() for row in store]


def plain(batch: dict[str, Any]) -> dict[str, Any]:
    return {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


def test_keys_and_values() -> None:
    features = [
        {"input_ids": [5, 6, 7], "labels": [5, -100, 7]},
        {"input_ids": [8], "labels": [8]},
        {"input_ids": [9, 10], "labels": [9, 10]},
    ]
    batch = PackedCollator()(features)
    assert plain(batch) == {
        "input_ids": [[5, 6, 7, 8, 9, 10]],
        "labels": [[-100, -100, 7, -100, -100, 10]],
        "position_ids": [[0, 1, 2, 0, 0, 1]],
        "seq_idx": [[0, 0, 0, 1, 2, 2]],
        "cu_seq_lens_q": [0, 3, 4, 6],
        "cu_seq_lens_k": [0, 3, 4, 6],
        "max_length_q": 3,
        "max_length_k": 3,
        "use_cache": False,
    }
    assert {type(batch[key]) for key in ("max_length_q", "max_length_k")} == {int}
    assert all(batch[k].dtype == torch.int64 for k in ("input_ids", "labels", "position_ids"))
    assert all(batch[k].dtype == torch.int32 for k in ("cu_seq_lens_q", "seq_idx"))
    assert features[0]["labels"] == [5, -100, 7]  # what was given is left alone


@pytest.mark.parametrize("loss_norm", ["token", "sample"])
@pytest.mark.parametrize("fixed_shape", [None, (64, 12)], ids=str)
@pytest.mark.parametrize("kind", ["memory", "files", "arrow", "tensors", "uint16"])
def test_every_store_gives_the_same_batch(
    kind: str, fixed_shape: Any, loss_norm: Any, tmp_path: Path
) -> None:
    store = make_store(9)
    dicts = as_dicts(store)
    collate = PackedCollator(loss_norm=loss_norm, fixed_shape=fixed_shape)
    chosen = [7, 2, 3, 0, 5]
    expected = plain(collate([dicts[index] for index in chosen]))
    other: Any = store
    if kind == "files":
        store.save(tmp_path / "tokens")
        other = FlatTokens.open(tmp_path / "tokens")
    elif kind == "arrow":
        columns = {name: [row[name].tolist() for row in dicts] for name in ("input_ids", "labels")}
        other = FlatTokens.from_arrow(pa.table(columns))
    elif kind == "tensors":
        other = [{k: torch.from_numpy(v.copy()) for k, v in row.items()} for row in dicts]
    elif kind == "uint16":
        other = FlatTokens(store.input_ids.astype(np.uint16), store.labels, store.offsets)
    assert plain(collate(PackedDataset(other).__getitems__(chosen))) == expected
    packed = collate.pack(PackedDataset(other).__getitems__(chosen))
    assert packed.model_inputs()["position_ids"].tolist() == expected["position_ids"]
    assert [packed.labels.tolist()] == expected["labels"]
    assert packed.cu_seqlens.tolist() == expected["cu_seq_lens_q"]
    assert packed.max_seqlen == expected["max_length_q"]


def test_the_packed_batch_is_that_of_its_sequences() -> None:
    store = make_store(6)
    batch = PackedCollator().pack(PackedDataset(store).__getitems__(range(6)))
    expected = pack_sequences([row.input_ids for row in store], [row.labels for row in store])
    for name in ("input_ids", "position_ids", "cu_seqlens", "rows", "targets", "cu_rows"):
        assert getattr(batch, name).tolist() == getattr(expected, name).tolist(), name
    assert batch.max_seqlen == expected.max_seqlen


def test_an_epoch_sees_every_token_once() -> None:
    store = make_store(50)
    plan = plan_bins(store.seqlens, 32)
    loader = DataLoader(
        PackedDataset(store, plan),
        batch_sampler=PackedBatchSampler(plan),
        collate_fn=PackedCollator(),
        num_workers=1,
    )
    batches = list(loader)
    assert len(batches) == plan.num_bins
    assert set(batches[0]) == KEYS
    seen = sorted(np.concatenate([batch["input_ids"][0].numpy() for batch in batches]).tolist())
    assert seen == sorted(store.input_ids.tolist())
    assert max(batch["input_ids"].shape[1] for batch in batches) <= 32


def test_a_fixed_shape_ends_in_one_sequence_of_padding() -> None:
    features = as_dicts(FlatTokens.from_rows([{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}] * 2))
    batch = plain(PackedCollator(fixed_shape=(11, 5))(features))
    assert batch["input_ids"] == [[5, 6, 7, 5, 6, 7, 0, 0, 0, 0, 0]]
    assert batch["labels"] == [[-100, 6, 7, -100, 6, 7, *[-100] * 5]]
    assert batch["position_ids"] == [[0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4]]
    assert batch["seq_idx"] == [[0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]]
    assert batch["cu_seq_lens_q"] == [0, 3, 6, 11, 11, 11]
    assert batch["max_length_q"] == 8  # of 5, as a power of two
    full = plain(PackedCollator(fixed_shape=(6, 2))(features))  # no room, no padding
    assert full["cu_seq_lens_q"] == [0, 3, 6]
    assert full["max_length_q"] == 4
    assert plain(PackedCollator(fixed_shape=(7, 3))(features))["max_length_q"] == 4
    only = plain(PackedCollator(fixed_shape=(3, 1))(features[:1]))
    assert only["max_length_q"] == 3  # never above the tokens there are
    batch = PackedCollator(fixed_shape=(11, 5)).pack(features)
    assert batch.cu_rows.tolist() == [0, 2, 4, 4, 4, 4]
    assert batch.num_seqs == 5


def test_fixed_shapes_are_few() -> None:
    store = make_store(200)
    plan = plan_bins(store.seqlens, 40)
    collate = PackedCollator(fixed_shape=(40, plan.max_num_seqs + 1))
    dataset = PackedDataset(store, plan)
    batches = [
        collate(dataset.__getitems__(bin_)) for epoch in range(3) for bin_ in plan.epoch(epoch)
    ]
    shapes = {
        tuple(v.shape if isinstance(v, torch.Tensor) else v for v in batch.values())
        for batch in batches
    }
    assert len(shapes) <= 8
    assert {batch["input_ids"].shape for batch in batches} == {(1, 40)}


@pytest.mark.parametrize(
    ("fixed_shape", "message"),
    [
        ((5, 9), r"a bin of 6 tokens does not fit fixed_shape = \(5, 9\)"),
        ((6, 1), r"a bin of 2 spans does not fit fixed_shape = \(6, 1\)"),
        ((7, 2), r"a bin of 2 spans and one of padding does not fit fixed_shape = \(7, 2\)"),
    ],
)
def test_what_does_not_fit_is_named(fixed_shape: Any, message: str) -> None:
    features = as_dicts(FlatTokens.from_rows([{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}] * 2))
    with pytest.raises(InputError, match=message):
        PackedCollator(fixed_shape=fixed_shape)(features)


def test_loss_weights() -> None:
    rows = [
        {"input_ids": [1, 2, 3, 4], "labels": [1, 2, -100, 4]},
        {"input_ids": [5, 6], "labels": [-100, -100]},  # nothing scored
        {"input_ids": [7, 8], "labels": [7, 8]},
    ]
    assert "loss_weights" not in PackedCollator()(rows)
    batch = PackedCollator(loss_norm="sample")(rows)
    assert batch["loss_weights"].dtype == torch.float32
    assert batch["loss_weights"].tolist() == [[0, 0.5, 0, 0.5, 0, 0, 0, 1]]
    weighted = [row | {"weight": w} for row, w in zip(rows, (3.0, 5.0, 0.25), strict=True)]
    assert PackedCollator()(weighted)["loss_weights"].tolist() == [[0, 3, 0, 3, 0, 0, 0, 0.25]]
    both = PackedCollator(loss_norm="sample", fixed_shape=(10, 4))(weighted)["loss_weights"]
    assert both.tolist() == [[0, 1.5, 0, 1.5, 0, 0, 0, 0.25, 0, 0]]
    some = PackedCollator()([weighted[0], rows[2]])["loss_weights"]  # without one: 1
    assert some.tolist() == [[0, 3, 0, 3, 0, 1]]


@pytest.mark.parametrize("flat", [True, False], ids=["flat", "rows"])
def test_weights_of_an_example_sum_to_its_weight(flat: bool) -> None:
    """Also when it is in pieces, in several bins."""
    store = make_store(40)
    weights = np.random.default_rng(1).random(40) + 0.5
    plan = plan_bins(store.seqlens, 8, overflow="split", world_size=2)
    assert plan.num_cut > 0
    dataset = PackedDataset(store if flat else as_dicts(store), plan, weights=weights)
    collate = PackedCollator(loss_norm="sample")
    totals, scored = np.zeros(40), np.zeros(40)
    for bin_ in plan.epoch(0):
        batch = collate(dataset.__getitems__(bin_.tolist()))
        bounds = batch["cu_seq_lens_q"].tolist()
        for span, a, b in zip(bin_.tolist(), bounds[:-1], bounds[1:], strict=True):
            if span == plan.spans.filler:
                continue
            totals[plan.spans.example[span]] += float(batch["loss_weights"][0, a:b].sum())
            scored[plan.spans.example[span]] += int((batch["labels"][0, a:b] >= 0).sum())
    assert np.allclose(totals, np.where(scored > 0, weights, 0.0), rtol=1e-6)
    assert (scored == 0).any()


def test_rows_of_several_sequences_stay_apart() -> None:
    row = {"input_ids": [1, 2, 3, 4, 5], "labels": [1, 2, 3, 4, 5], "seq_lengths": [3, 2]}
    one = {"input_ids": [6, 7], "labels": [6, 7], "weight": 2.0}
    batch = plain(PackedCollator(loss_norm="sample")([row, one]))
    assert batch["cu_seq_lens_q"] == [0, 3, 5, 7]
    assert batch["position_ids"] == [[0, 1, 2, 0, 1, 0, 1]]
    assert batch["labels"] == [[-100, 2, 3, -100, 5, -100, 7]]
    assert batch["loss_weights"] == [[0, 0.5, 0.5, 0, 1, 0, 2]]
    with pytest.raises(InputError, match="seq_lengths must sum to the lengths of input_ids"):
        PackedCollator()([row | {"seq_lengths": [3, 3]}])


def test_masks_are_of_the_boundaries() -> None:
    features = as_dicts(make_store(4))
    boundaries = PackedCollator()(features)["cu_seq_lens_q"]
    dense = PackedCollator(mask="dense", sliding_window=3)(features)["attention_mask"]
    assert (dense == dense_mask(boundaries, sliding_window=3)).all()
    additive = PackedCollator(mask="additive")(features)["attention_mask"]
    assert (additive == dense_mask(boundaries, dtype=torch.float32)).all()
    flex = PackedCollator(mask="flex")(features)["attention_mask"]
    assert flex.to_dense().tolist() == block_mask(boundaries).to_dense().tolist()
    windows = {"full_attention": None, "sliding_attention": 2}
    mixed = PackedCollator(mask="dense", sliding_window=windows)(features)["attention_mask"]
    assert {kind: mask.sum() for kind, mask in mixed.items()} == {
        kind: dense_mask(boundaries, sliding_window=window).sum()
        for kind, window in windows.items()
    }


def test_masks_come_out_of_worker_processes() -> None:
    store = make_store(8)
    for mask in ("dense", "flex"):
        collate = PackedCollator(mask=mask)
        loader = DataLoader(PackedDataset(store), batch_size=4, collate_fn=collate, num_workers=1)
        batch = next(iter(loader))
        expected = collate(PackedDataset(store).__getitems__(range(4)))
        ours, theirs = batch["attention_mask"], expected["attention_mask"]
        if mask == "flex":
            ours, theirs = ours.to_dense(), theirs.to_dense()
        assert (ours == theirs).all()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "at least one span"),
        ([{"input_ids": [], "labels": []}], "non-empty sequences"),
        ([{"input_ids": [1, 2], "labels": [1]}], "labels as long as input_ids"),
        ([{"input_ids": [1.5, 2], "labels": [1, 2]}], "needs integers, got input_ids of float64"),
        ([{"input_ids": [1, 2], "labels": [1, np.nan]}], "needs integers, got labels of float64"),
        (
            [{"input_ids": [1, 2], "labels": [1, 2], "weight": np.nan}],
            r"weights must be finite and at least 0, got weights\[0\] = nan",
        ),
    ],
    ids=["none", "empty", "lengths", "float-ids", "nan-label", "nan-weight"],
)
def test_batches_refused(features: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PackedCollator()(features)


def test_an_empty_span_of_a_flat_store_is_refused() -> None:
    store = FlatTokens.from_rows([{"input_ids": ids, "labels": ids} for ids in ([1, 2], [])])
    with pytest.raises(ValueError, match="2 tokens need non-empty sequences"):
        PackedCollator()(PackedDataset(store).__getitems__([0, 1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_norm": "mean"}, "loss_norm must be token or sample, got 'mean'"),
        ({"mask": "sparse"}, "mask must be dense, additive, flex or None"),
        ({"fixed_shape": (0, 4)}, "num_tokens of fixed_shape must be a whole number of at least 1"),
        ({"fixed_shape": (8, 4.0)}, "num_seqs of fixed_shape must be a whole number"),
        ({"fixed_shape": (8,)}, r"fixed_shape must be \(num_tokens, num_seqs\), got \(8,\)"),
    ],
)
def test_options_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PackedCollator(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_pinned_memory_needs_cuda() -> None:
    with pytest.raises(RuntimeError, match="pin_memory needs CUDA"):
        PackedCollator(pin_memory=True)


@pytest.mark.gpu
@pytest.mark.parametrize("fixed_shape", [None, (64, 12)], ids=str)
def test_pinned_memory(fixed_shape: Any) -> None:
    features = PackedDataset(make_store(5)).__getitems__(range(5))
    batch = PackedCollator(pin_memory=True, fixed_shape=fixed_shape)(features)
    tensors = [batch[key] for key in KEYS if isinstance(batch[key], torch.Tensor)]
    assert all(tensor.is_pinned() for tensor in tensors)
    assert plain(batch) == plain(PackedCollator(fixed_shape=fixed_shape)(features))
    assert IGNORE_INDEX in batch["labels"]
