"""Plans hold every example once, fit their bins, and repeat themselves for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeact.errors import InputError
from codeact.packing import plan_bins

LENGTHS = st.lists(st.integers(0, 50), min_size=1, max_size=80)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(50, 120), st.sampled_from(["shuffle", "preserve"]), st.integers(1, 30))
def test_every_example_once_and_no_overflow(
    lengths: list[int], capacity: int, order: str, window: int
) -> None:
    plan = plan_bins(lengths, capacity, order=order, window=window, seed=3)
    for epoch in (0, 1):
        bins = plan.epoch(epoch)
        assert len(bins) == plan.num_bins
        assert sorted(np.concatenate(bins).tolist()) == list(range(len(lengths)))
        assert max(sum(lengths[i] for i in indices) for indices in bins) <= capacity
    assert plan.num_tokens == sum(lengths)
    assert plan.fill == pytest.approx(sum(lengths) / (plan.num_bins * capacity))


def lognormal(num_examples: int) -> np.ndarray:
    draws = np.random.default_rng(0).lognormal(np.log(450), 0.8, num_examples)
    return np.clip(draws, 16, 4096).astype(np.int64)


def test_windows_fill_bins() -> None:
    plan = plan_bins(lognormal(20_000), 4096)
    assert plan.fill > 0.995
    assert plan_bins(lognormal(20_000), 4096, order="preserve").fill < 0.9


def test_epochs_differ_and_repeat() -> None:
    lengths = lognormal(300)

    def flat(seed: int, epoch: int) -> list[int]:
        bins = plan_bins(lengths, 4096, window=64, seed=seed).epoch(epoch)
        return np.concatenate(bins).tolist()

    assert flat(0, 0) == flat(0, 0)
    assert flat(0, 0) != flat(0, 1)
    assert flat(0, 0) != flat(1, 0)


def test_preserve_is_next_fit() -> None:
    bins = plan_bins([3, 4, 2, 5, 1], 7, order="preserve").epoch(0)
    assert [indices.tolist() for indices in bins] == [[0, 1], [2, 3], [4]]


def test_drop_is_counted() -> None:
    plan = plan_bins([3, 9, 4], 7, overflow="drop")
    assert sorted(np.concatenate(plan.epoch(0)).tolist()) == [0, 2]
    assert plan.report().num_dropped == 1
    assert plan.num_tokens == 7


def test_report_by_hand() -> None:
    plan = plan_bins([4, 4, 2, 2], 8)
    report = plan.report(batch_size=4)
    assert (report.num_bins, report.num_tokens) == (2, 12)
    assert report.padding_packed == pytest.approx(1 - 12 / 16)
    assert report.padding_dynamic == pytest.approx(1 - 12 / 16)  # one batch padded to 4
    assert report.padding_max == pytest.approx(1 - 12 / 32)
    assert plan.num_steps(bins_per_step=4) == 1


@pytest.mark.parametrize(
    ("lengths", "options", "message"),
    [
        ([], {}, "non-empty row of integers"),
        ([1.5], {}, "non-empty row of integers, got float64"),
        ([[1, 2]], {}, "of shape \\(1, 2\\)"),
        ([-1, 2], {}, "must lie in"),
        ([3, 9, 8], {}, r"seqlens\[1\] = 9 does not fit a bin of 7 tokens \(2 of 3 do not"),
        ([3], {"order": "sorted"}, "order must be"),
        ([3], {"overflow": "ignore"}, "order must be"),
        ([3], {"window": 0}, "capacity and window"),
    ],
)
def test_refused(lengths: list[int], options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_bins(lengths, 7, **options)
