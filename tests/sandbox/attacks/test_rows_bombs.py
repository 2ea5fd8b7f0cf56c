"""Rows 38 and 42: answers that are weapons against whoever reads them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
from attacks.harness import MIB, nothing_left

from codeact.sandbox import Limits, Sandbox
from codeact.sandbox.execute import check
from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import Call, FunctionTests, StdinTests

LIMITS = Limits(wall_seconds=1.5, cpu_seconds=1.0, memory_bytes=256 * MIB)
_SECONDS = 5.0  # on a busy machine; what is bounded takes below one


_BOMBS = {
    "a huge int": "10**10**6",
    "a deep list": "__import__('functools').reduce(lambda a, _: [a], range(10**5), 0)",
    "a circular list": "(lambda a: a.append(a) or a)([])",
    "a circular dict": "(lambda a: a.update(a=a) or a)({})",
    "ten million items": "[0] * 10**7",
    "a long text": "'x' * 10**8",
    "one list many times": "[[[[[[[0] * 99] * 99] * 99] * 99] * 99] * 99]",
    "a long range": "range(10**12)",
    "an endless iterator": "__import__('itertools').count()",
    "an endless map": "map(str, iter(int, 1))",
    "a pickle": "type('P', (), {'__reduce__': lambda self: (print, ('run',))})()",
    "escapes": "'\\u0001' * 10**6",
}


@pytest.mark.parametrize("bomb", _BOMBS.values(), ids=[name.replace(" ", "_") for name in _BOMBS])
def test_row_38_bombs_in_the_answer(arena: Sandbox, bomb: str) -> None:
    begin = time.monotonic()
    tests = FunctionTests("f", (Call((0,)),), (0,))
    with nothing_left(arena):
        source = f"def f(x):\n    return {bomb}\n"
        verdict = check(arena, Program("python", source), tests, limits=LIMITS)
    assert not verdict.passed
    assert verdict.status in ("unsupported_value", "wrong_answer", "time_limit", "memory_limit")
    assert len(verdict.reason) <= 300
    assert time.monotonic() - begin < _SECONDS


_FORGED = {
    # Multiples of 2**61 - 1 all hash to 0: a set of 16 MiB of them would take hours to build.
    "ints that hash alike": """
text = ", ".join(['{"int": "%x"}' % ((2**61 - 1) * k) for k in range(8, 24_008)])
answer = b"A\\0\\0\\0\\0" + ('{"set": [' + text + ']}').encode()
data = len(answer).to_bytes(4, "little") + answer
""",
    "keys that hash alike": """
text = ", ".join(['[{"int": "%x"}, 0]' % ((2**61 - 1) * k) for k in range(8, 24_008)])
answer = b"A\\0\\0\\0\\0" + ('{"dict": [' + text + ']}').encode()
data = len(answer).to_bytes(4, "little") + answer
""",
    "four million empty frames": "data = bytes(1 << 24)",
    "five million empty lists": """
answer = b"A\\0\\0\\0\\0[" + b"[]," * 5_000_000 + b"0]"
data = len(answer).to_bytes(4, "little") + answer
""",
    "a list of lists of lists": """
answer = b"A\\0\\0\\0\\0" + b"[" + (b"[" * 150 + b"]" * 150 + b",") * 50_000 + b"0]"
data = len(answer).to_bytes(4, "little") + answer
""",
}


@pytest.mark.parametrize("data", _FORGED.values(), ids=[name.replace(" ", "_") for name in _FORGED])
def test_row_38_bombs_in_forged_frames(arena: Sandbox, data: str) -> None:
    """What no driver would send: up to 16 MiB of it, within the limits of the run."""
    source = (
        data
        + """
import os
def f(x):
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(4, rest):]
    os._exit(0)
"""
    )
    begin = time.monotonic()
    tests = FunctionTests("f", (Call((0,)),), (0,))
    with nothing_left(arena):
        limits = Limits(wall_seconds=10, cpu_seconds=5, memory_bytes=512 * MIB)
        verdict = check(arena, Program("python", source), tests, limits=limits)
    assert verdict.status in ("unsupported_value", "broken_protocol", "output_limit")
    assert time.monotonic() - begin < _SECONDS


def test_row_42_nothing_of_a_candidate_is_evaluated_here(arena: Sandbox, tmp_path: Path) -> None:
    """While hostile texts are judged, this process compiles, unpickles and runs none of them."""
    mark = tmp_path / "evaluated"
    hostile = f"__import__('os').system('touch {mark}')"
    function = f"def f(x):\n    raise ValueError({hostile!r}) if x else {hostile!r}\n"
    raising = f"def f(x):\n    raise type({hostile!r}, (Exception,), {{}})({hostile!r})\n"
    answering = f"def f(x):\n    return [{hostile!r}, {{{hostile!r}: 1}}, b'cos\\nsystem\\n.']\n"
    printing = f"print({hostile!r})\n"
    broken = f"f'{{{hostile}}}' = \n"
    function_tests = FunctionTests("f", (Call((1,)),), ([1],))
    stdin_tests = StdinTests(("1\n",), ("1\n",))
    programs: list[tuple[str, FunctionTests | StdinTests]] = [
        (text, function_tests) for text in (function, raising, answering, broken, hostile)
    ]
    programs += [(text, stdin_tests) for text in (printing, broken, hostile)]
    for text, tests in programs:  # once before, so that no module of ours is still to be compiled
        check(arena, Program("python", text), tests, limits=LIMITS)
    events: list[tuple[str, str]] = []
    watching = True

    def hook(event: str, args: tuple[Any, ...]) -> None:
        watched = ("compile", "exec", "pickle.", "marshal.load", "os.system", "ctypes.", "import")
        if watching and event.startswith(watched):
            events.append((event, repr(args)[:300]))

    sys.addaudithook(hook)
    for text, tests in programs:
        assert not check(arena, Program("python", text), tests, limits=LIMITS).passed
    watching = False
    assert [event for event in events if "import" not in event[0] or "touch" in event[1]] == []
    assert not mark.exists()
