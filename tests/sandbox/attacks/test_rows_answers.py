"""Rows 27-38 and 42: programs that want a pass without the answers; answers that are weapons."""

from __future__ import annotations

import secrets

import pytest
from attacks.harness import MIB, nothing_left
from cheats import exits, frames, guesses, inspection, objects, patching
from cheats.puzzles import PUZZLES

from codeact.sandbox import Limits, Sandbox
from codeact.sandbox.execute import Execution, execute
from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import Call, FunctionTests

LIMITS = Limits(wall_seconds=1.0, cpu_seconds=0.8, memory_bytes=256 * MIB)
_DENIED = "unsupported_value"

# Row, kind of cheat, the verdicts that it may get.
_CHEATS: tuple[tuple[int, dict[str, str], str, set[str]], ...] = (
    (27, exits.KINDS, "exit at import", {"missing_answer"}),
    (27, exits.KINDS, "exit in the call", {"missing_answer"}),
    (27, exits.KINDS, "SystemExit in the call", {"raised"}),
    (27, exits.KINDS, "exit after the visible", {"missing_answer"}),
    (28, objects.KINDS, "equal to all", {_DENIED}),
    (28, objects.KINDS, "int subclass", {_DENIED}),
    (28, objects.KINDS, "lies about its class", {_DENIED}),
    (29, inspection.KINDS, "frames", {"wrong_answer"}),
    (29, inspection.KINDS, "outer frames", {"wrong_answer"}),
    (30, inspection.KINDS, "garbage collector", {"wrong_answer"}),
    (31, inspection.KINDS, "change what the caller holds", {"wrong_answer", "missing_answer"}),
    (31, patching.KINDS, "no names left", {"missing_answer"}),
    (31, patching.KINDS, "code of the caller", {"missing_answer"}),
    (33, patching.KINDS, "json", {"wrong_answer"}),
    (33, patching.KINDS, "builtins", {"broken_protocol", "missing_answer", "wrong_answer"}),
    (33, patching.KINDS, "test frameworks", {"wrong_answer"}),
    (33, patching.KINDS, "clocks", {"wrong_answer"}),
    (34, guesses.KINDS, "prints a pass", {"wrong_answer"}),
    (34, frames.KINDS, "claims a status", {"broken_protocol"}),
    (34, frames.KINDS, "right frame, then a wrong answer", {"broken_protocol"}),
    (34, frames.KINDS, "from the back", {"broken_protocol"}),
    (36, guesses.KINDS, "examples by heart", {"wrong_answer"}),
    (36, guesses.KINDS, "examples in order", {"wrong_answer"}),
)


def run_function(sandbox: Sandbox, source: str, tests: FunctionTests) -> Execution:
    """A Python candidate on its tests, nothing left behind."""
    with nothing_left(sandbox):
        return execute(sandbox, Program("python", source), tests, limits=LIMITS)


@pytest.mark.parametrize(
    ("kinds", "kind", "statuses"),
    [entry[1:] for entry in _CHEATS],
    ids=[f"row_{row}_{kind.replace(' ', '_')}" for row, _, kind, _ in _CHEATS],
)
def test_rows(arena: Sandbox, kinds: dict[str, str], kind: str, statuses: set[str]) -> None:
    puzzle = PUZZLES[0]
    assert run_function(arena, puzzle.fill(kinds[kind]), puzzle.tests).verdict.status in statuses


_SEARCH = '''
import re, sys
def search(prefix):
    """All texts in this process's memory that start with the prefix and go on with 16 digits."""
    pattern = re.compile((prefix + "-[0-9a-f]{16}").encode())
    found = set()
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            words = line.split()
            if words[1][0] == "r" and words[-1] not in ("[vvar]", "[vsyscall]", "[vdso]"):
                start, end = (int(part, 16) for part in words[0].split("-"))
                try:
                    memory.seek(start)
                    matches = pattern.findall(memory.read(end - start))
                    found.update(match.decode() for match in matches)
                except OSError:
                    pass
    return sorted(found)
'''


def test_rows_29_30_expected_answers_are_nowhere_in_memory(arena: Sandbox) -> None:
    """The search finds an argument, so it would find an answer that had entered the process."""
    tokens = [f"WANTED-{secrets.token_hex(8)}" for _ in range(3)]
    given = f"GIVEN-{secrets.token_hex(8)}"
    tests = FunctionTests("f", tuple(Call((given, k)) for k in range(3)), tuple(tokens))
    source = (
        _SEARCH
        + "def f(given, k):\n    print(search('GIVEN'), flush=True)\n    return search('WANTED')\n"
    )
    done = run_function(arena, source, tests)
    assert done.verdict.status == "wrong_answer"
    assert given.encode() in done.runs[0].stdout
    assert "got []" in done.verdict.reason


def test_row_32_no_guard_to_undo(arena: Sandbox) -> None:
    """Nothing inside is relied on: fresh modules and raw calls get no further than the others."""
    source = """
import sys
for name in ("os", "posix", "shutil", "subprocess", "ctypes", "builtins"):
    sys.modules.pop(name, None)
import ctypes, os, subprocess
def f(x):
    libc = ctypes.CDLL(None, use_errno=True)
    tried = [libc.kill(1, 9) == 0 and os.path.exists("/proc/1") is False]
    tried += [os.path.exists(path) for path in ("/etc/passwd", "/root", "/home", "/var")]
    tried.append(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0)
    tried.append(libc.unshare(0x10000000) == 0)
    subprocess.run(["/bin/sh", "-c", "echo out > /usr/out"], stderr=subprocess.DEVNULL)
    tried.append(os.path.exists("/usr/out"))
    return tried
"""
    tests = FunctionTests("f", (Call((0,)),), ([False] * 8,))
    assert run_function(arena, source, tests).verdict.status == "passed"


def test_row_35_inputs_come_one_by_one(arena: Sandbox) -> None:
    """At the first call the other inputs are in no pipe, no file and no memory of the sandbox."""
    tokens = [f"INPUT-{secrets.token_hex(8)}" for _ in range(3)]
    tests = FunctionTests("f", tuple(Call((token,)) for token in tokens), (1, 2, 3))
    source = (
        _SEARCH
        + """
import fcntl, os
def f(token):
    fcntl.fcntl(3, fcntl.F_SETFL, os.O_NONBLOCK)
    try:
        rest = os.read(3, 65536)
    except BlockingIOError:
        rest = b""
    texts = [open(os.path.join("/box", name), "rb").read() for name in os.listdir("/box")]
    print(search("INPUT"), rest, *texts, flush=True)
    os._exit(0)
"""
    )
    done = run_function(arena, source, tests)
    assert done.verdict.status == "missing_answer"
    seen = [token.encode() in done.runs[0].stdout for token in tokens]
    assert seen == [True, False, False]


@pytest.mark.parametrize("hook", ["atexit", "thread", "process"])
def test_row_37_work_after_the_answer(arena: Sandbox, hook: str) -> None:
    """It is cut off with the last answer, or its CPU time counts; never both missed."""
    source = f"""
import atexit, os, threading, time
def burn():
    end = time.process_time() + 0.4
    while time.process_time() < end:
        pass
    os.write(1, b"burnt")
def f(x):
    if {hook!r} == "atexit":
        atexit.register(burn)
    elif {hook!r} == "thread":
        threading.Thread(target=burn).start()
    elif os.fork() == 0:
        burn()
        os._exit(0)
    return x
"""
    done = run_function(arena, source, FunctionTests("f", (Call((1,)),), (1,)))
    assert done.verdict.passed
    assert done.cpu_seconds > 0.35 if b"burnt" in done.runs[0].stdout else done.cpu_seconds < 0.4
    assert done.wall_seconds < 1
