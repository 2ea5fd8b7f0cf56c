"""Raw samples of contestants of one race, made comparable: net of the baseline, round by round.

Slow contestants may do fewer repetitions a run than fast ones and run fewer rounds, so gross times
of one task are not always times of the same work, nor minima of equally many runs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from codeact.efficiency.racing.measurements import MeasuredCandidate


class Metrics(NamedTuple):
    """ET in seconds and TMU in byte-seconds, net and for all tests once; MU in bytes, gross."""

    et_seconds: float
    mu_bytes: float
    tmu_byte_seconds: float


def net_cpu_seconds(record: MeasuredCandidate) -> dict[int, float]:
    """CPU time of each round for all tests once: (run - smallest baseline run) / repeats.

    The minimum of these over rounds is the record's ``et_seconds``. Empty if it was not raced.
    """
    if not record.samples or record.repeats < 1:
        return {}
    start = min((sample.cpu_seconds for sample in record.baseline), default=0.0)
    return {one.round: (one.cpu_seconds - start) / record.repeats for one in record.samples}


def shared_rounds(records: Sequence[MeasuredCandidate]) -> set[int]:
    """The rounds that all of these ran."""
    rounds = [{sample.round for sample in record.samples} for record in records]
    return set.intersection(*rounds) if rounds else set()


def metrics_of_rounds(record: MeasuredCandidate, rounds: Collection[int]) -> Metrics:
    """ET, MU and TMU from these rounds alone; with all its rounds they are the record's.

    A minimum over more rounds is lower, so a contestant that was dropped after three rounds looks
    slower than it is beside one that ran nine: compare over :func:`shared_rounds`.
    """
    samples = [sample for sample in record.samples if sample.round in rounds]
    if not samples or record.repeats < 1:
        raise ValueError(
            f"task {record.task_id}, candidate {record.candidate_id} ran none of the rounds "
            f"{sorted(rounds)}"
        )
    cpu = net_cpu_seconds(record)
    start = min((sample.memory_byte_seconds for sample in record.baseline), default=0.0)
    area = min(sample.memory_byte_seconds for sample in samples)
    return Metrics(
        min(cpu[sample.round] for sample in samples),
        min(sample.peak_memory_bytes for sample in samples),
        (area - start) / record.repeats,
    )


def relative_metrics(record: MeasuredCandidate, best: MeasuredCandidate) -> Metrics:
    """ET, MU and TMU of one contestant / another's, over the rounds that both ran."""
    rounds = shared_rounds([record, best])
    pairs = zip(metrics_of_rounds(record, rounds), metrics_of_rounds(best, rounds), strict=True)
    return Metrics(*(own / other for own, other in pairs))


def rounds_won(record: MeasuredCandidate, rival: MeasuredCandidate) -> float | None:
    """Share of the rounds that both ran in which ``record`` used less CPU time; a tie is half one.

    None if they share no round.
    """
    own, other = net_cpu_seconds(record), net_cpu_seconds(rival)
    shared = own.keys() & other.keys()
    if not shared:
        return None
    won = sum(1.0 if own[i] < other[i] else 0.5 if own[i] == other[i] else 0.0 for i in shared)
    return won / len(shared)


def separated(fast: MeasuredCandidate, slow: MeasuredCandidate) -> bool:
    """Whether every run of ``fast`` used less CPU time than every run of ``slow``."""
    own, other = net_cpu_seconds(fast), net_cpu_seconds(slow)
    return bool(own and other) and max(own.values()) < min(other.values())
