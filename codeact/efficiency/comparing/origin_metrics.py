"""One author's answers by the metrics of the efficiency benchmarks, from measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codeact.efficiency.comparing.benchmark_metrics import (
    beyond,
    clipped_ratio,
    differential_performance,
    efficiency_score,
    expected_best,
    is_optimised,
    speedup,
)
from codeact.efficiency.comparing.metrics import Estimate, Normalised, mean_over_tasks, normalised
from codeact.efficiency.comparing.net_samples import Metrics, metrics_of_rounds, shared_rounds
from codeact.efficiency.comparing.solved import Author, author_of
from codeact.efficiency.instruct.choose import by_race, contestants
from codeact.efficiency.racing.measurements import REFERENCE, MeasuredCandidate, Measurements
from codeact.efficiency.racing.ranking import TIE
from codeact.errors import InputError

if TYPE_CHECKING:
    from codeact.efficiency.inputs.candidates import Candidate

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OriginMetrics:
    """Efficiency of one author; intervals are bootstraps over tasks.

    A sample's time is its ET; a wrong one's is infinite. ``num_tasks`` counts the tasks, by
    language, that the author answered and whose solution by the task itself passes, but not those
    too short to rank. Where a metric is None no task has what it needs.

    Attributes:
        origin: The author.
        num_tasks: Tasks counted.
        num_solved: Those with a correct answer.
        pass_at_k: By k (arXiv:2107.03374).
        eff_at_k: By k: ENAMEL's, one level, limit twice the reference's time (arXiv:2406.06647).
        efficient_at_k: By k: COFFE's, the reference as the best truth (arXiv:2502.02827).
        beyond: Mercury's Beyond, its human solutions being the reference and all other authors'
            correct answers to the task (arXiv:2402.07844).
        dps: EvalPerf's DPS over solved tasks, in percent; the same solutions are the references,
            clustered where their ET lies within 3 % (arXiv:2408.06450).
        dps_norm: The same for DPS_norm.
        optimised: PIE's %Opt against the reference, as a share (arXiv:2302.07867).
        speedup: PIE's speed-up against the reference, never below 1.
        clipped_ratio: EffiBench-X's score of execution time.
        means: ET, MU and TMU, averaged over the solved tasks.
        net: NET over the solved tasks.
        nmu: NMU.
        ntmu: NTMU.
    """

    origin: str
    num_tasks: int
    num_solved: int
    pass_at_k: Mapping[int, Estimate]
    eff_at_k: Mapping[int, Estimate]
    efficient_at_k: Mapping[int, Estimate]
    beyond: Estimate
    dps: Estimate | None
    dps_norm: Estimate | None
    optimised: Estimate
    speedup: Estimate
    clipped_ratio: Estimate
    means: Metrics | None
    net: Normalised | None
    nmu: Normalised | None
    ntmu: Normalised | None

    def to_row(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self) | {"means": self.means and self.means._asdict()}


@dataclass(frozen=True)
class _Task:
    """Times of one task's samples, and what they are set against.

    Where no sample passes there was no race, so that the reference has no time. Any will do: an
    infinite time scores the same beside each.
    """

    times: Floats
    reference: float = 1.0
    others: tuple[float, ...] = (1.0,)
    own: Metrics | None = None
    beside: Metrics | None = None


def origin_metrics(
    measurements: Measurements,
    origin: str | None = None,
    *,
    k: Sequence[int] = (1,),
    candidates: Sequence[Candidate] = (),
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> OriginMetrics:
    """The efficiency of one author's answers beside the tasks' own solutions.

    Args:
        measurements: Of one call of ``measure``.
        origin: The author; by default the only one besides the reference.
        k: Samples to draw for the metrics "at k".
        candidates: What was measured, for the number of copies of each.
        confidence: Of the intervals.
        num_resamples: Bootstrap draws over tasks.
        seed: Of the draws.

    Raises:
        InputError: The origin is unknown or has to be named, a task has fewer than k samples, or
            there is no task with a passing reference.
    """
    author = author_of(measurements, origin, candidates)
    tasks = list(_tasks(measurements, author))
    if not tasks:
        raise InputError(
            f"{author.name} must answer a task whose reference passes and is ranked, got none"
        )
    resampling = {"confidence": confidence, "num_resamples": num_resamples, "seed": seed}
    mean = _Mean(tasks, resampling)
    solved = [task for task in tasks if task.own is not None]
    dps = [_Mean(solved, resampling).of_tasks(_dps(i)) if solved else None for i in range(2)]
    relative = [_relative(solved, index, resampling) for index in range(3)]
    return OriginMetrics(
        origin=author.name,
        num_tasks=len(tasks),
        num_solved=len(solved),
        pass_at_k=mean.at(k, lambda time, _: float(np.isfinite(time))),
        eff_at_k=mean.at(k, lambda time, reference: efficiency_score([time], [reference])),
        efficient_at_k=mean.at(k, lambda time, reference: float(time < reference)),
        beyond=mean.of_tasks(lambda task: float(beyond(task.times, task.others).mean())),
        dps=dps[0],
        dps_norm=dps[1],
        optimised=mean.of_samples(is_optimised),
        speedup=mean.of_samples(speedup),
        clipped_ratio=mean.of_samples(clipped_ratio),
        means=_means(solved),
        net=relative[0],
        nmu=relative[1],
        ntmu=relative[2],
    )


class _Mean:
    """Means over tasks with intervals, all from the same resamples."""

    def __init__(self, tasks: Sequence[_Task], resampling: Mapping[str, Any]) -> None:
        self.tasks, self.resampling = tasks, resampling

    def of_tasks(self, score: Callable[[_Task], float]) -> Estimate:
        return mean_over_tasks([score(task) for task in self.tasks], **self.resampling)

    def of_samples(self, score: Callable[[float, float], float]) -> Estimate:
        """Of the mean over a task's samples of a score of time and reference's time."""
        return self.at([1], score)[1]

    def at(
        self, sizes: Sequence[int], score: Callable[[float, float], float]
    ) -> dict[int, Estimate]:
        """Of the expected best of that many samples."""
        scores = [[score(time, task.reference) for time in task.times] for task in self.tasks]
        return {
            size: mean_over_tasks([expected_best(row, size) for row in scores], **self.resampling)
            for size in sizes
        }


def _tasks(measurements: Measurements, author: Author) -> Iterator[_Task]:
    """The tasks that count, in the order of races."""
    groups = by_race(measurements)
    for race in measurements.tasks:
        key = race.task_id, race.language
        records = groups.get(key, [])
        references = [one for one in records if one.origin == REFERENCE and one.passed]
        if key not in author.answers or not references:
            continue
        if not author.solves(key):
            yield _Task(_times(author, author.answers[key], {}))
            continue
        task = _raced(author, author.answers[key], contestants(records))
        if task is not None:
            yield task


def _raced(
    author: Author, answers: Sequence[MeasuredCandidate], ranked: Sequence[MeasuredCandidate]
) -> _Task | None:
    """A solved task; None where the author's answers or the reference were not ranked."""
    own = [record for record in ranked if record.origin == author.name]
    beside = [record for record in ranked if record.origin == REFERENCE]
    if not own or not beside:
        return None
    rounds = shared_rounds(ranked)
    ets = {one.candidate_id: metrics_of_rounds(one, rounds).et_seconds for one in ranked}
    return _Task(
        _times(author, answers, ets),
        ets[beside[0].candidate_id],
        tuple(
            ets[one.candidate_id] for one in ranked if one.origin != author.name or one in beside
        ),
        author.metrics(own, rounds),
        metrics_of_rounds(beside[0], rounds),
    )


def _times(
    author: Author, answers: Sequence[MeasuredCandidate], ets: Mapping[str, float]
) -> Floats:
    """One time a sample: the ET of its text, infinite for one that failed."""
    times = [ets.get(record.candidate_id, np.inf) for record in answers]
    return np.repeat(times, [author.weight(record) for record in answers])


def _dps(index: int) -> Callable[[_Task], float]:
    """Mean over a task's correct samples of DPS (0) or DPS_norm (1)."""

    def score(task: _Task) -> float:
        clusters: list[list[float]] = []
        for time in sorted(task.others):
            if clusters and time <= clusters[-1][0] * TIE:
                clusters[-1].append(time)
            else:
                clusters.append([time])
        costs, sizes = [one[-1] for one in clusters], [len(one) for one in clusters]
        correct = task.times[np.isfinite(task.times)]
        found = [differential_performance(time, costs, sizes)[index] for time in correct]
        return float(np.mean(found))

    return score


def _means(solved: Sequence[_Task]) -> Metrics | None:
    """ET, MU and TMU averaged over solved tasks."""
    rows = [task.own for task in solved if task.own is not None]
    return Metrics(*np.mean(rows, axis=0).tolist()) if rows else None


def _relative(
    solved: Sequence[_Task], index: int, resampling: Mapping[str, Any]
) -> Normalised | None:
    """NET, NMU or NTMU."""
    both = [(task.own[index], task.beside[index]) for task in solved if task.own and task.beside]
    if not both:
        return None
    own, beside = zip(*both, strict=True)
    return normalised(own, beside, **resampling)
