from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import invented_meter as invented
import pytest

from codeact.efficiency.racing.baselines import RunCost, choose_repeats, net, slow_repeats
from codeact.efficiency.racing.field import RaceOptions
from codeact.efficiency.racing.measurements import REFERENCE, MeasuredCandidate, Sample
from codeact.efficiency.racing.race import race
from codeact.efficiency.racing.ranking import Place, Standing, rank
from codeact.efficiency.racing.rounds import Runner, Track, pooled_spread, run_round
from codeact.sandbox.programs.program import Program


def run_race(costs, *, meter=None, task=None, options=None, reference=None):
    """Races programs, given as name -> source; returns summary and records by name."""
    meter = meter or invented.InventedMeter()
    task = task or invented.task()
    programs = {name: Program("python", source) for name, source in costs.items()}
    records = [
        MeasuredCandidate(
            task_id=task.id,
            candidate_id=name,
            origin=REFERENCE if name == reference else "model",
            language="python",
            status="passed",
            reason="",
            num_tests=2,
            num_passed=2,
            check_cpu_seconds=meter.check(task, program).cpu_seconds,
            source_chars=len(program.source),
            source_sha256=f"{index:064}",
        )
        for index, (name, program) in enumerate(programs.items())
    ]
    track = Track(meter, task, "python", 3)
    summary, measured = race(track, records, programs, options or RaceOptions())
    return summary, {record.candidate_id: record for record in measured}


def samples(*cpu_seconds):
    return tuple(
        Sample(number, 0, seconds, 3 * seconds, 1000, 10 * seconds, 30 * seconds)
        for number, seconds in enumerate(cpu_seconds)
    )


def test_net_takes_each_minimum_by_itself():
    runs = (Sample(0, 0, 0.5, 2.0, 900, 70.0, 400.0), Sample(1, 0, 0.6, 1.5, 800, 60.0, 500.0))
    empty = (Sample(0, 1, 0.1, 0.3, 100, 9.0, 40.0), Sample(1, 1, 0.2, 0.2, 90, 8.0, 50.0))
    found = net(runs, empty, 4)
    assert found.et_seconds == pytest.approx((0.5 - 0.1) / 4)
    assert found.et_wall_seconds == pytest.approx((1.5 - 0.2) / 4)
    assert found.mu_bytes == 800  # gross, of all repeats
    assert found.tmu_byte_seconds == pytest.approx((60 - 8) / 4)
    assert found.tmu_wall_byte_seconds == pytest.approx((400 - 40) / 4)


def test_spread_is_pooled_over_runners_and_per_repetition():
    one, two = Runner("a", None, 2), Runner("b", None, 10)
    one.samples, two.samples = list(samples(1.0, 1.2, 1.1)), list(samples(5.0, 5.0, 8.0, 6.0))
    lone = Runner("c", None, 1, samples=list(samples(9.0)))
    first = 1.4826 * statistics.median([0.1, 0.1, 0.0]) / 2
    second = 1.4826 * statistics.median([0.5, 0.5, 2.5, 0.5]) / 10
    pooled = math.sqrt((first**2 + second**2) / 2)
    assert pooled_spread([one, two, lone]) == pytest.approx(pooled)
    assert pooled_spread([lone]) == 0


def test_rounds_run_the_order_forwards_and_backwards():
    meter, task = invented.InventedMeter(), invented.task()
    texts = {name: invented.source(0.05, name=name) for name in "ABC"}
    runners = [Runner(name, Program("python", text)) for name, text in texts.items()]
    for number in range(4):
        run_round(Track(meter, task, "python", 5), number, runners)
    by_text = {text: name for name, text in texts.items()}
    assert "".join(by_text[text] for _, text, _, _ in meter.runs) == "ABCCBAABCCBA"
    assert {core for *_, core in meter.runs} == {5}
    assert [sample.position for sample in runners[0].samples] == [0, 2, 0, 2]
    assert [sample.round for sample in runners[0].samples] == [0, 1, 2, 3]


@pytest.mark.parametrize("cost", [1e-5, 3e-4, 0.004, 0.06, 3.0])
def test_repeats_bring_the_fastest_to_the_target(cost):
    calls = []

    def cost_of(repeats):
        calls.append(repeats)
        return RunCost(0.007 + repeats * cost, 0.007)

    repeats, found = choose_repeats(cost_of, 0.05)
    if cost * 1000 < 0.05:
        assert repeats == 1000
    else:
        assert 0.05 <= repeats * cost <= max(0.06, cost)
    assert found == cost_of(repeats)
    assert len(calls) <= 5  # a short search


def test_a_run_is_not_made_longer_than_a_second():
    repeats, _ = choose_repeats(lambda count: RunCost(0.08 * count, 0.0799 * count), 0.05)
    assert 0.9 <= repeats * 0.08 <= 1.1
    # 20 inputs are 20 sandboxes a repetition, of which CPU time knows nothing.
    repeats, _ = choose_repeats(lambda count: RunCost(2e-3 * count, 0.0, 20 * count), 0.05)
    assert 5 <= repeats <= 11


@pytest.mark.parametrize(
    ("repeats", "once", "expected"),
    [(50, 0.004, 50), (50, 0.02, 8), (50, 0.25, 1), (50, 3.0, 1), (3, 0.1, 2), (50, -1e-3, 50)],
)
def test_slow_contestants_repeat_less(repeats, once, expected):
    assert slow_repeats(repeats, once) == expected


def test_a_race_without_noise_finds_the_costs():
    summary, found = run_race(
        {
            "fast": invented.source(0.001, memory=5000),
            "near": invented.source(0.0012),
            "far": invented.source(0.002),
            "snail": invented.source(0.3),
        }
    )
    assert summary.status == "ranked"
    assert [found[name].rank for name in ("fast", "near", "far", "snail")] == [1, 2, 3, 4]
    assert [found[name].tie_rule for name in found] == ["cpu", "cpu", "cpu", None]
    for name, cost in (("fast", 0.001), ("near", 0.0012), ("far", 0.002), ("snail", 0.3)):
        assert found[name].et_seconds == pytest.approx(cost, rel=1e-9)
        assert found[name].et_wall_seconds == pytest.approx(2 * cost, rel=1e-9)
    assert found["near"].tmu_byte_seconds == pytest.approx(0.0012 * invented.START_BYTES, rel=1e-9)
    assert found["fast"].mu_bytes == invented.START_BYTES + 5000
    assert {name: record.rounds for name, record in found.items()} == {
        "fast": 5,
        "near": 5,
        "far": 3,  # beyond 1.5 times the best
        "snail": 3,
    }
    assert 0.05 <= summary.repeats * 0.001 < 0.07
    assert found["snail"].repeats == 1
    assert set(summary.baselines) == {1, summary.repeats}
    assert found["snail"].baseline == summary.baselines[1]
    assert (len(summary.baselines[1]), len(summary.baselines[summary.repeats])) == (3, 5)


def test_repeats_follow_whoever_turns_out_fastest():
    # The correctness run of "quick" was disturbed: repeats are first chosen for the other.
    class Disturbed(invented.InventedMeter):
        def check(self, task, program):
            reading = super().check(task, program)
            slower = 1.0 if "quick" in program.source else 0.0
            return replace(reading, cpu_seconds=reading.cpu_seconds + slower)

    costs = {"steady": invented.source(0.01), "quick": invented.source(0.0005, quick=1)}
    summary, found = run_race(costs, meter=Disturbed())
    assert 0.05 <= summary.repeats * 0.0005 < 0.07
    assert found["quick"].repeats == summary.repeats
    assert found["quick"].et_seconds == pytest.approx(0.0005, rel=1e-9)
    assert found["quick"].rank == 1


def test_the_reference_runs_every_round():
    costs = {"fast": invented.source(0.01), "reference": invented.source(0.025)}
    assert run_race(costs)[1]["reference"].rounds == 3
    assert run_race(costs, reference="reference")[1]["reference"].rounds == 5


def test_the_best_two_go_on_until_they_are_told_apart():
    noisy = {"a": invented.source(0.01, noise=0.1), "b": invented.source(0.0102, noise=0.1)}
    summary, found = run_race({**noisy, "c": invented.source(0.0145, noise=0.001)})
    assert (summary.rounds, found["a"].rounds, found["b"].rounds) == (9, 9, 9)
    assert found["c"].rounds == 5  # told apart already
    summary, _ = run_race({**noisy}, options=RaceOptions(rounds=2, max_rounds=4))
    assert summary.rounds == 4
    apart = {"a": invented.source(0.01, noise=0.001), "b": invented.source(0.0105, noise=0.001)}
    assert run_race(apart)[0].rounds == 5


def test_five_percent_are_ordered_in_spite_of_noise():
    wrong = 0
    for number in range(200):
        fast, slow = 0.004, 0.004 * 1.05
        costs = {
            "fast": invented.source(fast, noise=0.04),
            "slow": invented.source(slow, noise=0.04),
        }
        task = invented.task(f"{number}")
        wrong += run_race(costs, task=task)[1]["fast"].rank != 1
    assert wrong <= 2  # 99 %


def test_a_race_too_short_is_not_ranked():
    summary, found = run_race({"a": invented.source(1e-6), "b": invented.source(2e-6)})
    assert summary.too_short
    assert "1000 repeats" in summary.reason
    assert [record.rank for record in found.values()] == [None, None]
    assert all(record.passed for record in found.values())
    assert found["a"].samples  # the evidence stays


@pytest.mark.parametrize(("cost", "status"), [(1.9e-5, "too_short"), (2.2e-5, "ranked")])
def test_nothing_below_twenty_milliseconds_is_ranked(cost, status):
    assert (
        run_race({"a": invented.source(cost), "b": invented.source(5 * cost)})[0].status == status
    )


def test_an_answer_that_turns_wrong_leaves_the_race():
    costs = {
        "fast": invented.source(0.01, fails_from=3),
        "slow": invented.source(0.012),
        "never": invented.source(0.013, fails_from=0),
    }
    summary, found = run_race(costs)
    assert summary.status == "ranked"
    assert found["slow"].rank == 1
    for name in ("fast", "never"):
        assert (found[name].status, found[name].rank) == ("wrong_answer", None)
        assert found[name].et_seconds is None
        assert found[name].reason == "passed once, but not when measured: it is wrong_answer"
        assert found[name].num_passed == 1
    assert not found["never"].samples


def test_who_keeps_its_answers_between_repetitions_leaves_the_race():
    costs = {
        "remembers": invented.source(0.02, later=0.0001),
        "honest": invented.source(0.001),
        "imports once": invented.source(0.005, later=0.0012),
    }
    summary, found = run_race(costs)
    assert summary.status == "ranked"
    assert (found["remembers"].status, found["remembers"].rank) == ("broken_protocol", None)
    assert "kept from one to the next" in found["remembers"].reason
    assert (found["honest"].rank, found["imports once"].rank) == (1, 2)


def test_without_who_remembers_the_race_begins_anew():
    costs = {
        "remembers": invented.source(0.02, later=1e-9),  # 20 ms are out of its reach
        "honest": invented.source(0.0041),
        "slower": invented.source(0.0042),
    }
    summary, found = run_race(costs)
    alone, expected = run_race({name: costs[name] for name in ("honest", "slower")})
    assert found["remembers"].status == "broken_protocol"
    assert (summary.status, summary.repeats, summary.rounds) == (
        "ranked", alone.repeats, alone.rounds,
    )  # fmt: skip
    for name, record in expected.items():
        assert found[name].rounds == record.rounds >= 5
        assert found[name].rank == record.rank


def test_who_remembers_among_few_repetitions_leaves_the_race():
    costs = {
        "remembers": invented.source(0.02, later=1e-9),
        "honest": invented.source(0.01),
    }
    meter = invented.InventedMeter()
    _, found = run_race(costs, meter=meter)
    assert found["remembers"].status == "broken_protocol"
    assert found["honest"].rank == 1


def test_one_slow_reading_puts_nobody_out():
    class Disturbed(invented.InventedMeter):
        def run(self, task, program, *, repeats, core):
            reading = super().run(task, program, repeats=repeats, core=core)
            late = repeats == 2 and self.runs.count((task.id, program.source, 2, core)) <= 2
            return replace(reading, cpu_seconds=reading.cpu_seconds + 0.02 * late)

    _, found = run_race({"a": invented.source(0.001)}, meter=Disturbed())
    assert found["a"].rank == 1


def test_nobody_left_is_no_race():
    costs = {name: invented.source(0.01 + index, fails_from=0) for index, name in enumerate("abc")}
    summary, found = run_race(costs)
    assert summary.status == "none_passed"
    assert {record.status for record in found.values()} == {"wrong_answer"}


def test_without_a_baseline_nothing_is_ranked():
    costs = {"a": invented.source(0.01), "b": invented.source(0.02)}
    summary, found = run_race(costs, meter=invented.InventedMeter(baseline_fails=True))
    assert (summary.status, "sandbox_error" in summary.reason) == ("failed", True)
    assert {record.et_seconds for record in found.values()} == {None}


def test_first_places_that_tie_are_counted():
    costs = {
        "a": invented.source(0.0100, instructions=1000),
        "b": invented.source(0.0102, instructions=900),
        "c": invented.source(0.0110, instructions=10),
    }
    meter = invented.InventedMeter()
    _, found = run_race(costs, meter=meter)
    assert sorted(meter.counted) == sorted([costs["a"], costs["b"]])
    assert [found[name].rank for name in "abc"] == [2, 1, 3]
    assert [found[name].tie_rule for name in "abc"] == ["cpu", "instructions", None]
    assert [found[name].instructions for name in "abc"] == [1000, 900, None]


def test_instructions_are_not_counted_unless_asked_for_or_when_it_takes_minutes():
    costs = {"a": invented.source(0.0100, instructions=1000, memory=10**7),
             "b": invented.source(0.0102, instructions=900)}  # fmt: skip
    meter = invented.InventedMeter()
    _, found = run_race(costs, meter=meter, options=RaceOptions(instructions="never"))
    assert not meter.counted
    assert (found["b"].rank, found["b"].tie_rule) == (1, "tmu")
    slow = {name: invented.source(0.6, instructions=1, name=name) for name in "ab"}
    run_race(slow, meter=meter)
    assert not meter.counted


def test_what_noise_leaves_in_doubt_is_decided_by_instructions():
    noisy = invented.InventedMeter()
    costs = {
        "less": invented.source(0.0100, noise=0.3, instructions=1000),
        "more": invented.source(0.0105, noise=0.3, instructions=1050),
    }
    for trial in range(10):
        options = RaceOptions(seed=trial)
        _, found = run_race(costs, meter=noisy, options=options)
        assert found["less"].rank == 1
    apart = {**costs, "more": invented.source(0.0130, noise=0.3, instructions=10)}
    _, found = run_race(apart)
    assert found["less"].rank == 1  # 30 % are not in doubt, whatever is counted


def standing(name, et, *, tmu=100.0, instructions=None, chars=10, sha="0"):
    return Standing(name, et, tmu, instructions, chars, sha)


@pytest.mark.parametrize(
    ("group", "rule"),
    [
        ([standing("w", 1.00), standing("x", 1.04, tmu=1.0)], "cpu"),
        ([standing("x", 1.0, instructions=1000), standing("w", 1.03, instructions=990)],
         "instructions"),
        ([standing("x", 1.0, instructions=1000), standing("w", 1.02, instructions=995, tmu=90)],
         "tmu"),
        ([standing("x", 1.0, instructions=1000), standing("w", 1.02, tmu=96.0)], "tmu"),
        ([standing("x", 1.0, tmu=98, chars=11), standing("w", 1.0, chars=9)], "length"),
        ([standing("x", 1.0, sha="b"), standing("w", 1.02, sha="a")], "hash"),
        ([standing("x", 1.0, instructions=1000), standing("w", 1.0, instructions=900, tmu=103),
          standing("y", 1.0, instructions=899, tmu=110)], "tmu"),
    ],
    ids=["apart", "instructions", "counts too near", "one uncounted", "length", "hash", "of three"],
)  # fmt: skip
def test_ties_are_broken_in_turn(group, rule):
    for order in (group, group[::-1]):
        places = rank(order)
        assert places[0] == Place("w", rule)
        assert places[-1].rule is None


def test_places_do_not_depend_on_the_order_given():
    chance = random.Random(3)
    group = [
        standing(f"{i}", chance.uniform(1, 1.2), tmu=chance.uniform(90, 110), chars=i % 3)
        for i in range(12)
    ]
    places = rank(group)
    assert sorted(place.name for place in places) == sorted(one.name for one in group)
    for _ in range(20):
        assert rank(chance.sample(group, len(group))) == places
    # Nobody stands before somebody whose time is more than 3 % less.
    et = {one.name: one.et_seconds for one in group}
    for index, place in enumerate(places):
        later = [et[after.name] for after in places[index + 1 :]]
        assert all(et[place.name] <= 1.03 * seconds for seconds in later)
