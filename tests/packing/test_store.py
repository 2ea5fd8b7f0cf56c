"""Flat token stores: files, Arrow tables and rows hold the same examples, uncopied."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import datasets
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from codeact.errors import InputError
from codeact.packing import FlatStore, FlatTokens
from codeact.packing.scored import count_scored

IDS = [[5, 6, 7], [8], [], [9, 10, 11, 12]]
LABELS = [[-100, 6, 7], [8], [], [-100, -100, -100, 12]]


def table(kind: Any = None, *, large: bool = False) -> pa.Table:
    lists = (pa.large_list if large else pa.list_)(kind or pa.int64())
    return pa.table({"input_ids": pa.array(IDS, lists), "labels": pa.array(LABELS, lists)})


def rows_of(store: FlatTokens) -> list[tuple[list[int], list[int]]]:
    return [(row.input_ids.tolist(), row.labels.tolist()) for row in store]


EXPECTED = list(zip(IDS, LABELS, strict=True))


def test_rows_and_counts() -> None:
    store = FlatTokens.from_rows({"input_ids": i, "labels": t} for i, t in EXPECTED)
    assert isinstance(store, FlatStore)
    assert rows_of(store) == EXPECTED
    assert rows_of(store)[-1] == (store[-1].input_ids.tolist(), store[3].labels.tolist())
    assert store.input_ids.dtype == np.int32
    assert store.seqlens.tolist() == [3, 1, 0, 4]
    # The first token of an example has nothing before it: label 8 carries no loss.
    assert store.num_scored.tolist() == [2, 0, 0, 1]
    assert store.prompt_seqlens.tolist() == [1, 1, 0, 3]
    for index in (4, -5):
        with pytest.raises(IndexError, match="out of range for 4 examples"):
            store[index]


@given(st.lists(st.lists(st.booleans(), max_size=9), max_size=12), st.integers(1, 20))
def test_counts_do_not_depend_on_the_pieces(scored: list[list[bool]], piece: int) -> None:
    labels = np.array([1 if s else -100 for row in scored for s in row], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, scored)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codeact.packing.scored._PIECE", piece)
        store = FlatTokens(labels, labels, offsets)
        assert store.num_scored.tolist() == [sum(row[1:]) for row in scored]
        firsts = [next((k for k, s in enumerate(r) if k and s), len(r)) for r in scored]
        assert store.prompt_seqlens.tolist() == firsts
        # Spans may leave gaps.
        inner = [max(0, len(row) - 1) for row in scored]
        counts = count_scored(labels, offsets[:-1], offsets[:-1] + inner)
        assert counts.tolist() == [sum(row[1:-1]) for row in scored]


def test_files_are_mapped_and_shared_with_workers(tmp_path: Path) -> None:
    FlatTokens.from_rows({"input_ids": i, "labels": t} for i, t in EXPECTED).save(tmp_path / "a")
    store = FlatTokens.open(tmp_path / "a")
    assert rows_of(store) == EXPECTED
    assert isinstance(store.input_ids.base, np.memmap)
    pickled = pickle.dumps(store)
    assert len(pickled) < 300  # the folder's name, not the tokens
    assert rows_of(pickle.loads(pickled)) == EXPECTED
    in_memory = FlatTokens(np.array(store.input_ids), np.array(store.labels), store.offsets)
    assert rows_of(pickle.loads(pickle.dumps(in_memory))) == EXPECTED


def test_saving_is_whole_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FlatTokens.from_rows({"input_ids": i, "labels": t} for i, t in EXPECTED)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="must not exist yet, or be empty"):
        store.save(tmp_path / "full")
    monkeypatch.setattr(store, "offsets", [object()])  # which np.save refuses
    with pytest.raises(ValueError, match="Object arrays"):
        store.save(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    with pytest.raises(InputError, match="cannot be opened"):
        FlatTokens.open(tmp_path / "full")


@pytest.mark.parametrize("large", [False, True], ids=["list", "large_list"])
@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.int16()], ids=str)
def test_arrow_is_not_copied(kind: Any, large: bool) -> None:
    columns = table(kind, large=large)
    store = FlatTokens.from_arrow(columns)
    assert rows_of(store) == EXPECTED
    values = columns["input_ids"].chunk(0).values.to_numpy()
    assert store.input_ids.ctypes.data == values.ctypes.data
    part = FlatTokens.from_arrow(columns.slice(1, 3))
    assert rows_of(part) == EXPECTED[1:]
    assert part.input_ids.ctypes.data == values[3:].ctypes.data


def test_chunks_are_joined() -> None:
    chunked = pa.concat_tables([table(), table().slice(2)])
    assert rows_of(FlatTokens.from_arrow(chunked)) == EXPECTED + EXPECTED[2:]
    assert rows_of(FlatTokens.from_arrow(table().schema.empty_table())) == []


def test_columns_are_named() -> None:
    renamed = table().rename_columns(["ids", "targets"])
    store = FlatTokens.from_arrow(renamed, input_ids="ids", labels="targets")
    assert rows_of(store) == EXPECTED
    unlabelled = FlatTokens.from_arrow(renamed, input_ids="ids", labels=None)
    assert rows_of(unlabelled) == [(ids, ids) for ids in IDS]


def test_hugging_face_datasets(tmp_path: Path) -> None:
    datasets.disable_progress_bars()
    datasets.Dataset(table(pa.int32())).save_to_disk(tmp_path)
    on_disk = datasets.load_from_disk(tmp_path)
    store = FlatTokens.from_arrow(on_disk)
    assert rows_of(store) == EXPECTED
    values = on_disk.data["input_ids"].chunk(0).values.to_numpy()
    assert store.input_ids.ctypes.data == values.ctypes.data
    assert rows_of(FlatTokens.from_arrow(on_disk.select([3, 0]))) == [EXPECTED[3], EXPECTED[0]]
    assert rows_of(FlatTokens.from_arrow(on_disk.with_format("torch"))) == EXPECTED


NULL_LIST = pa.table({"input_ids": [[1], None], "labels": [[1], [2]]})
NULL_TOKEN = pa.table({"input_ids": [[1, None]], "labels": [[1, 2]]})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (pa.table({"input_ids": IDS}), "no column 'labels', it has input_ids"),
        (pa.table({"input_ids": ["a"], "labels": [[1]]}), "must hold lists of integers, got str"),
        (pa.table({"input_ids": [[0.5]], "labels": [[1]]}), "lists of integers, got list<.*double"),
        (pa.table({"input_ids": [[1], [2]], "labels": [[1], [2, 3]]}), "row 1 of 'labels' is not"),
        (NULL_LIST, "'input_ids' must have no nulls"),
        (NULL_TOKEN, "'input_ids' must have no nulls"),
    ],
    ids=["missing", "text", "float", "lengths", "null-list", "null-token"],
)
def test_arrow_refused(columns: pa.Table, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FlatTokens.from_arrow(columns)


@pytest.mark.parametrize(
    ("ids", "labels", "offsets", "message"),
    [
        (np.zeros((2, 2), int), np.zeros(4, int), [0, 4], "input_ids must be a row of int16, "),
        (np.zeros(4, int), np.zeros(4), [0, 4], "labels .* got float64"),
        (np.zeros(4, np.uint8), np.zeros(4, int), [0, 4], "input_ids .* got uint8"),
        (np.zeros(4, ">i4"), np.zeros(4, int), [0, 4], "input_ids .* got >i4"),
        (np.zeros(4, int), np.zeros(3, int), [0, 4], "as long as input_ids"),
        (np.zeros(4, int), np.zeros(4, int), [0, 3, 2], "offsets must rise"),
        (np.zeros(4, int), np.zeros(4, int), [0, 5], "offsets must rise"),
        (np.zeros(4, int), np.zeros(4, int), [-1, 4], "offsets must rise"),
        (np.zeros(4, int), np.zeros(4, int), [], "offsets must rise"),
    ],
    ids=[
        "2-D",
        "float",
        "uint8",
        "big-endian",
        "lengths",
        "fall",
        "beyond",
        "negative",
        "none",
    ],
)
def test_refused(ids: Any, labels: Any, offsets: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FlatTokens(ids, labels, offsets)


def test_rows_refused() -> None:
    for ids, message in (
        ([2.5], "input_ids of row 0 must be a row of integers, got float64"),
        (np.array([2**32]), "input_ids of row 0 must fit int32, got values from 4294967296"),
    ):
        with pytest.raises(InputError, match=message):
            FlatTokens.from_rows([{"input_ids": ids, "labels": [1]}])
    with pytest.raises(InputError, match="row 1 needs labels as long as input_ids"):
        FlatTokens.from_rows([{"input_ids": [1], "labels": [1]}, {"input_ids": [1], "labels": []}])
