"""The runners of a race: how often each repeats its work, who drops out, when it is over."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from codeact.efficiency.racing.baselines import (
    MAX_REPEATS,
    MAX_RUN_SECONDS,
    MAX_SLOW_SECONDS,
    MIN_NET_SECONDS,
    Net,
    RunCost,
    choose_repeats,
    slow_repeats,
)
from codeact.efficiency.racing.kept_state import kept_state
from codeact.efficiency.racing.measurements import REFERENCE, MeasuredCandidate
from codeact.efficiency.racing.noise import MAX_CV
from codeact.efficiency.racing.rounds import Runner, Track, nets, pooled_spread, run_round
from codeact.sandbox.tests import FunctionTests

if TYPE_CHECKING:
    from codeact.sandbox.programs.program import Program

FIRST_ROUNDS = 3
SPREADS_IN_DOUBT = 2.0
VARIATIONS_IN_DOUBT = 2.0
DROP_BEYOND = 1.5  # times the best net CPU time after the first rounds
SPREADS_APART = 3.0  # best and second are told apart when they differ by as many spreads
_RESTARTS = 4  # somebody turns out faster than the one that the repeats were chosen for


@dataclass(frozen=True)
class RaceOptions:
    """See ``measure``."""

    rounds: int = 5
    max_rounds: int = 9
    target_seconds: float = 0.05
    instructions: Literal["ties", "never"] = "ties"
    seed: int = 0


class Field:
    """The runners of one race and what is known of them while it lasts.

    Args:
        track: Meter, task, language and CPU.
        entered: Candidates that passed, at least one.
        programs: Their sources, by candidate id.
        options: Rounds, target and seed.

    Attributes:
        runners: In the order of even rounds, drawn by the seed.
        baselines: The empty program, by number of repeats.
        repeats: Of the fastest; slow runners have fewer.
        num_rounds: Rounds run.
        short: Why there is nothing to rank by; empty if there is.
    """

    def __init__(
        self,
        track: Track,
        entered: Sequence[MeasuredCandidate],
        programs: Mapping[str, Program],
        options: RaceOptions,
    ) -> None:
        self.track, self.options = track, options
        self.runners = [
            Runner(
                record.candidate_id,
                programs[record.candidate_id],
                stays=record.origin == REFERENCE,
            )
            for record in entered
        ]
        random.Random(f"{options.seed}:{track.task.id}:{track.language}").shuffle(self.runners)
        self.baselines: dict[int, Runner] = {}
        self.repeats = 1
        self.num_rounds = 0
        self.short = ""
        self._fair: set[tuple[str, int]] = set()  # runners that kept nothing, and their repeats
        self._checked = {record.candidate_id: record.check_cpu_seconds for record in entered}

    def run(self) -> None:
        """All rounds.

        Raises:
            BaselineFailedError: The empty program does not run.
        """
        first = min(FIRST_ROUNDS, self.options.rounds)
        while True:
            self._settle_repeats()
            if self.short or not self._alive():
                return
            for number in range(1, first):
                self._round(number, self._alive())
            best = self._best()
            if best is None or not self._remembers(best):
                break  # or else repeats were chosen for it: everybody begins anew
        survivors = self._survivors()
        for number in range(first, self.options.rounds):
            self._round(number, survivors)
        for number in range(self.options.rounds, self.options.max_rounds):
            contenders = self._contenders(survivors)
            if len(contenders) < 2:
                break
            self._round(number, [one for one in survivors if one.stays or one in contenders])
        while (best := self._best()) is not None and self._remembers(best):
            pass  # another than after the first rounds may be best now
        self._judge_length()

    def nets(self) -> dict[str, Net]:
        """Net metrics by candidate id, of those that have not failed."""
        return nets(self.runners, self.baselines)

    def doubt_seconds(self) -> float:
        """What noise may put between two that cost the same, in net CPU time of all tests once.

        Two pooled spreads, or two coefficients of variation of the calibration times the gross
        time of the best if that is more: noise is in all of a run, and net time a part of it. On a
        machine that the calibration calls too noisy, at least as much as the best needs.
        """
        found = self.nets()
        if not found:
            return 0.0
        least = min(found, key=lambda name: found[name].et_seconds)
        best = next(one for one in self.runners if one.name == least)
        gross = min(sample.cpu_seconds for sample in best.samples) / best.repeats
        varied = VARIATIONS_IN_DOUBT * self.track.noise_cv * gross
        if self.track.noise_cv > MAX_CV:  # measured on the caller's word: outliers are larger still
            varied = max(varied, found[least].et_seconds)
        return max(SPREADS_IN_DOUBT * self.spread_seconds(), varied)

    def spread_seconds(self) -> float:
        """Pooled robust spread of those that have not failed."""
        return pooled_spread(self._alive())

    def _alive(self) -> list[Runner]:
        return [runner for runner in self.runners if runner.failure is None]

    def _best(self) -> Runner | None:
        found = self.nets()
        alive = [one for one in self._alive() if one.name in found]
        return min(alive, key=lambda one: found[one.name].et_seconds, default=None)

    def _remembers(self, runner: Runner) -> bool:
        """Whether a runner keeps something between repetitions, which puts it out of the race."""
        if not runner.stays and (runner.name, runner.repeats) not in self._fair:
            et_seconds = self.nets()[runner.name].et_seconds
            runner.failure = kept_state(self.track, runner, et_seconds)
            self._fair.add((runner.name, runner.repeats))
        return runner.failure is not None

    def _round(self, number: int, runners: Sequence[Runner]) -> None:
        needed = {runner.repeats for runner in runners if runner.failure is None}
        empties = [one for repeats, one in self.baselines.items() if repeats in needed]
        run_round(self.track, number, [*empties, *runners])
        self.num_rounds = number + 1

    def _settle_repeats(self) -> None:
        """Chooses repeats for the fastest, then runs round 0, again if somebody was faster."""
        fastest, start = self._fastest_checked(), 1
        for _ in range(_RESTARTS + len(self.runners)):
            if fastest is None:
                return
            self._choose_for(fastest, start)
            if fastest.failure is None:
                self._round(0, self._alive())
            best = self._best()
            if best is None:
                fastest = self._fastest_checked()  # None: nobody is left
                continue
            fastest = best
            if self.nets()[best.name].et_seconds * best.repeats >= MIN_NET_SECONDS:
                return
            if self._is_capped(fastest):
                if not self._remembers(fastest):
                    break
                fastest, start = self._fastest_checked(), 1
                continue
            start = self.repeats
        self._judge_length()

    def _fastest_checked(self) -> Runner | None:
        return min(self._alive(), key=lambda one: self._checked[one.name], default=None)

    def _choose_for(self, fastest: Runner, start: int) -> None:
        """Sets everybody's repeats and the baselines that go with them; samples start anew."""
        for runner in self.runners:
            runner.samples.clear()
        self.repeats, _ = choose_repeats(
            lambda repeats: self._cost(fastest, repeats), self.options.target_seconds, start=start
        )
        if fastest.failure is not None:
            return
        empty = self.track.read(Runner("", None)).cpu_seconds
        for runner in self._alive():
            # The correctness run shared the machine: it only says who may be slow.
            guess = slow_repeats(self.repeats, self._checked[runner.name] - empty)
            slow = runner is not fastest and guess < self.repeats
            runner.repeats = self._slow(runner, guess) if slow else self.repeats
        counts = sorted({runner.repeats for runner in self._alive()})
        self.baselines = {repeats: Runner("", None, repeats) for repeats in counts}

    def _slow(self, runner: Runner, guess: int) -> int:
        """Repeats of a runner that looks slow: as many as fit in, no more than the fastest has."""
        most, half = self.repeats, MAX_SLOW_SECONDS / 2
        repeats, cost = choose_repeats(
            lambda count: self._cost(runner, count), half, start=guess, most=most
        )
        return slow_repeats(most, cost.net_seconds / repeats)

    def _cost(self, runner: Runner, repeats: int) -> RunCost:
        empty = self.track.read(Runner("", None, repeats)).cpu_seconds
        reading = self.track.read(replace(runner, repeats=repeats))
        if not reading.verdict.passed:
            runner.failure = reading.verdict
            return RunCost(math.inf, empty)  # ends the search
        return RunCost(reading.cpu_seconds, empty, self._num_processes(repeats))

    def _num_processes(self, repeats: int) -> int:
        """Processes of one run: an input a process, or one process for all calls."""
        tests = self.track.task.tests
        return 1 if isinstance(tests, FunctionTests) else repeats * len(tests.inputs)

    def _is_capped(self, fastest: Runner) -> bool:
        """Whether more repeats of the fastest, which has run round 0, would be too many."""
        cost = RunCost(fastest.samples[0].cpu_seconds, 0.0, self._num_processes(self.repeats))
        return self.repeats >= MAX_REPEATS or cost.spent_seconds >= 0.95 * MAX_RUN_SECONDS

    def _survivors(self) -> list[Runner]:
        """Those within 1.5 times the best net CPU time plus noise, and the reference."""
        found = self.nets()
        least = min((one.et_seconds for one in found.values()), default=0.0)
        limit = DROP_BEYOND * least + self.doubt_seconds()
        return [one for one in self._alive() if one.stays or found[one.name].et_seconds <= limit]

    def _contenders(self, survivors: Sequence[Runner]) -> list[Runner]:
        """The best and those that it does not beat by three pooled spreads."""
        found = self.nets()
        alive = [one for one in survivors if one.failure is None]
        least = min((found[one.name].et_seconds for one in alive), default=0.0)
        limit = least + SPREADS_APART * pooled_spread(alive)
        return [one for one in alive if found[one.name].et_seconds < limit]

    def _judge_length(self) -> None:
        """Marks the race too short if the best run's net CPU time is below 20 ms."""
        found = self.nets()
        runs = [found[one.name].et_seconds * one.repeats for one in self._alive()]
        if runs and min(runs) < MIN_NET_SECONDS:
            self.short = (
                f"net CPU time of the fastest is {min(runs) * 1e3:.3g} ms "
                f"with {self.repeats} repeats, {MIN_NET_SECONDS * 1e3:.0f} ms are needed"
            )
