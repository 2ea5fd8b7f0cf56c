from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codeact.ops.device_tokens import DeviceTokens
from codeact.ops.varlen import IGNORE_INDEX, pack_sequences

BACKENDS = ["reference", pytest.param("cuda", marks=pytest.mark.gpu)]
# The edges of a warp and of a block, and sequences of several blocks.
SEQLENS = [1, 2, 31, 32, 33, 1023, 1024, 1025, 2048, 2049, 5000, 0, 7]


def make_store(seqlens, *, share_scored=0.6, seed=0, dtype=np.int32):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(seqlens)]).astype(np.int64)
    input_ids = rng.integers(0, 30_000, offsets[-1]).astype(dtype)
    labels = np.where(rng.random(offsets[-1]) < share_scored, input_ids, IGNORE_INDEX)
    return SimpleNamespace(input_ids=input_ids, labels=labels.astype(dtype), offsets=offsets)


def by_rows(store, sequences):
    """The same batch from rows, the way a collator makes it."""
    bounds = [(store.offsets[k], store.offsets[k + 1]) for k in sequences]
    return pack_sequences(
        [store.input_ids[a:b] for a, b in bounds], [store.labels[a:b] for a, b in bounds]
    )


def assert_same(batch, want):
    for name in ("input_ids", "position_ids", "cu_seqlens", "rows", "targets"):
        got, expected = getattr(batch, name), getattr(want, name)
        assert got.dtype == expected.dtype, name
        assert torch.equal(got.cpu(), expected), name
    assert batch.max_seqlen == want.max_seqlen
    assert batch.cu_rows.tolist() == want.cu_rows.tolist()
    assert torch.equal(batch.labels.cpu(), want.labels)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("share_scored", [0.0, 0.03, 0.6, 1.0])
def test_gathers_what_packing_the_rows_gives(backend, share_scored, device):
    store = make_store(SEQLENS, share_scored=share_scored)
    tokens = DeviceTokens(store, device=device)
    for sequences in ([0], [10], [5, 0, 9, 9, 1], [k for k, n in enumerate(SEQLENS) if n]):
        batch = tokens.gather(sequences, backend=backend)
        assert batch.input_ids.device.type == device.type
        assert_same(batch, by_rows(store, sequences))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any), st.data(), st.floats(0, 1))
def test_any_store_and_any_choice(seqlens, data, share_scored):
    store = make_store(seqlens, share_scored=share_scored)
    filled = [k for k, seqlen in enumerate(seqlens) if seqlen]
    sequences = data.draw(st.lists(st.sampled_from(filled), min_size=1, max_size=20))
    tokens = DeviceTokens(store, device="cpu")
    assert len(tokens) == len(seqlens)
    assert_same(tokens.gather(np.array(sequences)), by_rows(store, sequences))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_label_never_counts(backend, device):
    store = make_store([4, 3], share_scored=1.0)
    batch = DeviceTokens(store, device=device).gather([1, 0], backend=backend)
    assert batch.rows.tolist() == [0, 1, 3, 4, 5]
    assert batch.targets.tolist() == store.labels[[5, 6, 1, 2, 3]].tolist()


def test_the_store_is_kept_small_and_counted_once():
    store = make_store([3, 0, 2], share_scored=1.0, dtype=np.int64)
    tokens = DeviceTokens(store, device="cpu")
    assert tokens.input_ids.dtype == tokens.labels.dtype == torch.int32
    assert tokens.num_scored.tolist() == [2, 0, 1]


def test_tokens_outside_the_offsets_do_not_count():
    store = make_store([3, 2, 4], share_scored=1.0)
    inner = SimpleNamespace(
        input_ids=store.input_ids, labels=store.labels, offsets=store.offsets[1:3]
    )
    tokens = DeviceTokens(inner, device="cpu")
    assert tokens.num_scored.tolist() == [1]
    assert_same(tokens.gather([0]), by_rows(store, [1]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_spans_are_parts_of_the_arrays_in_any_order(backend, device):
    store = make_store(SEQLENS, share_scored=0.5)
    total = int(store.offsets[-1])
    starts = np.array([5, total - 1, 0, 40, 0, total, 3])
    stops = np.array([2000, total, 5, 40, total, total, 4])
    tokens = DeviceTokens(store, device=device, spans=(starts, stops))
    assert len(tokens) == 7
    want = [
        np.count_nonzero(store.labels[a + 1 : b] != IGNORE_INDEX)
        for a, b in zip(starts, stops, strict=True)
    ]
    assert tokens.num_scored.tolist() == want
    chosen = [6, 0, 4, 1, 2, 0]
    parts = [slice(starts[k], stops[k]) for k in chosen]
    rows = [[column[part] for part in parts] for column in (store.input_ids, store.labels)]
    assert_same(tokens.gather(chosen, backend=backend), pack_sequences(*rows))


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        (([0, 2], [1]), r"two rows of one length, got shapes \(2,\) and \(1,\)"),
        (([0, 2], [1, 6]), r"span 1 = \[2, 6\) does not lie in 5 tokens"),
        (([0, 3], [1, 2]), r"span 1 = \[3, 2\) does not lie in 5 tokens"),
        (([-1], [2]), r"span 0 = \[-1, 2\) does not lie in 5 tokens"),
    ],
)
def test_bad_spans_are_named(spans, message):
    with pytest.raises(ValueError, match=message):
        DeviceTokens(make_store([3, 2]), device="cpu", spans=spans)


def test_a_read_only_file_is_copied(tmp_path):
    store = make_store([3, 2])
    np.save(tmp_path / "ids.npy", store.input_ids)
    store.input_ids = np.load(tmp_path / "ids.npy", mmap_mode="r")
    tokens = DeviceTokens(store, device="cpu")
    tokens.input_ids[0] = -5
    assert store.input_ids[0] != -5


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "sequences must be a non-empty row of integers"),
        ([0.0], "row of integers, got float64"),
        ([[0]], r"row of integers, got int64 of shape \(1, 1\)"),
        ([3], r"sequences must lie in \[0, 3\), got 3 to 3"),
        ([0, -1], r"sequences must lie in \[0, 3\), got -1 to 0"),
        ([0, 1], "sequence 1 has no token"),
    ],
)
def test_bad_choices_are_named(sequences, message):
    tokens = DeviceTokens(make_store([3, 0, 2]), device="cpu")
    with pytest.raises(ValueError, match=message):
        tokens.gather(sequences)


def test_a_batch_beyond_int32_is_refused_before_it_is_made():
    tokens = DeviceTokens(make_store([2**16]), device="cpu")
    with pytest.raises(ValueError, match="hold 2147483648 tokens, more than 2147483647"):
        tokens.gather(np.zeros(2**15, dtype=np.int64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(4, np.int32)}, r"labels must be as long as input_ids \(5 tokens\)"),
        ({"input_ids": np.full(5, 2**31)}, "input_ids must fit int32, got values from 2147483648"),
        ({"labels": np.zeros(5)}, "labels must be a row of integers, got float64"),
        ({"offsets": [0, 4, 3]}, r"offsets must rise within \[0, 5\]"),
        ({"offsets": [0, 6]}, r"offsets must rise within \[0, 5\]"),
        ({"offsets": [-1, 5]}, r"offsets must rise within \[0, 5\]"),
        ({"offsets": []}, "name at least one place"),
    ],
)
def test_bad_stores_are_named(change, message):
    store = make_store([3, 2])
    vars(store).update(change)
    with pytest.raises(ValueError, match=message):
        DeviceTokens(store, device="cpu")


def test_another_backend_is_never_taken_silently():
    tokens = DeviceTokens(make_store([3]), device="cpu")
    with pytest.raises(RuntimeError, match="backend 'cuda' needs"):
        tokens.gather([0], backend="cuda")
    with pytest.raises(ValueError, match="backend must be one of auto, reference, cuda"):
        tokens.gather([0], backend="triton")


@pytest.mark.gpu
def test_nothing_waits_for_the_device():
    tokens = DeviceTokens(make_store(SEQLENS), device="cuda")
    tokens.gather([0, 3])  # the first call loads the module
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = tokens.gather([3, 9, 0])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_same(batch, tokens.gather([3, 9, 0], backend="reference").to("cpu"))


@pytest.mark.gpu
def test_many_batches_on_another_stream():
    """A pinned buffer that was reused too early would give one batch the layout of the next."""
    store = make_store(SEQLENS)
    tokens = DeviceTokens(store, device="cuda")
    rng = np.random.default_rng(1)
    filled = np.flatnonzero(np.array(SEQLENS))
    choices = [rng.choice(filled, 20) for _ in range(50)]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        batches = [tokens.gather(sequences) for sequences in choices]
    stream.synchronize()
    for batch, sequences in zip(batches, choices, strict=True):
        assert_same(batch, by_rows(store, sequences))


@pytest.mark.gpu
def test_labels_changed_later_write_nothing_past_the_rows():
    store = make_store([1500, 40], share_scored=0.5)
    tokens = DeviceTokens(store, device="cuda")
    tokens.labels.fill_(1)
    batch = tokens.gather([0, 1], backend="cuda")
    num_first = int(tokens.num_scored[0])
    assert batch.rows[:num_first].tolist() == list(range(num_first))
    assert batch.rows[num_first:].tolist() == [1500 + k for k in range(int(tokens.num_scored[1]))]
