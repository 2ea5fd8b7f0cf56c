from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeact.ops.shuffle import philox, shuffled, shuffled_reference

MAX_UINT64 = 2**64 - 1
PINNED = [
    [7, 8, 4, 0, 5, 1, 2, 3, 6, 9],
    [3, 1, 8, 6, 7, 2, 4, 0, 9, 5],
    [6, 3, 4, 2, 7, 9, 1, 8, 5, 0],
]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 700), st.integers(0, MAX_UINT64), st.integers(0, MAX_UINT64))
def test_equals_its_reference(num_items, seed, epoch):
    items = shuffled(num_items, seed=seed, epoch=epoch)
    assert items.dtype == np.int32
    assert np.array_equal(items, shuffled_reference(num_items, seed=seed, epoch=epoch))


@pytest.mark.parametrize("num_items", [0, 1, 2, 255, 256, 257, 512, 513, 100_001])
def test_is_a_permutation(num_items):
    items = shuffled(num_items, seed=0)
    assert np.array_equal(np.sort(items), np.arange(num_items))


def test_never_changes():
    """Plans of runs that are resumed rest on these."""
    assert shuffled(10, seed=0).tolist() == PINNED[0]
    assert shuffled(10, seed=42, epoch=1).tolist() == PINNED[1]
    assert shuffled(10, seed=MAX_UINT64, epoch=MAX_UINT64).tolist() == PINNED[2]


@pytest.mark.parametrize(
    ("counter", "key", "block"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "digits-of-pi"],
)
def test_the_generator_gives_the_known_answers_of_random123(counter, key, block):
    assert philox(counter, key) == block


def test_seeds_and_epochs_give_unlike_permutations():
    seeds = [0, 1, 2**32, 2**32 + 1, MAX_UINT64]
    drawn = {tuple(shuffled(50, seed=s, epoch=e)) for s in seeds for e in seeds}
    assert len(drawn) == 25


def test_every_item_lands_everywhere_equally_often():
    num_items, num_draws = 8, 16_000
    counts = np.zeros((num_items, num_items))
    for epoch in range(num_draws):
        counts[np.arange(num_items), shuffled(num_items, seed=7, epoch=epoch)] += 1
    expected = num_draws / num_items
    chi_square = ((counts - expected) ** 2 / expected).sum()
    # 49 degrees of freedom: mean 49, deviation 9.9.
    assert abs(chi_square - 49) < 5 * 9.9


def test_neighbours_part():
    items = shuffled(100_000, seed=3).astype(np.int64)
    assert abs(np.corrcoef(items[:-1], items[1:])[0, 1]) < 0.015
    assert abs(np.corrcoef(items, np.arange(100_000))[0, 1]) < 0.015


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_items": -1, "seed": 0}, "num_items must be an integer from 0 to 2147483647, got -1"),
        ({"num_items": 2**31, "seed": 0}, "num_items must be"),
        ({"num_items": 2.0, "seed": 0}, "num_items must be an integer"),
        ({"num_items": 2, "seed": -1}, "seed must be an integer from 0 to 18446744073709551615"),
        ({"num_items": 2, "seed": 2**64}, "seed must be"),
        ({"num_items": 2, "seed": None}, "seed must be an integer"),
        ({"num_items": 2, "seed": 0, "epoch": -1}, "epoch must be"),
    ],
)
def test_bad_input_is_named(arguments, message):
    num_items = arguments.pop("num_items")
    with pytest.raises(ValueError, match=message):
        shuffled(num_items, **arguments)
