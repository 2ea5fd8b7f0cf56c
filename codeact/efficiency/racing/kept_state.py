"""Whether the fastest is fast because it remembers: one process repeats a short test many times."""

from __future__ import annotations

from dataclasses import replace

from codeact.efficiency.racing.field import Field
from codeact.efficiency.racing.rounds import Runner
from codeact.sandbox.tests import FunctionTests
from codeact.sandbox.verdict import Verdict

_FEWER = 8  # times fewer repeats, which cost as many times less unless something was kept
_TIMES, _SLACK_SECONDS = 3.0, 0.005  # modules that the first repetition imports are no fault
_READINGS = 2

REASON = (
    "a repetition costs {ratio:.1f} times less beside {many} than beside {few}: "
    "something is kept from one to the next"
)


def disqualify_kept_state(field: Field) -> None:
    """Puts out of the race who is first because its repetitions cost less and less.

    The driver loads the candidate anew for each repetition, so that its own caches are gone. A
    program that hides one elsewhere, or answers in earnest in the repetitions alone that are
    checked, shows when repeated an eighth as often: more than three times the share of the cost,
    5 ms apart. Below that it cannot be told from a module imported once.
    """
    tests = field.track.task.tests
    if not isinstance(tests, FunctionTests):
        return  # a process for each repetition
    while runners := [one for one in field.runners if one.failure is None and one.samples]:
        found = field.nets()
        best = min(runners, key=lambda one: found[one.name].et_seconds)
        if best.repeats < _FEWER or best.stays:
            return
        few = best.repeats // _FEWER
        expected = found[best.name].et_seconds * few
        net = _net_seconds(field, best, few)
        if best.failure is None:
            if net <= _TIMES * expected + _SLACK_SECONDS:
                return
            ratio = net / max(expected, 1e-9)
            reason = REASON.format(ratio=ratio, many=best.repeats, few=few)
            best.failure = Verdict("broken_protocol", reason, len(tests.calls), 0, None)


def _net_seconds(field: Field, runner: Runner, repeats: int) -> float:
    """Least net CPU time of a run with so many repeats; a failed run fails the runner."""
    some, none = [], []
    for _ in range(_READINGS):
        none.append(field.track.read(Runner("", None, repeats)).cpu_seconds)
        reading = field.track.read(replace(runner, repeats=repeats))
        if not reading.verdict.passed:
            runner.failure = reading.verdict
            return 0.0
        some.append(reading.cpu_seconds)
    return min(some) - min(none)
