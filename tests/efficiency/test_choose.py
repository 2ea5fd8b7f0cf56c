"""Which answer is kept, what is said of it, and that no failed one ever is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from made_measurements import Made, MadeTask, make, reference

from codeact.efficiency.comparing.net_samples import (
    metrics_of_rounds,
    net_cpu_seconds,
    rounds_won,
    separated,
    shared_rounds,
)
from codeact.efficiency.instruct.choose import choose
from codeact.errors import InputError


def one(*contestants: Made, **options):
    return choose(make([MadeTask("t", list(contestants))]), **options)


def test_the_fastest_correct_answer_with_all_it_beat():
    [choice] = one(
        reference(0.030, 0.032, 0.031),
        Made("slow", [0.050, 0.052, 0.051], memory=20_000_000),
        Made("wrong", [0.001] * 3, status="wrong_answer"),
        Made("fast", [0.012, 0.010, 0.011]),
    )
    assert (choice.candidate_id, choice.origin, choice.decided_by) == ("fast", "model", "cpu")
    assert choice.et_seconds == 0.010
    assert choice.speedup_over_reference == pytest.approx(3.0)
    assert choice.rounds_won == 1.0
    assert [other.candidate_id for other in choice.beaten] == ["reference", "slow"]
    slow = choice.beaten[1]
    assert (slow.et_ratio, slow.mu_ratio) == (pytest.approx(5.0), 2.0)
    assert slow.tmu_ratio == pytest.approx(10.0)
    assert choice.spread == pytest.approx(5.0)


def test_the_races_tie_rule_is_kept_and_confidence_says_how_close_it_was():
    # b has the lower minimum, yet the race put a first: within 3 % its memory decided.
    [choice] = one(
        Made("a", [0.0102, 0.0103, 0.0101, 0.0104], rank=1, tie_rule="tmu", memory=9_000_000),
        Made("b", [0.0100, 0.0105, 0.0101, 0.0106], rank=2),
    )
    assert (choice.candidate_id, choice.decided_by) == ("a", "tmu")
    # Rounds: lost, won, tied, won.
    assert choice.rounds_won == pytest.approx(2.5 / 4)


def test_without_the_reference_the_next_is_chosen_and_the_deciding_step_is_named():
    contestants = [
        Made("a", [0.0100], rank=1, tie_rule="length"),
        reference(0.0101, rank=2, tie_rule="cpu"),
        Made("b", [0.02], rank=3),
    ]
    [with_it] = one(*contestants)
    [without] = one(*contestants, include_reference=False)
    assert (with_it.beaten[0].origin, with_it.decided_by) == ("reference", "length")
    assert [other.origin for other in without.beaten] == ["model"]
    assert without.decided_by == "cpu"
    [reference_first] = one(reference(0.01), Made("b", [0.02]), include_reference=False)
    assert reference_first.candidate_id == "b"
    assert reference_first.decided_by == "only"
    assert reference_first.rounds_won is None
    assert reference_first.speedup_over_reference == 0.5


PLANE = [
    Made("quick_large", [0.010], memory=40_000_000),
    Made("middle", [0.012], memory=15_000_000),
    Made("slow_small", [0.030], memory=10_000_000),
    Made("dominated", [0.013], memory=16_000_000),
]


def test_pareto_takes_the_least_tmu_of_those_that_nobody_dominates():
    [choice] = one(*PLANE, rule="pareto")
    # TMU: 0.40, 0.18, 0.30 and 0.208 MB s; the last is second but beaten in both.
    assert choice.candidate_id == "middle"
    assert choice.decided_by == "pareto"
    assert choice.beaten[-1].candidate_id == "dominated"


@pytest.mark.parametrize(
    "weights", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (5, 1, 0), (1, 0.4, 0)]
)
def test_weighted_is_the_smallest_sum_of_logs(weights):
    [choice] = one(*PLANE, rule="weighted", weights=weights)
    et, mu, tmu = weights

    def cost(made: Made) -> float:
        time = made.cpu[0]
        logs = et * math.log(time) + mu * math.log(made.memory)
        return logs + tmu * math.log(time * made.memory)

    assert choice.candidate_id == min(PLANE, key=cost).name


def test_nothing_is_chosen_where_nothing_is_correct_or_ranked():
    tasks = [
        MadeTask("fails", [Made("a", [0.01], status="time_limit"), Made("b", status="raised")]),
        MadeTask("short", [Made("a", [0.01]), Made("b", [0.02])], too_short=True),
        MadeTask("fine", [Made("a", [0.01]), Made("b", [0.02])]),
    ]
    assert [choice.task_id for choice in choose(make(tasks))] == ["fine"]


def test_an_answer_without_a_memory_reading_is_no_contestant():
    measurements = make([MadeTask("t", [Made("a", [0.01]), Made("b", [0.02])])])
    broken = replace(measurements.records[0], tmu_byte_seconds=0.0)
    [choice] = choose(replace(measurements, records=(broken, measurements.records[1])))
    assert choice.candidate_id == "b"


def test_each_language_is_a_choice_of_its_own():
    choices = one(
        Made("a", [0.02]), Made("c", [0.001], language="cpp"), Made("d", [0.002], language="cpp")
    )
    assert [(c.language, c.candidate_id) for c in choices] == [("python", "a"), ("cpp", "c")]


def test_net_samples_are_the_definitions_whatever_the_repeats():
    fast = make([MadeTask("t", [Made("a", [0.012, 0.010, 0.011], repeats=40)])]).records[0]
    slow = make([MadeTask("t", [Made("b", [0.020, 0.019], repeats=3)])]).records[0]
    for number, seconds in net_cpu_seconds(fast).items():
        assert seconds == pytest.approx([0.012, 0.010, 0.011][number], rel=1e-12)
    assert shared_rounds([fast, slow]) == {0, 1}
    # With all its rounds a record gets its own metrics back; with the first alone it is slower.
    whole = metrics_of_rounds(fast, {0, 1, 2})
    assert whole == pytest.approx((fast.et_seconds, fast.mu_bytes, fast.tmu_byte_seconds))
    assert metrics_of_rounds(fast, {0}).et_seconds == pytest.approx(0.012)
    assert separated(fast, slow)
    assert not separated(slow, fast)
    assert rounds_won(slow, fast) == 0.0
    with pytest.raises(ValueError, match="ran none of the rounds"):
        metrics_of_rounds(slow, {2})


def test_overlapping_runs_are_not_separated():
    a = make([MadeTask("t", [Made("a", [0.010, 0.021])])]).records[0]
    b = make([MadeTask("t", [Made("b", [0.020, 0.022])])]).records[0]
    unmeasured = make([MadeTask("t", [Made("c")])]).records[0]
    assert not separated(a, b)
    assert not separated(a, unmeasured)
    assert rounds_won(a, unmeasured) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rule": "fastest"}, "rule must be one of lexicographic, pareto, weighted, got 'fastest'"),
        ({"weights": (1, 1)}, "weights must be three"),
        ({"weights": (0, 0, 0)}, "weights must be three"),
        ({"weights": (1, -1, 0)}, "weights must be three"),
    ],
)
def test_bad_options_are_named(options, said):
    with pytest.raises(InputError, match=said):
        one(Made("a", [0.01]), **options)
