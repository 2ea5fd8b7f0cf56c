"""Plans hold every sequence once, fit their bins, and repeat themselves for the same seed."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeact.errors import InputError
from codeact.ops.packing import pack_best_fit
from codeact.packing.cost import AttentionCost, ModelCost
from codeact.packing.plan import BinPlan, plan_bins

QUADRATIC = ModelCost(100.0, (AttentionCost(2, 3.0, 20),))
OPTIONS = st.fixed_dictionaries(
    {
        "order": st.sampled_from(["shuffle", "preserve", "compat"]),
        "window": st.one_of(st.none(), st.integers(1, 30)),
        "seed": st.sampled_from([0, 3, 2**64 - 1]),
        "world_size": st.integers(1, 5),
        "cost": st.sampled_from([None, QUADRATIC]),
    }
)


def real_spans(plan: BinPlan, epoch: int) -> np.ndarray:
    """The spans of all bins, without fillers."""
    spans = np.concatenate([*plan.epoch(epoch)])
    return spans if plan.spans.filler is None else spans[spans != plan.spans.filler]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=5, max_size=80), st.integers(50, 120), OPTIONS)
def test_every_sequence_once_in_whole_steps(
    lengths: list[int], capacity: int, options: dict[str, Any]
) -> None:
    num_packed = sum(length > 0 for length in lengths)
    if num_packed < options["world_size"]:
        with pytest.raises(InputError, match="every rank needs a sequence"):
            plan_bins(lengths, capacity, **options)
        return
    plan = plan_bins(lengths, capacity, **options)
    assert plan.num_bins == plan.num_steps * plan.world_size
    for epoch in (0, 1, 5):
        bins = plan.epoch(epoch)
        assert len(bins) == plan.num_bins
        assert sorted(real_spans(plan, epoch).tolist()) == np.flatnonzero(lengths).tolist()
        assert [sum(plan.spans.seqlens[spans]) for spans in bins] == bins.num_tokens.tolist()
        assert min(map(len, bins)) >= 1
        assert bins.num_tokens.max() <= capacity
        assert plan.samples_per_step(epoch).sum() == num_packed
    assert plan.num_tokens == sum(lengths)
    assert plan.fill == pytest.approx(sum(lengths) / (plan.num_bins * capacity))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=60, max_size=200), st.integers(2, 12))
def test_epochs_have_as_many_bins_as_epoch_zero_or_the_whole_set_needs(
    lengths: list[int], window: int
) -> None:
    plan = plan_bins(lengths, 50, window=window, seed=1)
    fewest = len(pack_best_fit(lengths, 50)[1]) - 1
    assert len(plan.epoch(0)) == plan.num_bins >= fewest
    assert {len(plan.epoch(epoch)) for epoch in range(8)} == {plan.num_bins}
    assert plan_bins(lengths, 50, window=None).num_bins == fewest


def test_a_lucky_first_epoch_does_not_bind_the_others() -> None:
    """Its windows take 3 bins by chance; best fit decreasing of the whole set takes 4."""
    plan = plan_bins([2, 2, 5, 9, 3, 6, 2], 10, window=3, seed=0)
    assert len(plan.packing.pack(0)) == 3
    assert [len(plan.epoch(epoch)) for epoch in range(20)] == [4] * 20


def lognormal(num_examples: int) -> np.ndarray:
    draws = np.random.default_rng(0).lognormal(np.log(450), 0.8, num_examples)
    return np.clip(draws, 16, 4096).astype(np.int64)


def test_windows_fill_bins() -> None:
    lengths = lognormal(50_000)
    assert plan_bins(lengths, 4096).fill > 0.999
    assert plan_bins(lengths, 4096, window=1000).fill > 0.997
    fewest = -(-int(lengths.sum()) // 4096)
    assert plan_bins(lengths, 4096, window=None).num_bins <= fewest * 1.0005
    assert plan_bins(lengths, 4096, order="preserve").fill < 0.9


def test_epochs_differ_and_repeat() -> None:
    lengths = lognormal(300)

    def flat(seed: int, epoch: int) -> list[list[int]]:
        plan = plan_bins(lengths, 4096, window=64, seed=seed, world_size=2)
        return [spans.tolist() for spans in plan.epoch(epoch)]

    assert flat(0, 0) == flat(0, 0)
    assert flat(0, 0) != flat(0, 1)
    assert flat(0, 0) != flat(1, 0)


def test_windows_have_new_members_every_epoch() -> None:
    """Of two examples that share a bin once, few do again: bins are not only moved about."""
    plan = plan_bins(np.full(400, 10), 20, window=20)
    pairs = [{tuple(sorted(spans.tolist())) for spans in plan.epoch(epoch)} for epoch in (0, 1)]
    assert len(pairs[0] & pairs[1]) < 20


def test_preserve_is_next_fit() -> None:
    plan = plan_bins([3, 4, 2, 5, 1], 7, order="preserve")
    assert [spans.tolist() for spans in plan.epoch(0)] == [[0, 1], [2, 3], [4]]
    assert [spans.tolist() for spans in plan.epoch(7)] == [[0, 1], [2, 3], [4]]


def test_preserve_keeps_the_order_on_several_ranks() -> None:
    plan = plan_bins([3, 4, 2, 5, 1], 7, order="preserve", world_size=2)
    bins = [spans.tolist() for spans in plan.epoch(0)]
    # Four bins make whole steps: the costliest that has two sequences is split.
    assert bins == [[0], [1], [2, 3], [4]]


def test_compat_is_the_authors_packing() -> None:
    """Their collator, as published, on micro-batches in the order of the plan."""

    def pack_rows(lengths: dict[int, int], most: int) -> list[list[int]]:
        rows: list[list[int]] = []
        row: list[int] = []
        for example in sorted(lengths, key=lambda example: lengths[example]):
            if sum(lengths[i] for i in row) + lengths[example] > most:
                rows.append(row)
                row = []
            row = [*row, example]
        return [*rows, row]

    lengths = np.random.default_rng(0).integers(1, 60, 83)
    plan = plan_bins(lengths, 100, order="compat", window=8, seed=5)
    assert plan_bins(lengths, 100, order="compat").window == 16
    batches: dict[int, frozenset[int]] = {}
    for epoch in (0, 1):
        spans = real_spans(plan, epoch)
        # The one short micro-batch of 3 may stand anywhere, so batches are found by their bins.
        place, found = 0, []
        bins = [bin_.tolist() for bin_ in plan.epoch(epoch)]
        while place < len(bins):
            for size in (8, 3):
                members = spans[sum(map(len, bins[:place])) :][:size].tolist()
                rows = pack_rows({i: int(lengths[i]) for i in members}, 100)
                if [set(row) for row in rows] == [set(row) for row in bins[place:][: len(rows)]]:
                    break
            else:
                pytest.fail(f"no micro-batch at bin {place}")
            found.append(frozenset(members))
            place += len(rows)
        assert sorted(map(len, found)) == [3] + [8] * 10
        batches[epoch] = frozenset(found)
    assert batches[0] == batches[1]
    assert plan.epoch(0)[0].tolist() != plan.epoch(1)[0].tolist()


def test_more_ranks_than_bins_can_be_split_for() -> None:
    """Each sequence fills its bin, and five are no whole steps of four: fillers have no loss."""
    plan = plan_bins([7, 7, 7, 7, 7], 7, world_size=4)
    filler = plan.spans.filler
    bins = [spans.tolist() for spans in plan.epoch(0)]
    assert len(bins) == 8
    assert sorted(bins) == [[0], [1], [2], [3], [4], [filler], [filler], [filler]]
    assert plan.samples_per_step().sum() == 5
    example, start, stop = plan.spans.locate(np.array([filler]))
    assert (example.tolist(), start.tolist(), stop.tolist()) == ([0], [0], [1])
    assert plan.num_tokens == 35
    assert plan_bins([7, 7, 7, 7, 7], 7).spans.filler is None


def test_world_size_changes_neither_packing_nor_fingerprint() -> None:
    lengths = lognormal(500)
    one = plan_bins(lengths, 4096, window=64, cost=QUADRATIC)
    four = plan_bins(lengths, 4096, window=64, cost=QUADRATIC, world_size=4)
    assert one.fingerprint == four.fingerprint
    assert one.num_bins <= four.num_bins < one.num_bins + 4
    again = one.for_world_size(4)
    assert [a.tolist() for a in again.epoch(2)] == [a.tolist() for a in four.epoch(2)]
    assert again.for_world_size(1).spans.filler is None


@pytest.mark.parametrize(
    "changed",
    [
        {"capacity": 4097}, {"window": 65}, {"seed": 1}, {"order": "preserve"},
        {"cost": ModelCost(100.0, (AttentionCost(2, 3.0, 21),))}, {"cost": None},
        {"seqlens": np.append(lognormal(499), 17)}, {"overflow": "drop"},
    ],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_fingerprint_tells_plans_apart(changed: dict[str, Any]) -> None:
    arguments = {"seqlens": lognormal(500), "capacity": 4096, "window": 64, "cost": QUADRATIC}
    assert plan_bins(**arguments).fingerprint != plan_bins(**arguments | changed).fingerprint


def test_another_process_makes_the_same_plan() -> None:
    code = (
        "import numpy as np; from codeact.packing.plan import plan_bins\n"
        "plan = plan_bins(np.arange(1, 400), 500, window=32, seed=9, world_size=3)\n"
        "print(plan.fingerprint, [spans.tolist() for spans in plan.epoch(4)])"
    )
    plan = plan_bins(np.arange(1, 400), 500, window=32, seed=9, world_size=3)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = f"{plan.fingerprint} {[spans.tolist() for spans in plan.epoch(4)]}\n"
    assert ran.stdout == expected


@pytest.mark.parametrize("cost", [None, QUADRATIC])
def test_a_used_plan_travels_to_another_process(cost: ModelCost | None) -> None:
    plan = plan_bins(np.arange(1, 400), 500, window=32, seed=9, world_size=3, cost=cost)
    plan.epoch(1)
    copy = pickle.loads(pickle.dumps(plan))
    assert copy.fingerprint == plan.fingerprint
    assert [spans.tolist() for spans in copy.epoch(2)] == [
        spans.tolist() for spans in plan.epoch(2)
    ]


def test_numbers_of_updates() -> None:
    plan = plan_bins([5] * 9, 5, world_size=3)
    assert (plan.num_bins, plan.num_steps) == (9, 3)
    assert [plan.num_updates(), plan.num_updates(2), plan.num_updates(4)] == [3, 2, 1]
    with pytest.raises(InputError, match="accumulation must be a whole number of at least 1"):
        plan.num_updates(0)


def test_no_epoch_has_more_sequences_in_a_bin_than_said() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(6, 0.8, 20_000), 16, 4096).astype(np.int32)
    plan = plan_bins([*lengths, 0, 9000], 4096, overflow="drop")
    most = [int(plan.epoch(epoch).num_spans.max()) for epoch in range(5)]
    assert len(set(most)) > 1  # so that one epoch cannot speak for the others
    assert max(most) <= plan.max_num_seqs
    assert plan_bins([3, 1, 2, 7], 7).max_num_seqs == 3
    assert plan_bins([5] * 9, 5, world_size=3).max_num_seqs == 1
    assert plan_bins([1, 1], 2**31 - 1).max_num_seqs == 2


@pytest.mark.parametrize(
    ("lengths", "options", "message"),
    [
        ([], {}, "non-empty row of integers"),
        ([1.5], {}, "non-empty row of integers, got float64"),
        ([np.nan, 1.0], {}, "non-empty row of integers, got float64"),
        ([True], {}, "non-empty row of integers, got bool"),
        (["3"], {}, "non-empty row of integers, got <U1"),
        ([[1, 2]], {}, "of shape \\(1, 2\\)"),
        ([-1, 2], {}, "must lie in"),
        ([2**31], {}, r"must lie in \[0, 2\*\*31 - 1\], got 2147483648"),
        (np.array([2**64 - 1], dtype=np.uint64), {}, "got 18446744073709551615"),
        ([3, 9, 8], {}, r"seqlens\[1\] = 9 does not fit a bin of 7 tokens \(2 of 3 do not"),
        ([0, 0], {}, r"every rank needs a sequence, got 0 .* \(2 examples have no token"),
        ([3, 9], {"overflow": "drop", "world_size": 2}, r"got 1 sequences .* 1 were dropped"),
        ([3], {"order": "sorted"}, "order must be shuffle, preserve or compat, got 'sorted'"),
        ([3], {"overflow": "ignore"}, "overflow must be error, drop, .* or split, got 'ignore'"),
        ([3], {"window": 0}, "window must be a whole number of at least 1, got 0"),
        ([3], {"window": 2.5}, "window must be a whole number of at least 1, got 2.5"),
        ([3], {"capacity": 0}, "capacity must be a whole number of at least 1, got 0"),
        ([3], {"capacity": 2**31}, "capacity must be at most 2147483647, got 2147483648"),
        ([3], {"world_size": 0}, "world_size must be a whole number of at least 1, got 0"),
        ([3], {"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ([3], {"seed": 2**64}, "seed must be at most"),
        ([3, 3], {"world_size": 2, "cost": lambda x: -x}, "cost must give one finite"),
        ([3, 3], {"world_size": 2, "cost": lambda x: 3.0}, r"cost must give .*got shape \(\)"),
    ],
)
def test_refused(lengths: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_bins(lengths, **{"capacity": 7} | options).epoch(0)


def test_sums_beyond_int32_are_exact() -> None:
    plan = plan_bins(np.full(40, 2**30), 2**31 - 1)
    assert plan.num_tokens == 40 * 2**30
    assert plan.epoch(0).num_tokens.tolist() == [2**30] * 40
    assert plan.fill == pytest.approx(2**30 / (2**31 - 1))


def test_a_negative_epoch_is_refused() -> None:
    with pytest.raises(InputError, match="epoch must be at least 0, got -1"):
        plan_bins([3], 7).epoch(-1)


def test_no_ranks_are_refused() -> None:
    with pytest.raises(InputError, match="world_size must be a whole number of at least 1, got 0"):
        plan_bins([3], 7).for_world_size(0)
