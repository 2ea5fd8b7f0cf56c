"""Two authors' answers on the tasks that both solve: who needs less time and memory, how surely.

EffiCoder compares a model and its fine-tuned twin on the tasks that both solve
(arXiv:2410.10209), by means of single runs and without a test. Here a task is a pair, and the
headline is a geometric mean of ratios with an interval and two tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from codeact.efficiency.comparing.efficiency_comparison import (
    EfficiencyComparison,
    MetricComparison,
)
from codeact.efficiency.comparing.metrics import (
    Estimate,
    check_resampling,
    mean_over_tasks,
    normalised,
)
from codeact.efficiency.comparing.solved import Author, Solved, author_of, both_solve
from codeact.efficiency.racing.host import Host
from codeact.efficiency.racing.measurements import Measurements
from codeact.errors import InputError

if TYPE_CHECKING:
    from codeact.efficiency.inputs.candidates import Candidate

METRICS = ("et_seconds", "mu_bytes", "tmu_byte_seconds")  # the fields of Metrics, in order


def compare_origins(
    measurements: Measurements,
    origin_a: str,
    origin_b: str,
    *,
    candidates: Sequence[Candidate] = (),
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> EfficiencyComparison:
    """Two origins of one measurement, whose answers raced each other; one may be the reference.

    An author's several correct answers to a task count as their geometric mean.

    Args:
        measurements: Of candidates of both origins.
        origin_a: Author of a.
        origin_b: Author of b.
        candidates: What was measured: rows with the same text were dropped as copies, and with
            their number each counts as often as it was sampled. Each counts once without.
        confidence: Of the intervals, in (0, 1).
        num_resamples: Bootstrap draws over tasks.
        seed: Of the draws.

    Raises:
        InputError: An origin is unknown, both are one, or there is no task to compare.
    """
    if origin_a == origin_b:
        raise InputError(f"origin_a and origin_b must differ, got {origin_a!r} twice")
    a, b = (author_of(measurements, origin, candidates) for origin in (origin_a, origin_b))
    return _compare(a, b, True, confidence, num_resamples, seed)


def compare_efficiency(
    measurements_a: Measurements,
    measurements_b: Measurements,
    *,
    origin_a: str | None = None,
    origin_b: str | None = None,
    candidates: Sequence[Candidate] = (),
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> EfficiencyComparison:
    """Two measurements of one set of tasks on one host, each author beside its references.

    The machine may have been slower during one of them, so only tasks whose reference was ranked
    in both are compared, and every ratio is one of values relative to the reference. Candidates of
    both in one measurement, and :func:`compare_origins`, is the sharper comparison.

    Args:
        measurements_a: Of a's answers.
        measurements_b: Of b's answers.
        origin_a: Author of a; by default the only one besides the reference.
        origin_b: Author of b.
        candidates: Of both; see :func:`compare_origins`, also for the other options.

    Raises:
        InputError: The hosts or the tasks differ, an origin is unknown or has to be named, or
            there is no task to compare.
    """
    _check_hosts(measurements_a.host, measurements_b.host)
    a = author_of(measurements_a, origin_a, candidates)
    b = author_of(measurements_b, origin_b, candidates)
    for key in a.references.keys() & b.references.keys():
        one, other = a.references[key], b.references[key]
        if (one.source_sha256, one.num_tests) != (other.source_sha256, other.num_tests):
            raise InputError(
                f"both measurements must be of the same tasks, task {key[0]!r} has another "
                "reference or another number of tests in each"
            )
    return _compare(a, b, False, confidence, num_resamples, seed)


def _compare(
    a: Author, b: Author, same_run: bool, confidence: float, num_resamples: int, seed: int
) -> EfficiencyComparison:
    check_resampling(confidence, num_resamples)
    shared = [key for key in a.answers if key in b.answers]
    both = [key for key in shared if a.solves(key) and b.solves(key)]
    solved = both_solve(a, b, both, same_run=same_run)
    if not solved:
        raise InputError(
            f"{a.name} and {b.name} must both solve a task whose race was ranked, got none: "
            f"{len(shared)} answered by both, {len(both)} solved by both"
        )
    resampling = {"confidence": confidence, "num_resamples": num_resamples, "seed": seed}
    found = [_metric(index, solved, same_run, resampling) for index in range(len(METRICS))]
    return EfficiencyComparison(
        name_a=a.name,
        name_b=b.name,
        num_tasks=len(shared),
        num_both_solved=len(both),
        num_compared=len(solved),
        overlap=len(both) / len(shared),
        pass_at_1_a=a.pass_at_1(shared),
        pass_at_1_b=b.pass_at_1(shared),
        same_run=same_run,
        et=found[0],
        mu=found[1],
        tmu=found[2],
    )


def _metric(
    index: int, solved: Sequence[Solved], same_run: bool, resampling: dict[str, Any]
) -> MetricComparison:
    from scipy.stats import binomtest, wilcoxon

    x = np.array([one.a[index] for one in solved])
    y = np.array([one.b[index] for one in solved])
    beside = [
        (one.reference_a[index], one.reference_b[index])
        if one.reference_a is not None and one.reference_b is not None
        else (np.nan, np.nan)
        for one in solved
    ]
    r, s = np.array(beside).T
    known = ~np.isnan(r)
    relative = (x, y) if same_run else (x / r, y / s)
    logs = np.log(relative[0] / relative[1])
    better, worse = int((logs < 0).sum()), int((logs > 0).sum())
    differ = better + worse > 0
    mean = mean_over_tasks(logs, **resampling)
    return MetricComparison(
        metric=METRICS[index],
        mean_a=float(x.mean()),
        mean_b=float(y.mean()),
        ratio=Estimate(*(math.exp(end) for end in (mean.value, mean.low, mean.high))),
        num_better=better,
        num_worse=worse,
        sign_p_value=float(binomtest(better, better + worse).pvalue) if differ else 1.0,
        wilcoxon_p_value=float(wilcoxon(logs).pvalue) if differ else 1.0,
        normalised_a=normalised(x[known], r[known], **resampling) if known.any() else None,
        normalised_b=normalised(y[known], s[known], **resampling) if known.any() else None,
        confidence=resampling["confidence"],
    )


def _check_hosts(a: Host, b: Host) -> None:
    """InputError naming what differs; of tools, those that both measurements used count."""
    differing = [
        f"{item.name} {getattr(a, item.name)!r} and {getattr(b, item.name)!r}"
        for item in fields(Host)
        if item.name != "tools" and getattr(a, item.name) != getattr(b, item.name)
    ]
    differing += [
        f"{name} {a.tools[name]!r} and {b.tools[name]!r}"
        for name in a.tools.keys() & b.tools.keys()
        if a.tools[name] != b.tools[name]
    ]
    if differing:
        raise InputError(
            f"both measurements must come from one host, got {'; '.join(sorted(differing))}: "
            "measure the candidates of both in one call"
        )
