"""Candidates in the real sandbox: a status for each, costs, repetitions, baselines."""

from __future__ import annotations

import dataclasses
import time

import pytest

from codeact.errors import InputError
from codeact.sandbox import Sandbox
from codeact.sandbox.execute import Measured, call_outputs, check, execute
from codeact.sandbox.limits import Limits
from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import BinaryTree, Call, FunctionTests, LinkedList, Rule, StdinTests
from codeact.sandbox.verdict import Verdict

pytestmark = pytest.mark.alone

SQUARE = FunctionTests("f", tuple(Call((x,)) for x in range(3)), (0, 1, 4))
SHORT = Limits(wall_seconds=0.5, cpu_seconds=0.5, memory_bytes=96 * 2**20)


def python(source: str) -> Program:
    return Program("python", source)


@pytest.mark.parametrize(
    ("source", "status", "first_failed"),
    [
        ("def f(x): return x * x", "passed", None),
        ("def f(x): return float(x * x)", "wrong_answer", 0),
        ("def f(x): return x", "wrong_answer", 2),
        ("def f(x): print('noise' * 100); return x * x", "passed", None),
        ("def f(x): print('x' * 10**7, flush=True)", "output_limit", 0),
        ("def f(x): return x * x if x < 2 else 1 / 0", "raised", 2),
        ("def f(x): return {x: object()}", "unsupported_value", 0),
        ("def f(x):\n if x: __import__('os')._exit(0)\n return 0", "missing_answer", 1),
        ("def f(x): __import__('os').abort()", "crashed", 0),
        ("def f(x):\n while True: pass", "time_limit", 0),
        ("while True: pass", "time_limit", None),
        ("def f(x): return len(bytearray(2**29))", "memory_limit", 0),
        ("def f(x) return x", "syntax_error", None),
        ("f = input()", "load_error", None),
        ("def g(x): return x", "no_entry_point", None),
        (
            "import os\nos.write(4, b'\\1\\0\\0\\0L')\ndef f(x): return x * x",
            "broken_protocol",
            None,
        ),
        ("import os\nos.write(4, b'\\1')\ndef f(x): return x * x", "time_limit", None),
        ("import os\nos.close(4)\ndef f(x): return x * x", "missing_answer", None),
        ("import os\nos.read(3, 99)\ndef f(x): return x * x", "time_limit", None),
        ("\0\ud800\x80", "syntax_error", None),
    ],
    ids=range(20),
)
def test_every_candidate_has_a_status(
    sandbox: Sandbox, source: str, status: str, first_failed: int | None
) -> None:
    verdict = check(sandbox, python(source), SQUARE, limits=SHORT)
    assert (verdict.status, verdict.first_failed) == (status, first_failed), verdict.reason


def test_a_candidate_cannot_blame_the_test(sandbox: Sandbox) -> None:
    forged = "import os\nos.write(4, b'\\x0b\\0\\0\\0Ebad_test\\nx')\nos._exit(0)\n"
    tests = dataclasses.replace(SQUARE, prelude="import math\n")
    assert check(sandbox, python(forged), tests).status == "load_error"
    assert check(sandbox, python(forged), SQUARE).status == "load_error"
    broken = dataclasses.replace(SQUARE, prelude="print(absent)")
    assert check(sandbox, python("def f(x): return x * x"), broken).status == "bad_test"


def test_names_that_only_run_time_shows_find_the_whole_prelude(sandbox: Sandbox) -> None:
    tests = dataclasses.replace(SQUARE, prelude="from math import *\n")
    hidden = "import builtins\ndef f(x): return int(getattr(builtins, 'ev' + 'al')('pow')(x, 2))"
    assert check(sandbox, python(hidden), tests).passed


def test_code_that_looks_at_annotations_finds_real_ones(sandbox: Sandbox) -> None:
    tests = dataclasses.replace(SQUARE, prelude="from typing import *\n")
    looks = (
        "def f(x: List[int]):\n"
        "    kind = getattr(f, '__anno' + 'tations__')['x']\n"
        "    return x * x if kind.__args__ else 0"
    )
    assert check(sandbox, python(looks), tests).passed


def test_methods_nodes_and_orders(sandbox: Sandbox) -> None:
    source = (
        "class Solution:\n"
        "    def f(self, head, *, tree):\n"
        "        node = ListNode(tree.val, head)\n"
        "        return [node, tree.right]\n"
    )
    calls = (Call((LinkedList((1, 2)),), {"tree": BinaryTree((7, None, 8))}),)
    expected = ([BinaryTree((8,)), LinkedList((7, 1, 2))],)
    tests = FunctionTests("Solution().f", calls, expected, Rule(order="unordered"))
    assert check(sandbox, python(source), tests).passed


def test_arguments_are_never_aliases(sandbox: Sandbox) -> None:
    row = [0]
    tests = FunctionTests("f", (Call(([row, row], row)),), (([[1], [0]], [0]),))
    assert check(sandbox, python("def f(x, y):\n x[0][0] = 1\n return x, y"), tests).passed


def test_costs_are_the_run_s(sandbox: Sandbox) -> None:
    source = (
        "import time\n"
        "def f(x):\n"
        "    data = bytearray(30_000_000)\n"
        "    end = time.process_time() + 0.06\n"
        "    while time.process_time() < end: pass\n"
        "    return x * x\n"
    )
    execution = execute(sandbox, python(source), SQUARE, measured=Measured())
    assert execution.verdict.passed
    assert 0.18 <= execution.cpu_seconds < 0.3
    assert execution.wall_seconds >= execution.cpu_seconds * 0.9
    assert 38e6 < execution.peak_memory_bytes < 50e6
    assert 0.18 * 30e6 < execution.memory_byte_seconds < 0.3 * 50e6
    assert execution.runs[0].num_samples > 50


def test_repetitions_cost_what_they_repeat(sandbox: Sandbox) -> None:
    work = python("def f(x):\n for _ in range(20_000): pass\n return x * x")

    def cpu_seconds(repeats: int) -> float:
        runs = [execute(sandbox, work, SQUARE, repeats=repeats) for _ in range(3)]
        assert all(execution.verdict.passed for execution in runs)
        return min(execution.cpu_seconds for execution in runs)

    once, often, more = (cpu_seconds(repeats) for repeats in (1, 50, 100))
    assert 1.6 < (more - once) / (often - once) < 2.5  # 99 / 49


def test_a_baseline_is_the_run_without_the_candidate(sandbox: Sandbox) -> None:
    tests = dataclasses.replace(SQUARE, prelude="import math\n")
    baseline = execute(sandbox, python("while True: pass"), tests, repeats=9, baseline=True)
    assert baseline.verdict.passed
    assert len(baseline.runs) == 1
    assert baseline.runs[0].frames[1:] == tuple(
        b"A" + index.to_bytes(4, "little") + b"null" for index in range(6)
    )


def test_a_measured_candidate_has_one_process(sandbox: Sandbox) -> None:
    source = "import os\ndef f(x):\n if os.fork() == 0: os._exit(0)\n os.wait()\n return x * x"
    assert check(sandbox, python(source), SQUARE).passed
    measured = execute(sandbox, python(source), SQUARE, measured=Measured()).verdict
    assert measured.status == "raised"
    assert "PermissionError" in measured.reason


def test_outputs_of_a_trusted_solution(sandbox: Sandbox) -> None:
    calls = [Call((2,)), Call((3,))]
    source = python("def f(x): return {x: (x,) * x}")
    assert call_outputs(sandbox, source, "f", calls).values == ({2: (2, 2)}, {3: (3, 3, 3)})
    failed = call_outputs(sandbox, python("def f(x): return 1 // (x - 3)"), "f", calls)
    assert isinstance(failed, Verdict)
    assert (failed.status, failed.first_failed) == ("raised", 1)


def test_what_cannot_be_run_is_a_status(sandbox: Sandbox) -> None:
    assert check(sandbox, Program("cpp", "int main() {}"), SQUARE).status == "bad_test"
    unsendable = FunctionTests("f", (Call((object(),)),), (1,))
    execution = execute(sandbox, python("def f(x): return 1"), unsendable)
    assert (execution.verdict.status, execution.runs) == ("bad_test", ())
    assert (execution.cpu_seconds, execution.peak_memory_bytes) == (0, 0)
    with pytest.raises(InputError, match="repeats must be at least 1, got 0"):
        execute(sandbox, python(""), SQUARE, repeats=0)


def test_programs_on_standard_input(sandbox: Sandbox) -> None:
    tests = StdinTests(("2\n", "3\n"), ("4", "9"))
    assert check(sandbox, python("print(int(input()) ** 2)"), tests).passed
    assert check(sandbox, python("print(4)"), tests).first_failed == 1


def test_large_answers_cross(sandbox: Sandbox) -> None:
    size = 300_000
    tests = FunctionTests("f", (Call((size,)),), (list(range(size)),))
    start = time.perf_counter()
    assert check(sandbox, python("def f(x): return list(range(x))"), tests).passed
    assert time.perf_counter() - start < 5
    assert check(sandbox, python("def f(x): return 'a' * 50_000_000"), tests).status in (
        "unsupported_value",
        "memory_limit",
    )


def test_a_mistaken_annotation_fails_as_it_does_elsewhere(sandbox: Sandbox) -> None:
    tests = dataclasses.replace(SQUARE, prelude="from typing import *\n")
    verdict = check(sandbox, python("def f(x: Dict[int]): return x * x"), tests)
    assert verdict.status == "load_error"
    assert "typing.Dict" in verdict.reason
