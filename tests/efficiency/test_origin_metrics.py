"""One author's figures from measurements, each against its formula written out for four tasks."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import replace

import pytest
from made_measurements import Made, MadeTask, candidates_of, make, reference

from codeact.efficiency.comparing.origin_metrics import origin_metrics
from codeact.errors import InputError

INF = float("inf")


def samples(*cpu: float, origin: str = "M") -> list[Made]:
    """Answers of one author; infinity is a wrong one."""
    return [
        Made(f"{origin}{i}", [x], origin=origin)
        if x < INF
        else Made(f"{origin}{i}", origin=origin, status="wrong_answer")
        for i, x in enumerate(cpu)
    ]


TIMES = {
    "a": [0.02, 0.05, INF],
    "b": [0.02, INF, INF],
    "c": [INF, INF, INF],
    "d": [0.01, 0.03, 0.09],
}
OTHERS = {"a": [0.03, 0.0305], "b": [], "c": [0.04], "d": [0.02]}
REFERENCES = {"a": 0.04, "b": 0.02, "c": 0.05, "d": 0.03}
TASKS = [
    MadeTask(
        name,
        [
            reference(REFERENCES[name]),
            *samples(*TIMES[name]),
            *samples(*OTHERS[name], origin="N"),
        ],
    )
    for name in TIMES
]
BROKEN = Made("reference", origin="reference", status="raised")
NOT_COUNTED = [
    MadeTask("short", [reference(0.1), *samples(0.1, 0.1, 0.1)], too_short=True),
    MadeTask("reference fails", [BROKEN, *samples(1, 1, 1)]),
    MadeTask("only the other", [reference(0.1), *samples(0.1, origin="N")]),
]


def of(metric) -> float:
    """Mean over the four tasks of a function of (times, reference, other correct answers)."""
    return statistics.fmean(
        metric(TIMES[name], REFERENCES[name], [REFERENCES[name], *OTHERS[name]]) for name in TIMES
    )


def best_of(k: int, score):
    def metric(times, reference, _):
        subsets = itertools.combinations([score(t, reference) for t in times], k)
        return statistics.fmean(max(subset) for subset in subsets)

    return metric


@pytest.fixture(scope="module")
def found():
    return origin_metrics(make([*TASKS, *NOT_COUNTED]), "M", k=(1, 2, 3), num_resamples=300)


def test_which_tasks_count(found):
    assert (found.origin, found.num_tasks, found.num_solved) == ("M", 4, 3)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_at_k(found, k):
    def enamel(t, r):
        return 0.0 if t >= 2 * r else (2 * r - t) / r

    assert found.pass_at_k[k].value == pytest.approx(of(best_of(k, lambda t, _: t < INF)))
    assert found.eff_at_k[k].value == pytest.approx(of(best_of(k, enamel)))
    assert found.efficient_at_k[k].value == pytest.approx(of(best_of(k, lambda t, r: t < r)))


def test_against_the_other_answers(found):
    def mercury(times, _, others):
        low, high = min(others), max(others)
        if low == high:
            return statistics.fmean(float(t <= low) for t in times)
        return statistics.fmean((high - min(max(t, low), high)) / (high - low) for t in times)

    # Task c: the other answer passes, so that all of M's wrong ones count 0.
    assert found.beyond.value == pytest.approx(of(mercury))
    # Clusters (slowest of each): a {0.0305, 0.04} of 2 and 1, b {0.02}, d {0.02, 0.03}.
    dps = statistics.fmean([(100 + 0) / 2, 100, (100 + 50 + 0) / 3])
    assert found.dps.value == pytest.approx(dps)
    assert found.dps_norm.value == pytest.approx(dps)


def test_clusters_weigh_in_dps_and_not_in_dps_norm():
    tasks = [MadeTask("a", [reference(0.05), *samples(0.04), *samples(0.03, 0.0305, origin="N")])]
    found = origin_metrics(make(tasks), "M", num_resamples=10)
    assert found.dps.value == pytest.approx(100 / 3)
    assert found.dps_norm.value == pytest.approx(50)


def test_against_the_reference(found):
    assert found.speedup.value == pytest.approx(of(best_of(1, lambda t, r: max(1, r / t))))
    assert found.optimised.value == pytest.approx(of(best_of(1, lambda t, r: r / t >= 1.1)))
    assert found.clipped_ratio.value == pytest.approx(of(best_of(1, lambda t, r: min(1, r / t))))
    own = [statistics.geometric_mean(t for t in TIMES[name] if t < INF) for name in "abd"]
    truth = [REFERENCES[name] for name in "abd"]
    assert found.means.et_seconds == pytest.approx(statistics.fmean(own))
    assert found.net.ratio_of_sums.value == pytest.approx(sum(own) / sum(truth))
    assert found.nmu.geometric_mean.value == pytest.approx(1.0)
    assert found.ntmu.mean_of_ratios.value == pytest.approx(found.net.mean_of_ratios.value)


def test_copies_are_samples():
    copied = [replace(one, copies=4) if one.id == "M0" else one for one in candidates_of(TASKS)]
    found = origin_metrics(make(TASKS), "M", candidates=copied, num_resamples=10)
    assert found.pass_at_k[1].value == pytest.approx(statistics.fmean([5 / 6, 4 / 6, 0, 1]))


def test_what_cannot_be_evaluated_is_refused():
    with pytest.raises(InputError, match="k must be from 1 to the number of samples"):
        origin_metrics(make(TASKS), "M", k=(4,))
    with pytest.raises(InputError, match="got none"):
        origin_metrics(make(NOT_COUNTED[:2]))
    with pytest.raises(InputError, match="must be named"):
        origin_metrics(make(TASKS))


def test_nothing_solved_is_a_result():
    tasks = [MadeTask("a", [reference(0.05), *samples(INF)])]
    found = origin_metrics(make(tasks), num_resamples=10)
    assert found.to_row()["net"] is None
    assert (found.eff_at_k[1].value, found.speedup.value, found.dps) == (0.0, 1.0, None)
