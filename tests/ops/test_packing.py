from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codeact import _C
from codeact.ops.packing import (
    pack_best_fit,
    pack_best_fit_reference,
    pack_next_fit,
    pack_next_fit_reference,
)

MAX_INT32 = 2**31 - 1


def fills(seqlens, order, offsets):
    """Tokens in each bin, ascending; sums beyond int32 included."""
    tokens = np.asarray(seqlens, dtype=np.int64)[order]
    return sorted(int(tokens[a:b].sum()) for a, b in pairwise(offsets))


@st.composite
def packings(draw):
    capacity = draw(st.sampled_from([1, 2, 7, 64, 1000, 65_600, 2**20, MAX_INT32]))
    longest = min(capacity, draw(st.sampled_from([1, 5, 300, MAX_INT32])))
    lengths = st.integers(0, longest) | st.integers(longest // 2, longest // 2 + 1)
    return draw(st.lists(lengths, max_size=80)), capacity


@settings(max_examples=200, deadline=None)
@given(packings())
def test_next_fit_equals_its_reference(packing):
    seqlens, capacity = packing
    offsets = pack_next_fit(seqlens, capacity)
    assert offsets.dtype == np.int64
    assert offsets.tolist() == pack_next_fit_reference(seqlens, capacity).tolist()
    assert max(fills(seqlens, np.arange(len(seqlens)), offsets), default=0) <= capacity


@pytest.mark.parametrize(
    ("seqlens", "capacity", "offsets"),
    [
        pytest.param([], 7, [0], id="empty"),
        pytest.param([0, 0], 7, [0, 2], id="zeros-share-a-bin"),
        pytest.param([3, 4, 0, 2, 5], 7, [0, 3, 5], id="zero-joins-a-full-bin"),
        pytest.param([7, 1, 7], 7, [0, 1, 2, 3], id="each-alone"),
        pytest.param([2, 6, 2], 7, [0, 1, 2, 3], id="never-looks-back"),
        pytest.param([MAX_INT32] * 3, MAX_INT32, [0, 1, 2, 3], id="total-beyond-int32"),
    ],
)
def test_next_fit_edges(seqlens, capacity, offsets):
    assert pack_next_fit(seqlens, capacity).tolist() == offsets


@settings(max_examples=300, deadline=None)
@given(packings())
def test_places_each_sequence_once_and_fills_bins_as_plain_best_fit_does(packing):
    seqlens, capacity = packing
    order, offsets = pack_best_fit(seqlens, capacity)

    assert (order.dtype, offsets.dtype) == (np.int32, np.int64)
    assert sorted(order) == list(range(len(seqlens)))
    assert offsets[0] == 0
    assert offsets[-1] == len(seqlens)
    assert (np.diff(offsets) > 0).all(), "an empty bin"
    assert max(fills(seqlens, order, offsets), default=0) <= capacity
    reference = pack_best_fit_reference(seqlens, capacity)
    assert fills(seqlens, order, offsets) == fills(seqlens, *reference)


@pytest.mark.parametrize("capacity", [4096, 32_768, 3_000_000])
def test_equals_plain_best_fit_on_lengths_like_real_ones(capacity):
    rng = np.random.default_rng(0)
    seqlens = np.clip(rng.lognormal(np.log(450), 0.8, 20_000), 16, 4096).astype(np.int32)
    packed = fills(seqlens, *pack_best_fit(seqlens, capacity))
    assert packed == fills(seqlens, *pack_best_fit_reference(seqlens, capacity))


@pytest.mark.parametrize(
    ("seqlens", "capacity", "order", "offsets"),
    [
        pytest.param([], 7, [], [0], id="empty"),
        pytest.param([0, 0, 0], 7, [0, 1, 2], [0, 3], id="all-zero-is-one-bin"),
        pytest.param([7], 7, [0], [0, 1], id="exactly-full"),
        pytest.param([3, 4, 2, 5], 7, [1, 0, 3, 2], [0, 2, 4], id="two-full-bins"),
        pytest.param([0, 7, 0], 7, [1, 0, 2], [0, 3], id="zeros-join-a-full-bin"),
        pytest.param([2, 2, 2, 2, 2], 5, [0, 1, 2, 3, 4], [0, 2, 4, 5], id="equal-in-input-order"),
        pytest.param([1, 1], 1, [0, 1], [0, 1, 2], id="capacity-1"),
        pytest.param([MAX_INT32] * 3, MAX_INT32, [0, 1, 2], [0, 1, 2, 3], id="total-beyond-int32"),
    ],
)
def test_edges(seqlens, capacity, order, offsets):
    packed_order, packed_offsets = pack_best_fit(seqlens, capacity)
    assert packed_order.tolist() == order
    assert packed_offsets.tolist() == offsets


def test_a_set_above_the_size_of_huge_pages_is_placed_whole():
    seqlens = np.random.default_rng(5).integers(1, 4097, 700_000).astype(np.int32)
    order, offsets = pack_best_fit(seqlens, 4096)
    assert np.array_equal(np.sort(order), np.arange(len(seqlens)))
    assert np.add.reduceat(seqlens[order], offsets[:-1]).max() <= 4096


def test_the_same_input_gives_the_same_result():
    seqlens = np.random.default_rng(3).integers(0, 4097, 5000)
    first, second = pack_best_fit(seqlens, 4096), pack_best_fit(seqlens, 4096)
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


SEQLENS = [3, 4, 2, 5, 1, 1]


@pytest.mark.parametrize(
    "seqlens",
    [
        tuple(SEQLENS),
        np.array(SEQLENS, dtype=np.uint8),
        np.array(SEQLENS, dtype=np.int64),
        np.array(SEQLENS, dtype=np.uint64),
        np.array(SEQLENS, dtype=">i4"),
        np.repeat(np.array(SEQLENS, dtype=np.int32), 2)[::2],
        torch.tensor(SEQLENS),
        torch.tensor(SEQLENS, dtype=torch.int32),
    ],
    ids=[
        "tuple",
        "uint8",
        "int64",
        "uint64",
        "big-endian",
        "strided",
        "torch-int64",
        "torch-int32",
    ],
)
def test_any_integers_give_what_int32_gives(seqlens):
    expected = pack_best_fit(np.array(SEQLENS, dtype=np.int32), 7)
    for got, want in zip(pack_best_fit(seqlens, 7), expected, strict=True):
        assert got.tolist() == want.tolist()


@pytest.mark.parametrize(
    ("seqlens", "capacity", "message"),
    [
        pytest.param([3, 9], 7, r"seqlens\[1\] = 9 does not fit a bin of 7 tokens", id="too-long"),
        pytest.param([3, -1], 7, r"seqlens\[1\] = -1 is negative", id="negative"),
        pytest.param([3, 2**31], 7, r"\[1\] = 2147483648 does not fit", id="beyond-int32"),
        pytest.param([3, -(2**40)], 7, r"\[1\] = -1099511627776 is negative", id="below-int32"),
        pytest.param([2**70], 7, "must be integers, got object", id="beyond-int64"),
        pytest.param([1.0, 2.0], 7, "must be integers, got float64", id="float"),
        pytest.param([1.0, float("nan")], 7, "must be integers, got float64", id="nan"),
        pytest.param([True, False], 7, "must be integers, got bool", id="bool"),
        pytest.param(torch.ones(2, dtype=torch.bfloat16), 7, "got torch.bfloat16", id="bfloat16"),
        pytest.param([[1, 2]], 7, "must be 1-D, got 2-D", id="2-D"),
        pytest.param(np.int32(3), 7, "must be 1-D, got 0-D", id="0-D"),
        pytest.param([1], 0, "capacity must be an integer from 1 to 2147483647, got 0", id="zero"),
        pytest.param([1], -4, "capacity must be .* got -4", id="negative-capacity"),
        pytest.param([1], 2**31, "capacity must be .* got 2147483648", id="huge-capacity"),
        pytest.param([1], 7.5, "capacity must be .* got 7.5", id="float-capacity"),
    ],
)
@pytest.mark.parametrize("pack", [pack_best_fit, pack_next_fit])
def test_bad_input_is_named(pack, seqlens, capacity, message):
    with pytest.raises(ValueError, match=message):
        pack(seqlens, capacity)


@pytest.mark.parametrize(
    ("seqlens", "capacity", "message"),
    [
        pytest.param(np.zeros((2, 2), np.int32), 7, "must be 1-D, got 2-D", id="2-D"),
        pytest.param(np.zeros(2, np.int32), 0, "capacity must be from 1 to", id="no-capacity"),
        pytest.param(np.array([9], np.int32), 7, "does not fit a bin of 7 tokens", id="too-long"),
        pytest.param(np.array([-9], np.int32), 7, "is negative", id="negative"),
    ],
)
@pytest.mark.parametrize("pack", [_C.pack_best_fit, _C.pack_next_fit])
def test_the_native_border_checks_for_itself(pack, seqlens, capacity, message):
    with pytest.raises(ValueError, match=message):
        pack(seqlens, capacity)
