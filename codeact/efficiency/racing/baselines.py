"""What a run costs without the candidate, and how often to repeat its work to see the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from codeact.efficiency.racing.measurements import Sample

MIN_NET_SECONDS = 0.02  # below this start-up noise (0.3 to 0.5 ms) decides the order
MAX_REPEATS = 1000
MAX_RUN_SECONDS = 1.0  # a run is not made longer than this to reach the target
MAX_SLOW_SECONDS = 0.25  # nor that of a contestant that is far behind anyway
_SETUP_SECONDS = 0.005  # of a sandbox, which the run's CPU time does not hold
_MAX_GROWTH = 20.0  # a net time near 0 says little about how many repeats are needed
_OVERSHOOT = 1.15  # so that noise does not leave the fastest just below the target


class Net(NamedTuple):
    """Metrics of one contestant for all tests once; see ``MeasuredCandidate``."""

    et_seconds: float
    et_wall_seconds: float
    mu_bytes: int
    tmu_byte_seconds: float
    tmu_wall_byte_seconds: float


class RunCost(NamedTuple):
    """CPU time of one run with the candidate and of one without, in seconds."""

    gross_seconds: float
    baseline_seconds: float
    num_processes: int = 1

    @property
    def net_seconds(self) -> float:
        """What the candidate added."""
        return self.gross_seconds - self.baseline_seconds

    @property
    def spent_seconds(self) -> float:
        """What the run cost us: the candidate, and 5 ms of sandbox for each of its processes."""
        return self.gross_seconds + _SETUP_SECONDS * self.num_processes


def net(samples: Sequence[Sample], baseline: Sequence[Sample], repeats: int) -> Net:
    """(min over rounds - min of the baseline over rounds) / repeats; peak memory stays gross.

    Each metric takes its own minimum: noise only ever adds, so the minimum of five interleaved
    runs orders programs better than their mean or median.

    Args:
        samples: Measured runs of the contestant, at least one.
        baseline: Runs of the empty program with as many repeats, at least one.
        repeats: How often a run did all tests.
    """

    def least(name: str) -> float:
        run, empty = (min(getattr(one, name) for one in runs) for runs in (samples, baseline))
        return float(run - empty) / repeats

    return Net(
        et_seconds=least("cpu_seconds"),
        et_wall_seconds=least("wall_seconds"),
        mu_bytes=min(one.peak_memory_bytes for one in samples),
        tmu_byte_seconds=least("memory_byte_seconds"),
        tmu_wall_byte_seconds=least("memory_byte_wall_seconds"),
    )


def choose_repeats(
    cost_of: Callable[[int], RunCost],
    target_seconds: float,
    *,
    start: int = 1,
    most: int = MAX_REPEATS,
) -> tuple[int, RunCost]:
    """The repeats that make a run's net CPU time reach the target, and what such a run costs.

    Repeats grow from ``start`` by target / net (at most twentyfold at a time, 15 % beyond), until
    the target is met, a run would cost more than a second, or there are ``most`` of them.

    Args:
        cost_of: Runs the candidate and the baseline with this many repeats.
        target_seconds: Net CPU time wanted.
        start: Repeats to begin with.
        most: Repeats never exceeded.
    """
    repeats = start
    while True:
        cost = cost_of(repeats)
        if cost.net_seconds >= target_seconds or repeats >= most:
            return repeats, cost
        growth = min(_MAX_GROWTH, _OVERSHOOT * target_seconds / max(cost.net_seconds, 1e-6))
        # As if start-up grew with the repeats too: it does where each input is a process.
        room = MAX_RUN_SECONDS / max(cost.spent_seconds, 1e-6)
        grown = min(math.ceil(repeats * min(growth, room)), most)
        if grown <= repeats:
            return repeats, cost
        repeats = grown


def slow_repeats(repeats: int, once_seconds: float) -> int:
    """Repeats of a contestant that would need more than 0.25 s with those of the fastest.

    A power of two, so that contestants share few baselines; at least 1.

    Args:
        repeats: Those of the fastest.
        once_seconds: Net CPU time of this contestant for all tests once, roughly.
    """
    if once_seconds * repeats <= MAX_SLOW_SECONDS:
        return repeats
    affordable = max(1.0, MAX_SLOW_SECONDS / once_seconds)
    return min(repeats, 1 << int(math.log2(affordable)))
