"""Bins are views; splitting cuts the costliest between two sequences and keeps their order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeact.packing.bins import Bins, add_fillers, split_bins


def make_bins(contents: list[list[int]]) -> Bins:
    """Bins of lengths: span k is the k-th length in all."""
    lengths = np.array([length for bin_ in contents for length in bin_], dtype=np.int32)
    stops = np.cumsum([len(bin_) for bin_ in contents], dtype=np.int64)
    starts = stops - [len(bin_) for bin_ in contents]
    return Bins(np.arange(len(lengths), dtype=np.int32), starts, stops, lengths)


def lengths_of(bins: Bins) -> list[list[int]]:
    return [bins.seqlens[spans].tolist() for spans in bins]


def tokens(lengths: np.ndarray) -> np.ndarray:
    return lengths


def test_views() -> None:
    bins = make_bins([[3, 1], [5], [2, 2, 2]])
    assert [spans.tolist() for spans in bins] == [[0, 1], [2], [3, 4, 5]]
    assert bins[2].tolist() == bins[-1].tolist() == [3, 4, 5]
    assert np.shares_memory(bins[1], bins.order)
    assert [spans.tolist() for spans in bins[::2]] == [[0, 1], [3, 4, 5]]
    assert bins.num_spans.tolist() == [2, 1, 3]
    with pytest.raises(IndexError):
        bins[3]


@pytest.mark.parametrize("chosen", [[0, 1, 2, 3], [3, 1, 0, 2], [2], [], [0, 1, 3]], ids=str)
def test_totals_of_any_choice(chosen: list[int]) -> None:
    contents = [[3, 1], [5], [2, 2, 2], [7, 1, 1, 1, 1]]
    bins = make_bins(contents).take(np.array(chosen, dtype=np.int64))
    assert bins.num_tokens.tolist() == [sum(contents[k]) for k in chosen]
    squares = bins.costs(lambda lengths: lengths.astype(np.int64) ** 2)
    assert squares.tolist() == [sum(n * n for n in contents[k]) for k in chosen]


def test_split_takes_the_costliest_where_halves_are_closest() -> None:
    bins = make_bins([[1, 1], [9, 1, 1, 1], [4, 3, 3, 4]])
    assert lengths_of(split_bins(bins, 4, tokens)) == [[1, 1], [9, 1, 1, 1], [4, 3], [3, 4]]
    assert lengths_of(split_bins(bins, 5, tokens)) == [[1, 1], [9], [1, 1, 1], [4, 3], [3, 4]]
    assert lengths_of(split_bins(make_bins([[4, 6, 3]]), 2, tokens)) == [[4], [6, 3]]
    assert lengths_of(split_bins(make_bins([[3, 6, 4]]), 2, tokens)) == [[3, 6], [4]]
    squares = lambda lengths: lengths.astype(np.int64) ** 2  # noqa: E731
    assert lengths_of(split_bins(bins, 4, squares)) == [[1, 1], [9], [1, 1, 1], [4, 3, 3, 4]]


def test_a_bin_is_split_again_where_it_stays_the_costliest() -> None:
    bins = make_bins([[1, 1], [8, 8, 8, 8]])
    assert lengths_of(split_bins(bins, 5, tokens)) == [[1, 1], [8], [8], [8], [8]]


def test_bins_of_one_sequence_stay() -> None:
    assert lengths_of(split_bins(make_bins([[4], [2, 2]]), 7, tokens)) == [[4], [2], [2]]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=9), min_size=1, max_size=12),
    st.integers(0, 60),
)
def test_split_keeps_sequences_and_order(contents: list[list[int]], num_bins: int) -> None:
    bins = make_bins(contents)
    split = split_bins(bins, num_bins, tokens)
    assert np.concatenate([*split]).tolist() == bins.order.tolist()
    most = len(bins.order)
    assert len(split) == min(max(num_bins, len(bins)), most)
    assert split.num_spans.min() >= 1
    # No bin that could be split is costlier than one that was.
    was_split = {k for k, bin_ in enumerate(lengths_of(bins)) if bin_ not in lengths_of(split)}
    left = [sum(b) for b in lengths_of(split) if len(b) > 1]
    assert all(sum(contents[k]) >= max(left, default=0) for k in was_split)


def test_fillers_come_last() -> None:
    bins = add_fillers(make_bins([[3, 1], [5]]), 3, 2)
    assert [spans.tolist() for spans in bins] == [[0, 1], [2], [3], [3]]
