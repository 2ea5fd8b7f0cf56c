"""The report's numbers by hand, by definition, and beside the paper's."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeact.errors import InputError
from codeact.packing.plan import plan_bins
from codeact.packing.report import compat_slots, dynamic_slots, length_variance_by_bin


def test_by_hand() -> None:
    plan = plan_bins([4, 4, 2, 2], 8)
    report = plan.report(batch_size=4)
    assert (report.num_examples, report.num_bins, report.num_tokens) == (4, 2, 12)
    assert report.padding_packed == pytest.approx(1 - 12 / 16)
    assert report.padding_dynamic == pytest.approx(1 - 12 / 16)  # one batch padded to 4
    # Next fit ascending: rows 2 + 2 + 4 and 4, both padded to 8.
    assert report.padding_compat == pytest.approx(1 - 12 / 16)
    assert report.padding_max == pytest.approx(1 - 12 / 32)
    assert (report.examples_per_bin_min, report.examples_per_bin_max) == (2, 2)
    assert report.examples_per_bin_mean == 2.0
    # Bins 4 + 4 and 2 + 2: all of the variance lies between them.
    assert report.length_variance_by_bin == pytest.approx(1.0)


def test_numbers_of_what_is_left_out() -> None:
    lengths = [9, 3, 0, 12, 4, 4]
    plan = plan_bins(lengths, 8, overflow="truncate", world_size=2)
    report = plan.report(batch_size=1, accumulation=2)
    assert (report.num_examples, report.num_empty, report.num_dropped) == (5, 1, 0)
    assert (report.num_cut, report.num_lost_tokens, report.num_tokens) == (2, 5, 27)
    assert (report.num_bins, report.num_steps, report.num_updates) == (4, 2, 1)
    assert report.num_updates_padded == 2  # 5 examples, 4 an update
    assert (report.world_size, report.batch_size, report.accumulation) == (2, 1, 2)
    dropped = plan_bins(lengths, 8, overflow="drop").report()
    assert (dropped.num_examples, dropped.num_dropped, dropped.num_lost_tokens) == (3, 2, 21)


def test_is_flat_json() -> None:
    report = asdict(plan_bins(np.arange(1, 90), 100, world_size=2).report())
    assert json.loads(json.dumps(report)) == report
    assert all(isinstance(value, (int, float)) for value in report.values())


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=70),
    st.integers(30, 70),
    st.integers(1, 20),
)
def test_slots_follow_their_definition(lengths: list[int], capacity: int, batch_size: int) -> None:
    dynamic = compat = 0
    for first in range(0, len(lengths), batch_size):
        batch = sorted(lengths[first : first + batch_size])
        dynamic += max(batch) * len(batch)
        rows = [0]
        for length in batch:
            if rows[-1] + length > capacity:
                rows.append(0)
            rows[-1] += length
        compat += max(rows) * len(rows)
    seqlens = np.array(lengths, dtype=np.int32)
    assert dynamic_slots(seqlens, batch_size) == dynamic
    assert compat_slots(seqlens, capacity, batch_size) == compat


@pytest.mark.parametrize(
    ("sigma", "dynamic", "compat"), [(0.27, 0.365, 0.1524), (0.49, 0.544, 0.1723)],
    ids=["OSS", "EVOL"],
)  # fmt: skip
def test_paddings_of_the_paper(sigma: float, dynamic: float, compat: float) -> None:
    """Padding rates of arXiv:2408.02193 on lengths fitted to its two sets; 16 rows of 2048."""
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(np.log(450) - sigma**2 / 2, sigma, 75_000)).astype(np.int64)
    report = plan_bins(np.clip(lengths, 1, 2048), 2048).report(batch_size=16)
    assert report.padding_compat == pytest.approx(compat, abs=0.02)
    assert report.padding_dynamic == pytest.approx(dynamic, abs=0.02)
    assert report.padding_packed < 0.03


def test_length_variance_by_definition() -> None:
    plan = plan_bins(np.random.default_rng(0).integers(1, 60, 200), 100, window=20)
    bins = plan.epoch(0)
    lengths = [plan.seqlens[spans].astype(float) for spans in bins]
    mean = np.concatenate(lengths).mean()
    between = sum(len(x) * (x.mean() - mean) ** 2 for x in lengths)
    total = ((np.concatenate(lengths) - mean) ** 2).sum()
    assert length_variance_by_bin(bins) == pytest.approx(between / total)
    assert plan_bins([5] * 30, 10).report().length_variance_by_bin == 0.0


def test_best_fit_sorts_lengths_and_next_fit_does_not() -> None:
    lengths = np.random.default_rng(0).lognormal(6, 0.8, 5000).astype(np.int64).clip(16, 4096)
    by_order = {
        order: plan_bins(lengths, 4096, order=order).report().length_variance_by_bin
        for order in ("shuffle", "preserve")
    }
    assert by_order["shuffle"] > 0.6 > 0.45 > by_order["preserve"]


def test_few_updates_are_warned_of() -> None:
    lengths = [100] * 1600
    plan = plan_bins(lengths, 2000, seed=0)  # 80 bins of 20
    warning = plan.update_warning(batch_size=2, accumulation=8, epochs=2)
    # 80 / 8 * 2 = 20 steps beside 1600 / 16 * 2 = 200; one bin a step is 160, and so 1600 tokens.
    assert warning == (
        "packing leaves 20 optimizer steps where padded batches of 2 make 200; to keep the steps: "
        "accumulation = 1 instead of 8 and capacity = 1600 instead of 2000 or more epochs"
    )
    assert 2 * plan_bins(lengths, 1600).num_updates(1) == 200


@pytest.mark.parametrize(
    ("accumulation", "kept"), [(8, "accumulation = 2 instead of 8 or more epochs"), (2, None)]
)
def test_a_smaller_accumulation_may_be_enough(accumulation: int, kept: str | None) -> None:
    plan = plan_bins([100] * 800, 400)  # 200 bins of 4; 100 padded updates of 8
    warning = plan.update_warning(batch_size=8 // accumulation, accumulation=accumulation)
    assert (warning is None) == (kept is None)
    assert kept is None or (warning or "").endswith(kept)


def test_where_nothing_but_epochs_helps() -> None:
    plan = plan_bins([1] * 900 + [900], 900)
    warning = plan.update_warning(batch_size=1)
    assert warning is not None
    assert warning.endswith("make 901; to keep the steps: more epochs")


def test_enough_updates_need_no_warning() -> None:
    lengths = np.full(12_000, 100)
    assert plan_bins(lengths, 2000).update_warning(batch_size=1) is None  # 600 steps
    assert plan_bins(lengths[:8000], 2000).update_warning(batch_size=1, epochs=2) is None
    assert plan_bins(lengths[:8000], 2000).update_warning(batch_size=1) is not None


def test_half_the_updates_are_enough() -> None:
    assert plan_bins([100] * 40, 200).update_warning(batch_size=1) is None  # 20 of 40
    assert plan_bins([100] * 41, 200).update_warning(batch_size=1) is None  # 21 of 41
    assert plan_bins([100] * 42, 300).update_warning(batch_size=1) is not None  # 14 of 42


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"accumulation": 0}])
def test_refused(options: dict[str, int]) -> None:
    name = next(iter(options))
    plan = plan_bins([3], 7)
    with pytest.raises(InputError, match=f"{name} must be a whole number of at least 1, got 0"):
        plan.report(**options)
    with pytest.raises(InputError, match=f"{name} must be a whole number of at least 1, got 0"):
        plan.update_warning(**{"batch_size": 8} | options)
