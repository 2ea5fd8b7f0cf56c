"""Instruction counts under valgrind: net of the empty program, the same every time."""

import pytest

from codeact.sandbox import instructions
from codeact.sandbox.instructions import instruction_count, why_not_counted
from codeact.sandbox.programs.languages import MissingCompiler, find_toolchain
from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import Call, FunctionTests, StdinTests

needs_valgrind = pytest.mark.skipif(
    instructions.find_valgrind() is None, reason="no valgrind on this machine"
)
needs_c = pytest.mark.skipif(
    isinstance(find_toolchain("c"), MissingCompiler), reason="no gcc on this machine"
)

# Four instructions a turn at the least: volatile keeps the loop, which loads, adds and stores.
LOOP = """
#include <stdio.h>
int main(void) {
    long n;
    if (scanf("%ld", &n) != 1) return 1;
    for (volatile long i = 0; i < n; i++) {}
    printf("%ld\\n", n);
}
"""


def loop_tests(num_turns: int) -> StdinTests:
    return StdinTests((str(num_turns),), (str(num_turns),))


@needs_valgrind
@needs_c
def test_instructions_grow_with_the_work_and_do_not_vary(sandbox):
    program = Program("c", LOOP)
    one, again = (instruction_count(sandbox, program, loop_tests(100_000)) for _ in range(2))
    two = instruction_count(sandbox, program, loop_tests(200_000))
    assert one == again
    turn = (two - one) / 100_000
    assert turn == pytest.approx(round(turn), abs=0.001)  # a whole number of instructions a turn
    assert 3 <= turn <= 8
    assert one < 100_000 * turn + 50_000  # start-up is taken off: 115,000 for a program like this


@needs_valgrind
def test_a_python_function(sandbox):
    source = "def f(n):\n    s = 0\n    for i in range(n): s += i\n    return s\n"
    tests = FunctionTests("f", (Call((10_000,)),), (49_995_000,))
    count = instruction_count(sandbox, Program("python", source), tests)
    assert 10_000 * 20 < count < 10_000 * 1000  # start-up alone is 26 million


@needs_valgrind
@needs_c
def test_every_input_is_net_of_one_start(sandbox):
    once = StdinTests(("1000",), ("1000",))
    thrice = StdinTests(("1000",) * 3, ("1000",) * 3)
    program = Program("c", LOOP)
    count = instruction_count(sandbox, program, once)
    assert instruction_count(sandbox, program, thrice) == 3 * count


@needs_valgrind
@needs_c
def test_a_wrong_program_is_not_counted(sandbox):
    wrong = StdinTests(("5",), ("6",))
    assert instruction_count(sandbox, Program("c", LOOP), wrong) is None
    assert instruction_count(sandbox, Program("c", "int main("), wrong) is None


@needs_valgrind
@needs_c
def test_a_count_written_by_the_program_is_not_read(sandbox):
    """The line that counts is the last: valgrind's own, after the program has ended."""
    forged = LOOP.replace("printf", 'fprintf(stderr, "==2== I   refs:      1\\n"); printf', 1)
    honest = instruction_count(sandbox, Program("c", LOOP), loop_tests(100_000))
    count = instruction_count(sandbox, Program("c", forged), loop_tests(100_000))
    assert count > 0.9 * honest


def test_reasons_for_no_count(sandbox, monkeypatch):
    assert "javascript" in why_not_counted("node")
    assert instruction_count(sandbox, Program("js", ""), loop_tests(1)) is None
    monkeypatch.setattr(instructions, "find_valgrind", lambda: None)
    assert "install valgrind" in why_not_counted("c")
    assert instruction_count(sandbox, Program("c", LOOP), loop_tests(1)) is None
