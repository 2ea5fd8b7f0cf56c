"""Programs on standard input: verdicts, repeats, baselines, in every language that is installed."""

import pytest

from codeact.sandbox.execute import Measured, check, execute
from codeact.sandbox.limits import Limits
from codeact.sandbox.programs.languages import MissingCompiler, find_toolchain
from codeact.sandbox.programs.program import LANGUAGES, Program
from codeact.sandbox.tests import Rule, StdinTests

pytestmark = pytest.mark.alone

# One program a language, compiled once: the sum of the numbers on standard input, or what the one
# word there asks for.
PROGRAMS = {
    "python": """
import sys
words = sys.stdin.read().split()
if words == ["loop"]:
    while True: pass
if words == ["fail"]: raise KeyError("k1")
if words == ["eat"]: words = bytearray(2**31)
print(sum(map(int, words)))
""",
    "cpp": """
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>
int main() {
    long sum = 0;
    for (std::string word; std::cin >> word;) {
        if (word == "loop") for (volatile int i = 0;; i++) {}
        if (word == "fail") throw std::runtime_error("k1");
        if (word == "eat") word = std::string(1L << 31, 'x');
        sum += std::stol(word);
    }
    std::cout << sum << std::endl;
}
""",
    "c": """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(void) {
    long sum = 0;
    char word[100];
    while (scanf("%99s", word) == 1) {
        if (!strcmp(word, "loop")) for (volatile int i = 0;; i++) {}
        if (!strcmp(word, "fail")) abort();
        if (!strcmp(word, "eat")) for (;;) memset(malloc(1 << 20), 1, 1 << 20);
        sum += atol(word);
    }
    printf("%ld\\n", sum);
}
""",
    "java": """
package sums;
import java.util.*;
public class Sum {
    static class Total { long value; }
    public static void main(String[] args) {
        Total total = new Total();
        Scanner in = new Scanner(System.in);
        while (in.hasNext()) {
            String word = in.next();
            while (word.equals("loop")) total.value++;
            if (word.equals("fail")) word = args[7];
            List<long[]> kept = new ArrayList<>();
            while (word.equals("eat")) kept.add(new long[1 << 17]);
            total.value += Long.parseLong(word);
        }
        System.out.println(total.value);
    }
}
""",
    "javascript": """
const words = require("fs").readFileSync(0, "utf8").split(/\\s+/).filter((word) => word);
while (words[0] === "loop");
if (words[0] === "fail") null.k1;
while (words[0] === "eat") words.push(new Array(1000).fill(1.5));
console.log(words.map(Number).reduce((a, b) => a + b, 0));
""",
    "go": """
package main
import ("fmt"; "strconv")
func main() {
    sum := 0
    kept := [][]byte{}
    for word := ""; ; {
        if _, err := fmt.Scan(&word); err != nil { break }
        for word == "loop" { }
        if word == "fail" { panic("k1") }
        for word == "eat" {
            some := make([]byte, 1 << 20)
            for i := range some { some[i] = 1 }
            kept = append(kept, some)
        }
        value, _ := strconv.Atoi(word)
        sum += value
    }
    fmt.Println(sum)
}
""",
    "rust": """
use std::io::Read;
fn main() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let mut sum: i64 = 0;
    let mut kept = Vec::new();
    for word in text.split_whitespace() {
        while word == "loop" {}
        if word == "fail" { panic!("k1") }
        while word == "eat" { kept.push(vec![kept.len() as u8; 1 << 20]); }
        sum += word.parse::<i64>().unwrap();
    }
    println!("{}", sum);
}
""",
}
INSTALLED = [name for name in LANGUAGES if not isinstance(find_toolchain(name), MissingCompiler)]
TESTS = StdinTests(("1 2 3\n", "", "-5 5 1000000007"), ("6\n", "0", "1000000007\n"))


def each_language(reason="no toolchain on this machine"):
    marks = {name: [] if name in INSTALLED else [pytest.mark.skip(reason)] for name in LANGUAGES}
    return pytest.mark.parametrize(
        "language", [pytest.param(name, marks=marks[name]) for name in LANGUAGES]
    )


@each_language()
def test_a_right_program_passes(sandbox, language):
    verdict = check(sandbox, Program(language, PROGRAMS[language]), TESTS)
    assert (verdict.status, verdict.reason) == ("passed", "")
    assert (verdict.num_tests, verdict.num_passed, verdict.first_failed) == (3, 3, None)


@each_language()
def test_measured_runs_and_their_baseline(sandbox, language):
    """One process, memory sampled; the empty program reads nothing and costs no more."""
    program, tests = Program(language, PROGRAMS[language]), StdinTests(("1 2\n",), ("3",))
    measured = execute(sandbox, program, tests, repeats=2, measured=Measured())
    empty = execute(sandbox, program, tests, repeats=2, measured=Measured(), baseline=True)
    assert measured.verdict.passed
    assert empty.verdict.passed
    assert [len(execution.runs) for execution in (measured, empty)] == [2, 2]
    assert all(run.stdout.split() == [b"3"] for run in measured.runs)
    assert all(run.stdout == b"" for run in empty.runs)
    assert 0 < empty.peak_memory_bytes <= measured.peak_memory_bytes + 2**20
    assert measured.cpu_seconds < 2.0


@each_language()
def test_a_failing_program_keeps_its_own_words(sandbox, language):
    status, words = {
        "python": ("raised", "KeyError: 'k1'"),
        "cpp": ("crashed", "k1"),
        "c": ("crashed", "SIGABRT"),
        "java": ("raised", "ArrayIndexOutOfBoundsException"),
        "javascript": ("raised", "TypeError"),
        "go": ("raised", "panic: k1"),
        "rust": ("raised", "panicked"),
    }[language]
    tests = StdinTests(("1", "fail"), ("1", "0"))
    verdict = check(sandbox, Program(language, PROGRAMS[language]), tests)
    assert verdict.status == status
    assert words in verdict.reason
    assert (verdict.num_passed, verdict.first_failed) == (1, 1)


@each_language()
def test_an_endless_loop_meets_the_time_limit(sandbox, language):
    limits = Limits(wall_seconds=1.0, cpu_seconds=0.5)
    tests = StdinTests(("loop", "1"), ("0", "1"))
    verdict = check(sandbox, Program(language, PROGRAMS[language]), tests, limits=limits)
    assert verdict.status == "time_limit"
    assert (verdict.num_passed, verdict.first_failed) == (0, 0)


@each_language()
def test_too_much_memory(sandbox, language):
    memory = 192 * 2**20
    space = None if language in ("java", "javascript", "go") else memory + 512 * 2**20
    limits = Limits(memory_bytes=memory, address_space_bytes=space, processes=64)
    tests = StdinTests(("eat",), ("0",))
    verdict = check(sandbox, Program(language, PROGRAMS[language]), tests, limits=limits)
    assert verdict.status == "memory_limit"
    assert "192 MiB" in verdict.reason


def test_the_first_wrong_answer_counts(sandbox):
    program = Program("python", "print(6 if input() else 0)")
    verdict = check(sandbox, program, StdinTests(("1", "2", "3"), ("6", "7", "6")))
    assert (verdict.status, verdict.num_passed, verdict.first_failed) == ("wrong_answer", 1, 1)
    assert verdict.reason == "expected '7', got '6'"


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("", "missing_answer"),
        ("import os; os._exit(0)", "missing_answer"),
        ("import sys; sys.exit()", "missing_answer"),
        ("print(6); import sys; sys.exit(1)", "raised"),
        ("import sys; sys.stdout.buffer.write(bytes(range(256)))", "wrong_answer"),
        ("import sys; sys.stdout.buffer.write(b'6\\xff')", "wrong_answer"),
        ("print(6); input(); input()", "raised"),  # wants more than there is
        ("print(6); import sys; print('warning', file=sys.stderr)", "passed"),
        ("print(6); print(6)", "wrong_answer"),
        ("print('६')", "wrong_answer"),
        ("while True: print(6)", "output_limit"),
        ("print(6); import os; os.abort()", "crashed"),
        ("import ctypes; ctypes.string_at(0)", "crashed"),
        ("def f(): f()\nf()", "raised"),
        ("import time; time.sleep(60)", "time_limit"),
        ("import os, time\nif os.fork() == 0:\n  os.setsid(); time.sleep(60)\nprint(6)", "passed"),
        ("print(6", "syntax_error"),
        ("print(6)\0", "syntax_error"),
        ("print('\ud800')", "syntax_error"),
        ("x = " + "(" * 5000 + ")" * 5000, "syntax_error"),
    ],
)
def test_bad_candidates_each_have_a_status(sandbox, source, status):
    tests = StdinTests(("1\n",), ("6\n",))
    limits = Limits(wall_seconds=1.0 if status == "time_limit" else 5.0)
    verdict = check(sandbox, Program("python", source), tests, limits=limits)
    assert verdict.status == status
    assert bool(verdict.reason) == (status != "passed")


def test_every_repetition_is_checked(sandbox):
    """A program that is right by chance, or once, is not right: every run starts afresh."""
    source = "import random\nprint(6 if random.random() < 0.5 else 7)"
    tests = StdinTests(("1",), ("6",))
    execution = execute(sandbox, Program("python", source), tests, repeats=30)
    assert execution.verdict.status == "wrong_answer"
    assert 1 <= len(execution.runs) < 30
    keeps = "import os\nprint(7 if os.path.exists('seen') else 6)\nopen('seen', 'w')"
    assert execute(sandbox, Program("python", keeps), tests, repeats=3).verdict.passed


def test_a_tolerance_is_the_tests_own(sandbox):
    program = Program("c", '#include <stdio.h>\nint main(void) { puts("3.14159"); }')
    exact = StdinTests(("",), ("3.1415926",))
    near = StdinTests(("",), ("3.1415926",), Rule(abs_tol=1e-5))
    assert check(sandbox, program, exact).status == "wrong_answer"
    assert check(sandbox, program, near).passed


def test_hash_order_is_the_same_in_every_run(sandbox):
    """PYTHONHASHSEED reaches the interpreter, which ``-I`` would prevent."""
    program = Program("python", "print(hash('a'), *{'b', 'c', 'd', 'e'})")
    execution = execute(sandbox, program, StdinTests(("",), ("",)))
    again = execute(sandbox, program, StdinTests(("",), ("",)))
    assert execution.runs[0].stdout == again.runs[0].stdout != b""
