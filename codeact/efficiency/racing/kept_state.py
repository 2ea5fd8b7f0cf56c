"""Whether a program is fast because it remembers: one process repeats a short test many times."""

from __future__ import annotations

import ast
from dataclasses import replace

from codeact.efficiency.inputs.python_names import parse_shallow
from codeact.efficiency.racing.rounds import Runner, Track
from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import FunctionTests
from codeact.sandbox.verdict import Verdict

_FEW = 2  # repeats, the first and the last: all that the driver asks answers of
_APART = 4  # times more repeats than these, or nothing could be kept for long
_TIMES, _SLACK_SECONDS = 2.0, 0.005  # what a busy machine adds to the few repeats
_READINGS = 2
_DOUBT = 0.1  # share of the empty program's time: decoding large inputs varies most
_SURE = 8  # readings before a program is put out: on a busy machine two may both be 5 ms high

REASON = (
    "a repetition costs {ratio:.1f} times less beside {many} than beside {few}: "
    "something is kept from one to the next"
)


def kept_state(track: Track, runner: Runner, et_seconds: float) -> Verdict | None:
    """The verdict on a program whose repetitions cost less the more there are; None if it is fair.

    The driver loads the candidate anew for each repetition, so that its own caches are gone. A
    program that hides one elsewhere, or answers in earnest in the repetitions alone that are
    checked, shows in a run of 2 repeats (those with fewer than 8 are set beside a run of four times
    as many): a repetition more than twice as dear, 5 ms apart. Modules that it imports once are
    taken off first. What saves less than 5 ms in all, or half of its work, is not seen.

    Args:
        track: Meter, task, language and CPU.
        runner: The program, with its repeats.
        et_seconds: Its net CPU time for all tests once, with these repeats.
    """
    tests = track.task.tests
    if not isinstance(tests, FunctionTests) or runner.program is None or runner.repeats < 2:
        return None  # a process for each repetition, or a single one
    few, many, each = _FEW, runner.repeats, et_seconds
    if many < _FEW * _APART:
        few, many = runner.repeats, runner.repeats * _APART
        net = _net_seconds(track, runner, many, _READINGS)
        if isinstance(net, Verdict):
            return net
        each = net / many
    allowed = _TIMES * max(each, 0.0) * few + _SLACK_SECONDS
    net = _net_seconds(track, runner, few, _READINGS, doubt=_DOUBT)
    if not isinstance(net, Verdict) and net > allowed:
        net = _net_seconds(track, runner, few, _SURE, doubt=_DOUBT)
    if isinstance(net, Verdict):
        return net
    if net <= allowed or net - _import_seconds(track, runner.program) <= allowed:
        return None
    ratio = net / max(each * few, 1e-9)
    reason = REASON.format(ratio=ratio, many=many, few=few)
    return Verdict("broken_protocol", reason, len(tests.calls), 0, None)


def _net_seconds(
    track: Track, runner: Runner, repeats: int, readings: int, *, doubt: float = 0.0
) -> float | Verdict:
    """Least CPU time of a run with so many repeats net of the empty program's, or how it failed."""
    some, none = [], []
    for _ in range(readings):
        none.append(track.read(Runner("", None, repeats)).cpu_seconds)
        reading = track.read(replace(runner, repeats=repeats))
        if not reading.verdict.passed:
            return reading.verdict
        some.append(reading.cpu_seconds)
    return min(some) - (1 + doubt) * min(none)


def _import_seconds(track: Track, program: Program) -> float:
    """CPU time of the program's import statements, which only the first repetition pays."""
    source = _imports_of(program.source)
    if not source:
        return 0.0

    def least(text: str) -> float:  # both end for want of an entry point: no verdict is asked for
        readings = [
            track.meter.run(track.task, replace(program, source=text), repeats=1, core=track.core)
            for _ in range(_READINGS)
        ]
        return min(one.cpu_seconds for one in readings)

    return max(0.0, least(source) - least(""))


def _imports_of(source: str) -> str:
    """Every import statement of a program, also those in functions; empty if there is none."""
    tree = parse_shallow(source)
    if tree is None:
        return ""
    names: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            names[node.module] = None
    return "".join(f"try:\n    import {name}\nexcept ImportError:\n    pass\n" for name in names)
