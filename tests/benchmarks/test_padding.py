"""Steps and slots by hand, and the padding rates that CodeACT published."""

from __future__ import annotations

import numpy as np
import pytest
from lengths import lognormal_of_mean
from padding import (
    WAYS,
    Layout,
    Step,
    pack_in_batch,
    pad_to_capacity,
    pad_to_longest,
    representative,
    totals,
)


def layout_of(seqlens: list[int], batch_size: int, capacity: int) -> Layout:
    return Layout.of(np.array(seqlens, dtype=np.int32), batch_size, capacity)


def test_slots_of_one_batch_by_hand() -> None:
    layout = layout_of([4, 1, 3, 7], batch_size=4, capacity=8)
    assert [step.num_slots for step in pad_to_capacity(layout)] == [32]
    assert [step.num_slots for step in pad_to_longest(layout)] == [28]
    # Ascending 1 3 4 7, next fit into rows of 8: [1 3 4] and [7].
    (step,) = pack_in_batch(layout)
    assert [layout.seqlens[row].tolist() for row in step.rows] == [[1, 3, 4], [7]]
    assert (step.width, step.num_slots, step.num_tokens) == (8, 16, 15)


def test_a_flat_step_has_no_padding() -> None:
    step = Step([np.array([0, 1])], 0, 11)
    assert step.num_slots == 11


def test_totals_by_hand() -> None:
    steps = [Step([np.array([0])], 8, 4), Step([np.array([1]), np.array([2])], 5, 8)]
    whole = totals(steps)
    assert (whole.num_steps, whole.num_slots, whole.padding) == (2, 18, pytest.approx(1 / 3))
    assert whole.largest is steps[1]


@pytest.mark.parametrize("name", WAYS)
def test_every_example_once_and_nothing_over_its_limit(name: str) -> None:
    if name == "TRL packing":
        pytest.importorskip("trl")
    seqlens = np.random.default_rng(0).integers(1, 100, 203)
    layout = layout_of(seqlens.tolist(), batch_size=8, capacity=100)
    steps = WAYS[name](layout)
    seen = np.concatenate([row for step in steps for row in step.rows])
    assert sorted(seen.tolist()) == list(range(203))
    assert sum(step.num_tokens for step in steps) == seqlens.sum()
    limit = layout.capacity if steps[0].width else layout.budget
    rows = [row for step in steps for row in step.rows]
    assert max(int(seqlens[row].sum()) for row in rows) <= limit
    assert all(step.num_slots >= step.num_tokens for step in steps)


def test_packed_steps_are_as_many_as_padded_ones() -> None:
    layout = Layout.of(lognormal_of_mean(4000, 450, 0.49, 2048), 16, 2048)
    padded, packed = (len(WAYS[name](layout)) for name in ("pad to longest", "Dynamic Pack"))
    assert abs(packed - padded) <= 0.02 * padded


# CodeACT's Table on OSS-Instruct and Evol-Instruct: micro-batches of 16, rows of 2048. It gives no
# lengths; a lognormal with these means and sigmas fits its rates of dynamic padding.
@pytest.mark.parametrize(
    ("mean", "sigma", "dynamic", "published"),
    [(450, 0.27, 0.3654, 0.1524), (500, 0.49, 0.5441, 0.1723)],
    ids=["OSS", "EVOL"],
)
def test_rates_are_the_published_ones(
    mean: float, sigma: float, dynamic: float, published: float
) -> None:
    layout = Layout.of(lognormal_of_mean(16000, mean, sigma, 2048), 16, 2048)
    assert totals(pad_to_longest(layout)).padding == pytest.approx(dynamic, abs=0.02)
    assert totals(pack_in_batch(layout)).padding == pytest.approx(published, abs=0.02)


def test_a_sample_pads_like_the_whole() -> None:
    layout = Layout.of(lognormal_of_mean(1000, 300, 0.6, 1024), 4, 1024)
    chosen = representative(layout, 8)
    assert len(set(chosen.tolist())) == 8
    for way in (pad_to_capacity, pad_to_longest, pack_in_batch):
        sample, whole = totals(way(layout.select(chosen))), totals(way(layout))
        assert sample.padding == pytest.approx(whole.padding, abs=0.05)


def test_a_sample_of_everything_is_everything() -> None:
    layout = layout_of([1, 2, 3], batch_size=2, capacity=4)
    assert representative(layout, 3).tolist() == [0, 1, 2]
