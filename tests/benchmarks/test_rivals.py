"""The rivals written here do what they are described to do; those installed are called right."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rivals import (
    compiled_first_fit,
    first_fit,
    lightbinpack_obfd,
    trl_loop,
    trl_rows,
    trl_windows,
)


def first_fit_in_words(lengths: list[int], capacity: int, seqs_per_bin: int) -> list[int]:
    bins: list[list[int]] = []
    assigned = []
    for length in lengths:
        fitting = (
            number
            for number, held in enumerate(bins)
            if sum(held) + length <= capacity and len(held) < seqs_per_bin
        )
        number = next(fitting, len(bins))
        if number == len(bins):
            bins.append([])
        bins[number].append(length)
        assigned.append(number)
    return assigned


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=60), st.integers(30, 80), st.integers(1, 6))
def test_first_fit_is_its_description(lengths: list[int], capacity: int, most: int) -> None:
    seqlens = np.array(lengths, dtype=np.int32)
    got = first_fit(seqlens, capacity, 1000, most)
    assert got.tolist() == first_fit_in_words(lengths, capacity, most)


def test_groups_share_no_bin() -> None:
    seqlens = np.full(7, 10, dtype=np.int32)
    assert first_fit(seqlens, 100, 3, 200).tolist() == [0, 0, 0, 1, 1, 1, 2]


def test_compiled_first_fit_is_the_same() -> None:
    pytest.importorskip("numba")
    seqlens = np.random.default_rng(0).integers(1, 50, 500).astype(np.int32)
    assert np.array_equal(compiled_first_fit()(seqlens, 90, 200, 4), first_fit(seqlens, 90, 200, 4))


def test_lightbinpack_packs_every_index_once() -> None:
    pytest.importorskip("lightbinpack")
    seqlens = np.random.default_rng(0).integers(1, 50, 300).astype(np.int32)
    bins = lightbinpack_obfd(seqlens, 90)()
    assert sorted(index for held in bins for index in held) == list(range(300))
    assert max(seqlens[held].sum() for held in bins) <= 90


def test_the_loop_of_trl_packs_as_trl_does() -> None:
    trl = pytest.importorskip("trl.data_utils")
    seqlens = np.random.default_rng(0).integers(1, 50, 300).astype(np.int32)
    bins = trl_loop(seqlens, 90)()
    assert sorted(index for held in bins for index in held) == list(range(300))
    tokens = pa.array([list(range(length)) for length in seqlens.tolist()])
    shipped = trl._pack_bfd(pa.table({"input_ids": tokens}), 90)
    ours = sorted(sorted(seqlens[held].tolist()) for held in bins)
    assert ours == sorted(sorted(row) for row in shipped["seq_lengths"].to_pylist())


def test_trl_packs_windows_of_a_thousand() -> None:
    pytest.importorskip("trl")
    seqlens = np.random.default_rng(0).integers(1, 50, 2300).astype(np.int32)
    parts = trl_windows(seqlens, 90)()
    assert len(parts) == 3
    assert sum(part.num_rows for part in parts) >= len(trl_loop(seqlens, 90)())


def test_trl_rows_hold_every_position_once() -> None:
    pytest.importorskip("trl")
    seqlens = np.array([5, 9, 2, 7, 4])
    offsets = np.concatenate([[0], np.cumsum(seqlens)])
    rows = trl_rows(offsets, 10)
    assert sorted(np.concatenate([positions for positions, _ in rows])) == list(range(27))
    assert all(len(positions) == lengths.sum() <= 10 for positions, lengths in rows)
