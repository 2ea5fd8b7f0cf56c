"""Two authors compared: ratios, tests and means against plain arithmetic and enumeration."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
from made_measurements import HOST, Made, MadeTask, candidates_of, make, reference

from codeact.efficiency.comparing.comparison import compare_efficiency, compare_origins
from codeact.errors import InputError

A = [0.010, 0.020, 0.030, 0.040, 0.055, 0.008, 0.070]
B = [0.012, 0.019, 0.045, 0.050, 0.056, 0.009, 0.090]
R = [0.020, 0.020, 0.030, 0.045, 0.040, 0.010, 0.060]


def by(letter: str, cpu: float, name: str = "", rounds: int = 3, **options) -> Made:
    return Made(name or letter, [cpu * (1 + 0.01 * i) for i in range(rounds)], **options)


def tasks(with_a=True, with_b=True, slower: float = 1.0) -> list[MadeTask]:
    """Seven tasks that both solve; ``slower`` is how much slower the machine was."""
    found = []
    for index, (a, b, r) in enumerate(zip(A, B, R, strict=True)):
        contestants = [reference(r * slower, 1.01 * r * slower)]
        if with_a:
            contestants.append(by("a", a * slower, origin="A", memory=10_000_000))
        if with_b:
            contestants.append(by("b", b * slower, origin="B", memory=12_000_000))
        found.append(MadeTask(f"t{index}", contestants))
    return found


def sign_test(better: int, worse: int) -> float:
    n, low = better + worse, min(better, worse)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(low + 1)) / 2**n)


def signed_rank_test(differences: list[float]) -> float:
    """All sign patterns of the ranks; no ties among these differences."""
    order = sorted(differences, key=abs)
    ranks = range(1, len(order) + 1)
    seen = sum(rank for rank, x in zip(ranks, order, strict=True) if x > 0)
    middle = sum(ranks) / 2
    sums = [
        sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign)
        for signs in itertools.product([0, 1], repeat=len(order))
    ]
    return sum(abs(s - middle) >= abs(seen - middle) for s in sums) / len(sums)


def test_authors_of_one_measurement():
    found = compare_origins(make(tasks()), "A", "B")
    logs = [math.log(a / b) for a, b in zip(A, B, strict=True)]
    et = found.et
    assert et.ratio.value == pytest.approx(math.exp(statistics.fmean(logs)), rel=1e-9)
    assert et.ratio.low < et.ratio.value < et.ratio.high < 1
    assert (et.mean_a, et.mean_b) == (
        pytest.approx(statistics.fmean(A)),
        pytest.approx(statistics.fmean(B)),
    )
    assert (et.num_better, et.num_worse) == (6, 1)
    assert et.sign_p_value == pytest.approx(sign_test(6, 1))
    assert et.wilcoxon_p_value == pytest.approx(signed_rank_test(logs))
    assert et.normalised_a is not None
    assert et.normalised_b is not None
    assert et.normalised_a.ratio_of_sums.value == pytest.approx(sum(A) / sum(R))
    ratios = [b / r for b, r in zip(B, R, strict=True)]
    assert et.normalised_b.mean_of_ratios.value == pytest.approx(statistics.fmean(ratios))
    assert found.mu.ratio.value == pytest.approx(10 / 12)
    assert found.tmu.ratio.value == pytest.approx(10 / 12 * et.ratio.value)
    assert found.same_run
    assert (found.num_tasks, found.num_both_solved, found.num_compared) == (7, 7, 7)
    # Six of seven better is not enough for the sign test, and so for nobody.
    assert found.et.sign_p_value > 0.05
    assert found.verdict().startswith("no significant difference between A and B")


def test_exchanging_the_authors_gives_the_reciprocal():
    measurements = make(tasks())
    there = compare_origins(measurements, "A", "B").et
    back = compare_origins(measurements, "B", "A").et
    assert there.ratio.value == pytest.approx(1 / back.ratio.value, rel=1e-12)
    assert there.sign_p_value == back.sign_p_value
    assert there.wilcoxon_p_value == pytest.approx(back.wilcoxon_p_value)


def test_a_clear_winner_is_named():
    clear = [
        MadeTask(f"t{i}", [by("a", 0.01 + i / 1e4, origin="A"), by("b", 0.02, origin="B")])
        for i in range(8)
    ]
    found = compare_origins(make(clear), "A", "B")
    assert found.et.significant
    assert found.verdict().startswith("A is more efficient than B (0.5")
    assert found.et.sign_p_value == pytest.approx(2 / 2**8)
    assert compare_origins(make(clear), "B", "A").verdict().startswith("B is less efficient than A")
    # There is no reference here: nothing to normalise by, and that is said.
    assert found.et.normalised_a is None


def test_equal_authors_differ_in_nothing():
    same = [
        MadeTask(f"t{i}", [by("a", 0.01, origin="A"), by("b", 0.01, origin="B")]) for i in range(9)
    ]
    found = compare_origins(make(same), "A", "B")
    assert found.et.ratio.value == pytest.approx(1.0)
    assert (found.et.sign_p_value, found.et.wilcoxon_p_value) == (1.0, 1.0)


def test_noise_alone_is_seldom_called_a_difference():
    rng = np.random.default_rng(2)
    called = 0
    for _ in range(60):
        noisy = [
            MadeTask(
                f"t{i}",
                [by("a", 0.01 * x, origin="A", rounds=1), by("b", 0.01 * y, origin="B", rounds=1)],
            )
            for i, (x, y) in enumerate(np.exp(rng.normal(0, 0.1, size=(15, 2))))
        ]
        called += compare_origins(make(noisy), "A", "B", num_resamples=200).et.significant
    assert called <= 7  # at most 5 % are expected; 8 of 60 have a probability below 1 %


def test_only_what_both_solve_counts_and_pass_rates_count_all():
    more = [
        *tasks(),
        MadeTask("a fails", [by("a", 0, origin="A", status="raised"), by("b", 9, origin="B")]),
        MadeTask("b fails", [by("a", 9, origin="A"), by("b", 0, origin="B", status="raised")]),
        MadeTask("b fails too", [by("a", 9, origin="A"), Made("b", origin="B", status="unsafe")]),
        MadeTask("short", [by("a", 9, origin="A"), by("b", 1, origin="B")], too_short=True),
        MadeTask("a alone", [by("a", 9, origin="A")]),
    ]
    found = compare_origins(make(more), "A", "B")
    assert (found.num_tasks, found.num_both_solved, found.num_compared) == (11, 8, 7)
    assert found.overlap == pytest.approx(8 / 11)
    assert found.pass_at_1_a == pytest.approx(10 / 11)
    assert found.pass_at_1_b == pytest.approx(9 / 11)
    assert found.et.ratio == compare_origins(make(tasks()), "A", "B").et.ratio


def test_several_answers_are_their_geometric_mean_and_copies_count():
    several = [
        MadeTask(
            "t",
            [
                by("a", 0.010, "a1", origin="A"),
                by("a", 0.040, "a2", origin="A"),
                by("a", 0, "a3", origin="A", status="wrong_answer"),
                by("b", 0.020, origin="B"),
            ],
        )
    ]
    measurements = make(several)
    found = compare_origins(measurements, "A", "B")
    assert found.et.mean_a == pytest.approx(0.020)
    assert found.pass_at_1_a == pytest.approx(2 / 3)
    copied = [replace(c, copies=3) if c.id == "a1" else c for c in candidates_of(several)]
    found = compare_origins(measurements, "A", "B", candidates=copied)
    assert found.et.mean_a == pytest.approx((0.010**3 * 0.040) ** 0.25)
    assert found.pass_at_1_a == pytest.approx(4 / 5)


def test_rounds_that_only_one_ran_do_not_count():
    lucky = Made("a", [0.010, 0.010, 0.010, 0.010, 0.005], origin="A")
    dropped = Made("b", [0.020, 0.020, 0.020], origin="B")
    found = compare_origins(make([MadeTask("t", [lucky, dropped])]), "A", "B")
    assert found.et.ratio.value == pytest.approx(0.5)


def test_two_measurements_cancel_a_slower_machine():
    a, b = make(tasks(with_b=False)), make(tasks(with_a=False, slower=1.3))
    apart = compare_efficiency(a, b)
    together = compare_origins(make(tasks()), "A", "B")
    assert apart.et.ratio.value == pytest.approx(together.et.ratio.value, rel=1e-9)
    assert apart.et.sign_p_value == together.et.sign_p_value
    assert apart.et.mean_b == pytest.approx(1.3 * together.et.mean_b)
    assert (apart.name_a, apart.name_b, apart.same_run) == ("A", "B", False)


def test_without_a_reference_in_both_nothing_ties_two_measurements():
    a, b = tasks(with_b=False), tasks(with_a=False)
    del b[0].contestants[0]
    b[1].contestants[0].status = "wrong_answer"
    found = compare_efficiency(make(a), make(b))
    assert (found.num_both_solved, found.num_compared) == (7, 5)


def test_a_model_beside_the_reference():
    found = compare_origins(make(tasks()), "A", "reference")
    logs = [math.log(a / r) for a, r in zip(A, R, strict=True)]
    assert found.et.ratio.value == pytest.approx(math.exp(statistics.fmean(logs)))
    assert found.et.normalised_b is not None
    assert found.et.normalised_b.largest == pytest.approx(1.0)


ONLY_A_SOLVES = MadeTask("t", [by("a", 1, origin="A"), Made("b", origin="B", status="raised")])
OTHER = replace(HOST, cpu_model="Another CPU", kernel="6.2")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: compare_efficiency(make(tasks(with_b=False)), make(tasks(with_a=False), OTHER)),
            "one host, got cpu_model 'Some CPU' and 'Another CPU'; kernel '6.1' and '6.2'",
        ),
        (
            lambda: compare_efficiency(
                make(tasks(with_b=False)),
                make(tasks(with_a=False), replace(HOST, tools={"c": "13", "go": "1.19"})),
            ),
            "one host, got c '12' and '13'",
        ),
        (lambda: compare_efficiency(make(tasks()), make(tasks())), "named.*got A, B"),
        (lambda: compare_origins(make(tasks()), "A", "C"), "one of reference, A, B, got 'C'"),
        (lambda: compare_origins(make(tasks()), "A", "A"), "must differ, got 'A' twice"),
        (
            lambda: compare_origins(make([ONLY_A_SOLVES]), "A", "B"),
            "got none: 1 answered by both, 0 solved by both",
        ),
    ],
    ids=["hosts", "tools", "unnamed", "unknown", "one", "nothing"],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(call, said):
    with pytest.raises(InputError, match=said):
        call()


def test_other_tasks_under_the_same_names_are_refused():
    b = tasks(with_a=False)
    b[2].contestants[0].source = "def f(x):\n    return 0 + x"
    with pytest.raises(InputError, match="task 't2' has another reference"):
        compare_efficiency(make(tasks(with_b=False)), make(b))


def test_tools_that_only_one_used_do_not_matter():
    other = make(tasks(with_a=False), replace(HOST, tools={"go": "1.19"}))
    assert compare_efficiency(make(tasks(with_b=False)), other).num_compared == 7
