"""A stream packed window by window: every example once, on every number of ranks, killed or not."""

from __future__ import annotations

import copy
import io
from collections import Counter
from collections.abc import Iterator
from typing import Any

import datasets
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from codeact.errors import InputError
from codeact.packing import PackedCollator, PackedStream, sync_efficiency

CAPACITY = 24


def make_rows(seqlens: list[int]) -> list[dict[str, Any]]:
    """Tokens tell the example: 100 k, 100 k + 1, ..."""
    return [
        {"input_ids": [100 * k + t for t in range(n)], "labels": [100 * k + t for t in range(n)]}
        for k, n in enumerate(seqlens, start=1)
    ]


class Stateful:
    """A source that knows its place and says how often it was read from the start."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows, self.place, self.num_read = rows, 0, 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while self.place < len(self.rows):
            self.place += 1  # before the yield: what was handed out is behind
            self.num_read += 1
            yield self.rows[self.place - 1]
        self.place = 0

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]


def examples(bins: list[Any]) -> Counter[tuple[int, ...]]:
    """Examples in bins, fillers left out: those are one token without a label."""
    rows = [feature for bin_ in bins for feature in bin_ if feature["labels"].max() >= 0]
    assert all(row["input_ids"].dtype == row["labels"].dtype == np.int32 for row in rows)
    return Counter(tuple(row["input_ids"].tolist()) for row in rows)


def expected(rows: list[dict[str, Any]]) -> Counter[tuple[int, ...]]:
    return Counter(tuple(row["input_ids"]) for row in rows if row["input_ids"])


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """As a checkpoint keeps it: no arbitrary objects."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


SEQLENS = st.lists(st.integers(0, CAPACITY), max_size=40)


@settings(deadline=None, max_examples=60)
@given(SEQLENS, st.integers(1, 12), st.integers(1, 4), st.integers(0, 3))
def test_every_example_once_and_equal_ranks(
    seqlens: list[int], window: int, world_size: int, seed: int
) -> None:
    rows = make_rows(seqlens)
    ranks = [
        PackedStream(rows, CAPACITY, window=window, world_size=world_size, rank=rank, seed=seed)
        for rank in range(world_size)
    ]
    for epoch in range(2):
        bins = [list(stream) for stream in ranks]
        assert len({len(of_rank) for of_rank in bins}) == 1, epoch
        everything = [bin_ for of_rank in bins for bin_ in of_rank]
        assert examples(everything) == expected(rows)
        assert all(sum(len(f["input_ids"]) for f in bin_) <= CAPACITY for bin_ in everything)
        assert all(everything)  # no empty bin
    assert ranks[0].num_empty == seqlens.count(0)


@settings(deadline=None, max_examples=60)
@given(SEQLENS, st.integers(1, 12), st.data())
@pytest.mark.parametrize("source", [lambda rows: rows, Stateful, lambda rows: lambda: iter(rows)])
def test_resumed_with_any_number_of_ranks(
    source: Any, seqlens: list[int], window: int, data: st.DataObject
) -> None:
    rows = make_rows(seqlens)
    done: list[Any] = []
    state: dict[str, Any] | None = None
    # Three runs; the first two are killed after some steps, the last goes on to the end.
    for run in range(3):
        world_size = data.draw(st.integers(1, 4), label="world_size")
        ranks = [
            PackedStream(source(rows), CAPACITY, window=window, world_size=world_size, rank=rank)
            for rank in range(world_size)
        ]
        for stream in ranks:
            if state is not None:
                stream.load_state_dict(copy.deepcopy(state))
        num_steps = data.draw(st.integers(0, 5), label="num_steps") if run < 2 else 1000
        passes = [iter(stream) for stream in ranks]
        for _ in range(num_steps):
            step = [next(iterator, None) for iterator in passes]
            if step[0] is None:
                assert step == [None] * world_size
                break
            done += step
        else:
            # Any rank's state will do: they are one and the same.
            states = [through_a_file(stream.state_dict()) for stream in ranks]
            state = states[data.draw(st.integers(0, world_size - 1), label="rank")]
            continue
        break
    assert examples(done) == expected(rows)


def test_a_state_goes_on_exactly() -> None:
    rows = make_rows([(7 * k) % CAPACITY + 1 for k in range(60)])
    whole = [plain(bin_) for bin_ in PackedStream(rows, CAPACITY, window=10, seed=3)]
    for num_done in (0, 1, 7, len(whole)):
        stream = PackedStream(rows, CAPACITY, window=10, seed=3)
        iterator = iter(stream)
        for _ in range(num_done):
            next(iterator)
        resumed = PackedStream(rows, CAPACITY, window=10, seed=3)
        resumed.load_state_dict(through_a_file(stream.state_dict()))
        assert through_a_file(resumed.state_dict())["epoch"] == 0
        assert [plain(bin_) for bin_ in resumed] == whole[num_done:]
        # The next pass is the whole next epoch.
        second = [plain(bin_) for bin_ in resumed]
        assert sorted(map(str, flatten(second))) == sorted(map(str, flatten(whole)))
        assert second != whole


def plain(bin_: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: np.asarray(value).tolist() for key, value in f.items()} for f in bin_]


def flatten(bins: list[list[Any]]) -> list[Any]:
    return [feature for bin_ in bins for feature in bin_]


def test_a_stateful_source_is_not_read_again() -> None:
    rows = make_rows([9] * 100)
    stream = PackedStream(Stateful(rows), CAPACITY, window=10)
    iterator = iter(stream)
    for _ in range(12):
        next(iterator)
    source = Stateful(rows)
    resumed = PackedStream(source, CAPACITY, window=10)
    resumed.load_state_dict(stream.state_dict())
    assert len(list(resumed)) == 50 - 12
    assert source.num_read <= 100 - 20


def test_epochs_are_set_or_go_on() -> None:
    rows = make_rows([5, 9, 14, 2, 8, 11, 3, 6] * 4)

    class Source(list[Any]):
        epochs: list[int] = []  # noqa: RUF012

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)

    stream = PackedStream(Source(rows), CAPACITY, window=8)
    first = [plain(bin_) for bin_ in stream]
    second = [plain(bin_) for bin_ in stream]
    assert first != second
    stream.set_epoch(0)
    stream.set_epoch(0)
    assert [plain(bin_) for bin_ in stream] == first
    next(iter(stream))  # begun: the pass after it is of the next epoch
    iterator = iter(stream)
    next(iterator)
    stream.set_epoch(2)  # the epoch under way: nothing to do
    next(iterator)
    assert stream.state_dict()["epoch"] == 2
    list(iterator)
    next(iter(stream))
    assert Source.epochs == [0, 1, 0, 1, 2, 3]


def test_a_loaded_place_survives_the_same_epoch_only() -> None:
    rows = make_rows([9] * 40)
    stream = PackedStream(rows, CAPACITY, window=8)
    next(iter(stream))
    state = stream.state_dict()
    resumed = PackedStream(rows, CAPACITY, window=8)
    resumed.load_state_dict(state)
    resumed.set_epoch(0)
    assert len(list(resumed)) == 19
    resumed.load_state_dict(state)
    resumed.set_epoch(1)
    assert len(list(resumed)) == 20


def test_bins_are_nearly_full_and_little_is_in_flight() -> None:
    rng = np.random.default_rng(0)
    seqlens = np.clip(rng.lognormal(np.log(450), 0.8, 4000), 16, 4096).astype(int)

    def source() -> Iterator[dict[str, Any]]:
        for n in seqlens:
            yield {"input_ids": np.ones(n, dtype=np.int64), "labels": np.ones(n, dtype=np.int64)}

    stream = PackedStream(source, 4096, window=500, world_size=4, rank=1)
    num_bins, most_in_flight = 0, 0
    for bin_ in stream:
        num_bins += 4
        assert bin_
        if num_bins % 100 == 0:
            most_in_flight = max(most_in_flight, len(stream.state_dict()["window"]["seqlens"]))
    assert seqlens.sum() / (num_bins * 4096) > 0.99
    assert 0 < most_in_flight <= 2 * 500


def test_overflow() -> None:
    rows = make_rows([5, CAPACITY + 1, 7])
    with pytest.raises(InputError, match="example 1 of 25 tokens does not fit a bin of 24"):
        list(PackedStream(rows, CAPACITY))
    stream = PackedStream(rows, CAPACITY, overflow="drop")
    assert examples(list(stream)) == expected([rows[0], rows[2]])
    assert (stream.num_dropped, stream.num_cut) == (1, 0)
    stream = PackedStream(rows, CAPACITY, overflow="truncate")
    cut = {"input_ids": rows[1]["input_ids"][:CAPACITY]}
    assert examples(list(stream)) == expected([rows[0], cut, rows[2]])
    assert (stream.num_dropped, stream.num_cut) == (0, 1)


def test_weights_come_along() -> None:
    rows = [row | {"weight": k / 4} for k, row in enumerate(make_rows([5, 6, 7, 8]))]
    stream = PackedStream(rows, CAPACITY, world_size=2, rank=0)
    next(iter(stream))
    rest = PackedStream(rows, CAPACITY, world_size=1)
    rest.load_state_dict(through_a_file(stream.state_dict()))
    batches = [PackedCollator()(bin_) for bin_ in [*PackedStream(rows, CAPACITY), *rest]]
    weights = {
        int(ids[0, at]) // 100: float(batch["loss_weights"][0, at + 1])
        for batch in batches
        for ids in [batch["input_ids"]]
        for at in batch["cu_seq_lens_q"][:-1].tolist()
    }
    assert weights == {1: 0.0, 2: 0.25, 3: 0.5, 4: 0.75}


def collate(bin_: list[Any]) -> dict[str, Any]:
    return PackedCollator()(bin_)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_stateful_data_loader(num_workers: int) -> None:
    rows = make_rows([(5 * k) % CAPACITY + 1 for k in range(50)])

    def loader() -> StatefulDataLoader[Any]:
        stream = PackedStream(rows, CAPACITY, window=12)
        return StatefulDataLoader(
            stream, batch_size=None, collate_fn=collate, num_workers=num_workers
        )

    def rest_of(made: StatefulDataLoader[Any]) -> list[Any]:
        return [batch["input_ids"].tolist() for batch in made]

    whole, second = [
        [collate(bin_)["input_ids"].tolist() for bin_ in stream]
        for stream in [PackedStream(rows, CAPACITY, window=12)] * 2
    ]
    killed = loader()
    iterator = iter(killed)
    begun = [next(iterator)["input_ids"].tolist() for _ in range(5)]
    state = through_a_file(killed.state_dict())
    resumed = loader()
    resumed.load_state_dict(state)
    assert begun + rest_of(resumed) == whole
    if num_workers:  # which works on a copy of the dataset: the epoch must be set
        resumed.dataset.set_epoch(1)
    assert rest_of(resumed) == second
    ended = loader()  # resumed between two epochs
    ended.load_state_dict(through_a_file(resumed.state_dict()))
    if num_workers:
        ended.dataset.set_epoch(2)
    third = rest_of(ended)
    assert len(third) == len(whole)
    assert third not in (whole, second)


def test_hugging_face_streaming() -> None:
    rows = make_rows([(5 * k) % CAPACITY + 1 for k in range(50)])
    stored = datasets.Dataset.from_list(rows)

    def stream() -> PackedStream:
        return PackedStream(stored.to_iterable_dataset(num_shards=3), CAPACITY, window=12)

    first = stream()
    iterator = iter(first)
    done = [next(iterator) for _ in range(6)]
    resumed = stream()
    resumed.load_state_dict(through_a_file(first.state_dict()))
    assert examples(done + list(resumed)) == expected(rows)
    assert examples(list(resumed)) == expected(rows)


def test_workers_do_not_repeat_examples() -> None:
    stream = PackedStream(make_rows([5] * 8), CAPACITY)
    loader = DataLoader(stream, batch_size=None, collate_fn=collate, num_workers=2)
    with pytest.raises(RuntimeError, match="one worker process at most, got 2"):
        list(loader)


def test_ranks_of_a_step_get_like_work() -> None:
    rows = make_rows(np.random.default_rng(0).integers(1, 100, 4000).tolist())

    def efficiency(**options: Any) -> float:
        streams = [
            PackedStream(rows, 100, window=1000, world_size=4, rank=rank, **options)
            for rank in range(4)
        ]
        steps = zip(*streams, strict=True)
        costs = [sum(len(row["input_ids"]) ** 2 for row in bin_) for step in steps for bin_ in step]
        return sync_efficiency(costs, 4)

    assert efficiency(cost=lambda seqlens: seqlens**2.0) > 0.98 > 0.85 > efficiency()
