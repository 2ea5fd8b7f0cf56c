from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeact import _C
from codeact.ops.packing import pack_best_fit
from codeact.ops.windows import (
    MAX_AGE,
    pack_window,
    pack_window_reference,
    pack_windows,
    pack_windows_reference,
)

CAPACITIES = [1, 7, 20, 100, 70_000, 2**31 - 1]


@st.composite
def streams(draw):
    capacity = draw(st.sampled_from(CAPACITIES))
    longest = min(capacity, draw(st.sampled_from([1, 5, 30, 2**31 - 1])))
    lengths = st.integers(0, longest) | st.integers(longest // 2, longest // 2 + 1)
    return draw(st.lists(lengths, max_size=70)), capacity


def code_lengths(num_seqs, seed=0):
    rng = np.random.default_rng(seed)
    return np.clip(rng.lognormal(np.log(450), 0.8, num_seqs), 16, 4096).astype(np.int32)


def loads(seqlens, order, offsets):
    return np.add.reduceat(seqlens[order].astype(np.int64), offsets[:-1])


def lists(result):
    return [part.tolist() if isinstance(part, np.ndarray) else part for part in result]


@settings(max_examples=300, deadline=None)
@given(st.data(), streams(), st.integers(0, 80), st.booleans())
def test_one_window_equals_its_reference(data, stream, max_carry, close_all):
    seqlens, capacity = stream
    ages = data.draw(
        st.lists(st.integers(0, MAX_AGE + 2), min_size=len(seqlens), max_size=len(seqlens))
    )
    options = {"max_carry": max_carry, "close_all": close_all}
    result = pack_window(seqlens, ages, capacity, **options)
    assert [part.dtype for part in result[:2]] == [np.int32, np.int64]
    assert lists(result) == lists(pack_window_reference(seqlens, ages, capacity, **options))


@settings(max_examples=300, deadline=None)
@given(streams(), st.integers(1, 20), st.none() | st.integers(0, 60))
def test_a_stream_equals_its_reference(stream, window, more):
    seqlens, capacity = stream
    tail = None if more is None else window + more
    result = pack_windows(seqlens, capacity, window=window, tail=tail)
    assert [part.dtype for part in result] == [np.int32, np.int64]
    assert sorted(result[0]) == list(range(len(seqlens)))
    want = pack_windows_reference(seqlens, capacity, window=window, tail=tail)
    assert lists(result) == lists(want)


def by_hand(seqlens, capacity, window, stops):
    """The bins of a stream packed window by window, and the age at which each bin closed."""
    pending = ages = np.empty(0, dtype=np.int32)
    bins, late = [], []
    for start, stop in pairwise([0, *stops]):
        pending = np.concatenate([pending, np.arange(start, stop, dtype=np.int32)])
        ages = np.concatenate([ages, np.zeros(stop - start, dtype=np.int32)])
        is_last = stop == len(seqlens)
        order, offsets, num_closed = pack_window(
            seqlens[pending], ages, capacity, max_carry=window, close_all=is_last
        )
        for begin, end in pairwise(offsets[: num_closed + 1]):
            bins.append(pending[order[begin:end]])
            late.append(int(ages[order[begin:end]].max()))
        rest = order[offsets[num_closed] :]
        pending, ages = pending[rest], ages[rest] + 1
    return bins, late


def test_windows_by_hand_make_the_same_bins_and_none_waits_longer_than_allowed():
    seqlens = code_lengths(3000)
    bins, late = by_hand(seqlens, 32_768, 64, [*range(64, 3000, 64), 3000])
    order, offsets = pack_windows(seqlens, 32_768, window=64)
    assert len(offsets) - 1 == len(bins)
    assert sorted(loads(seqlens, order, offsets)) == sorted(seqlens[b].sum() for b in bins)
    assert max(late) <= MAX_AGE
    assert max(late) > 1, "the case carries nothing, so it shows nothing"


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([20, 256, 4096]))
def test_the_number_of_bins_depends_on_the_lengths_in_each_window_only(seed, capacity):
    window, num_seqs = 32, 400
    rng = np.random.default_rng(seed)
    seqlens = rng.integers(1, capacity // 3, num_seqs).astype(np.int32)
    mixed = seqlens.copy()
    for start in range(0, num_seqs, window):
        mixed[start : start + window] = rng.permutation(mixed[start : start + window])
    first, second = (pack_windows(each, capacity, window=window) for each in (seqlens, mixed))
    assert np.array_equal(loads(seqlens, *first), loads(mixed, *second))


@pytest.mark.parametrize(("capacity", "bar"), [(4096, 0.999), (32_768, 0.999)])
def test_windows_of_4096_fill_bins_to_the_bar(capacity, bar):
    seqlens = code_lengths(100_000)
    order, offsets = pack_windows(seqlens, capacity, window=4096)
    assert loads(seqlens, order, offsets).max() <= capacity
    assert seqlens.sum() / ((len(offsets) - 1) * capacity) >= bar


def test_small_windows_carry_what_they_cannot_fill():
    seqlens = code_lengths(20_000)
    alone = sum(
        len(pack_best_fit(seqlens[start : start + 256], 32_768)[1]) - 1
        for start in range(0, len(seqlens), 256)
    )
    carried = len(pack_windows(seqlens, 32_768, window=256)[1]) - 1
    bound = -(-int(seqlens.sum()) // 32_768)
    assert carried <= bound * 1.005
    assert alone > bound * 1.05, "without carrying, the windows lose more than this"


def test_bins_close_near_the_place_of_their_sequences():
    window = 100
    order, _ = pack_windows(code_lengths(5000), 4096, window=window)
    entered = order // window
    place = np.arange(5000) // window
    # What the windows before carried shifts a bin back by at most the sequences they kept.
    assert np.abs(entered - place).max() <= MAX_AGE + 1


@pytest.mark.parametrize(
    ("tail", "stops"),
    [
        (None, [30, 60, 90, 100]),
        (30, [30, 60, 70, 100]),
        (40, [30, 60, 100]),
        (75, [25, 100]),
        (100, [100]),
        (10**6, [100]),
    ],
)
def test_a_tail_is_packed_as_one_window(tail, stops):
    seqlens = code_lengths(100)
    packed = pack_windows(seqlens, 4096, window=30, tail=tail)
    bins, _ = by_hand(seqlens, 4096, 30, stops)
    assert loads(seqlens, *packed).tolist() == [seqlens[members].sum() for members in bins]
    if stops == [100]:
        assert lists(packed) == lists(pack_best_fit(seqlens, 4096))


@pytest.mark.parametrize(
    ("seqlens", "ages", "max_carry", "order", "offsets", "num_closed"),
    [
        pytest.param([], [], 5, [], [0], 0, id="empty"),
        pytest.param([100], [0], 5, [0], [0, 1], 1, id="full-closes"),
        pytest.param([99], [0], 5, [0], [0, 1], 1, id="99-percent-is-full"),
        pytest.param([98], [0], 5, [0], [0, 1], 0, id="98-percent-is-carried"),
        pytest.param([98], [7], 5, [0], [0, 1], 0, id="age-7-is-carried-once-more"),
        pytest.param([98], [8], 5, [0], [0, 1], 1, id="age-8-closes"),
        pytest.param([98], [0], 0, [0], [0, 1], 1, id="nothing-may-be-carried"),
        pytest.param([60, 70, 80], [0] * 3, 2, [2, 1, 0], [0, 1, 2, 3], 1, id="least-full-first"),
        pytest.param([60, 60], [0, 3], 5, [1, 0], [0, 1, 2], 0, id="older-first"),
        pytest.param([90, 10], [0, 8], 5, [1, 0], [0, 2], 1, id="due-is-filled-up"),
        pytest.param([95, 5, 9], [0, 8, 8], 5, [2, 1, 0], [0, 2, 3], 1, id="due-before-longer"),
        pytest.param([40, 50], [0, 0], 1, [1, 0], [0, 2], 1, id="no-room-to-carry-the-bin"),
    ],
)
def test_window_edges(seqlens, ages, max_carry, order, offsets, num_closed):
    result = pack_window(seqlens, ages, 100, max_carry=max_carry)
    assert lists(result) == [order, offsets, num_closed]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pack_window([1], [0, 0], 7, max_carry=1), "ages must be as many as seqlens"),
        (lambda: pack_window([1], [-1], 7, max_carry=1), r"ages\[0\] = -1 is negative"),
        (lambda: pack_window([1], [0.5], 7, max_carry=1), "ages must be integers, got float64"),
        (lambda: pack_window([9], [0], 7, max_carry=1), r"seqlens\[0\] = 9 does not fit"),
        (lambda: pack_window([1], [0], 7, max_carry=-1), "max_carry must be an integer from 0"),
        (lambda: pack_windows([1, 9], 7, window=1), r"seqlens\[1\] = 9 does not fit"),
        (lambda: pack_windows([1, -9], 7, window=1), r"seqlens\[1\] = -9 is negative"),
        (lambda: pack_windows([1], 7, window=0), "window must be an integer from 1"),
        (lambda: pack_windows([1], 7, window=True), "window must be an integer"),
        (lambda: pack_windows([1], 7, window=4, tail=3), "tail must be an integer from 4"),
        (lambda: pack_windows([1], 0, window=4), "capacity must be an integer from 1"),
        (lambda: pack_windows([[1]], 7, window=4), "seqlens must be 1-D, got 2-D"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_native_border_checks_for_itself():
    one = np.ones(1, np.int32)
    with pytest.raises(ValueError, match="tail must be at least window = 4, got 3"):
        _C.pack_windows(one, 7, 4, 3)
    with pytest.raises(ValueError, match="max_carry must be from 0"):
        _C.pack_window(one, one, 7, -1, False)


def test_threads_pack_beside_each_other_and_agree():
    seqlens = code_lengths(50_000)
    results = [None] * 4

    def work(slot):
        results[slot] = lists(pack_windows(seqlens, 4096, window=1000))

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result == results[0] for result in results)
