"""Verdicts: base and plus, planted wrong solutions, published ones."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass, replace

import pytest
from planted import differs, mutants

from codeact.errors import InputError
from codeact.evaluation.judging.judge import Judged, judge, judge_all
from codeact.evaluation.judging.problems import Problem, load_problems
from codeact.sandbox.execute import call_outputs
from codeact.sandbox.limits import Limits
from codeact.sandbox.programs.program import Program
from codeact.sandbox.tests import Call, Digest, FunctionTests, Rule
from codeact.sandbox.verdict import Verdict

SQUARE = Problem(
    "humaneval",
    "HumanEval/0",
    "def f(x):\n",
    "f",
    FunctionTests("f", (Call((2,)), Call((3,)), Call((-1,))), (4, 9, 1), Rule(equality="python")),
    2,
    Limits(cpu_seconds=1.0),
    "def f(x):\n    return x * x\n",
)


@dataclass(frozen=True)
class Sample:
    benchmark: str
    task_id: str
    solution: str


@pytest.mark.parametrize(
    ("solution", "base", "plus"),
    [
        (SQUARE.reference, "passed", "passed"),
        ("def f(x): return abs(x) * x", "passed", "wrong_answer"),
        ("def f(x):\n    while x < 0: pass\n    return x * x", "passed", "time_limit"),
        ("def f(x): return x * 1.0 * x", "passed", "passed"),
        ("def f(x): return x + x", "wrong_answer", "wrong_answer"),
        ("def f(x): return [x * x]", "wrong_answer", "wrong_answer"),
        ("def f(x) return x", "syntax_error", "syntax_error"),
        ("", "no_entry_point", "no_entry_point"),
        ("def g(x): return x * x", "no_entry_point", "no_entry_point"),
        ("raise SystemExit(0)", "load_error", "load_error"),
        ("import os\ndef f(x): os._exit(0)", "missing_answer", "missing_answer"),
    ],
)
def test_base_passes_if_what_fails_is_beyond_it(solution, base, plus, sandbox):
    judged = judge(SQUARE, solution, sandbox)
    assert (judged.base.status, judged.plus.status) == (base, plus)
    assert (judged.base.num_tests, judged.plus.num_tests) == (2, 3)
    assert judged.base.passed or judged.base == replace(judged.plus, num_tests=2)


def test_a_failure_of_no_test_fails_both(sandbox):
    ends_badly = "import os\ndef f(x):\n    if x < 0: os.write(4, b'junk')\n    return x * x"
    judged = judge(SQUARE, ends_badly, sandbox)
    assert judged.plus.first_failed is None
    assert (judged.base.status, judged.plus.status) == ("broken_protocol", "broken_protocol")


def test_many_answers_in_order_and_equal_ones_once(sandbox, monkeypatch):
    from codeact.evaluation.judging import judge as module

    calls, told = [], []

    def counting(problem, solution, sandbox):
        calls.append(solution)
        return judge(problem, solution, sandbox)

    monkeypatch.setattr(module, "judge", counting)
    bodies = ["x * x", "x + x", "x * x", "abs(x) * x"] * 5
    samples = [Sample("humaneval", "HumanEval/0", f"def f(x): return {body}") for body in bodies]
    found = list(judge_all([SQUARE], samples, sandbox, on_result=lambda *pair: told.append(pair)))
    assert [sample for sample, _ in found] == samples
    passed = [(judged.base.passed, judged.plus.passed) for _, judged in found]
    assert passed == [(True, True), (False, False), (True, True), (True, False)] * 5
    assert told == found
    assert len(calls) == 3
    assert list(judge_all([SQUARE], [], sandbox)) == []


def test_samples_of_unknown_problems_are_refused(sandbox):
    sample = Sample("mbpp", "HumanEval/0", "")
    with pytest.raises(
        InputError, match="samples must be of the problems given, got 'HumanEval/0'"
    ):
        list(judge_all([SQUARE], [sample], sandbox))


def test_a_failed_sandbox_is_no_verdict(monkeypatch, sandbox):
    from codeact.evaluation.judging import judge as module

    failed = Verdict("sandbox_error", "no namespace", 3, 0, None)
    monkeypatch.setattr(module, "check", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match="the sandbox failed: no namespace"):
        judge(SQUARE, SQUARE.reference, sandbox)


# Problems of few or quick calls; the first number of each set is its first problem.
PLANTED = {
    "humaneval": [1, 4, 9, 20, 34, 45, 57],
    "mbpp": [3, 8, 14, 59, 66, 77, 82],
}
PREFIX = {"humaneval": "HumanEval/", "mbpp": "Mbpp/"}


@pytest.mark.parametrize("benchmark", PLANTED)
def test_no_planted_wrong_solution_passes(benchmark, data_folder, sandbox):
    """One change in each of 14 problems (every kind of change in all with CODEACT_FULL=1)."""
    is_full = bool(os.environ.get("CODEACT_FULL"))
    chosen = None if is_full else [f"{PREFIX[benchmark]}{n}" for n in PLANTED[benchmark]]
    problems = load_problems(benchmark, data_folder / "bench", sandbox, task_ids=chosen)
    samples = [
        Sample(benchmark, problem.task_id, wrong)
        for problem in problems
        if problem.tests.rule.oracle == "expected"
        for wrong in wrong_solutions(problem, sandbox, None if is_full else 1)
    ]
    assert len({sample.task_id for sample in samples}) >= (120 if is_full else len(chosen))
    judged = judge_all(problems, samples, sandbox)
    assert [sample for sample, found in judged if found.plus.passed] == []


def wrong_solutions(problem, sandbox, limit):
    """Mutants whose answers differ from the reference's by plain comparison."""
    found = []
    limits = replace(problem.limits, cpu_seconds=3.0)
    for _, source in mutants(problem.reference):
        if len(found) == limit:
            break
        tests = problem.tests
        outputs = call_outputs(
            sandbox,
            Program("python", source),
            tests.entry_point,
            tests.calls,
            result=tests.result,
            rule=tests.rule,
            limits=limits,
            digest_above=2**17,
        )
        if isinstance(outputs, Verdict):
            continue  # raises, or never ends: nothing that a comparison could overlook
        pairs = zip(tests.expected, outputs.values, strict=True)
        if any(differs(a, b) for a, b in pairs if Digest not in (type(a), type(b))):
            found.append(source)
    return found


def test_a_wrong_root_fails_where_any_root_is_right(data_folder, sandbox):
    (problem,) = load_problems(
        "humaneval", data_folder / "bench", sandbox, task_ids=["HumanEval/32"]
    )
    shifted = problem.reference.replace("    return x\n", "    return x + 0.01\n")
    assert shifted != problem.reference
    for wrong in (shifted, "def find_zero(xs): return 0.0", "def find_zero(xs): return None"):
        assert judge(problem, wrong, sandbox).base.status == "wrong_answer"


def test_published_verdicts_of_starcoder2(data_folder, sandbox):
    """Every 20th answer (all 164 with CODEACT_FULL=1) of StarCoder2-15B-Instruct."""
    path = data_folder / "eval" / "starcoder2_15b_instruct_humaneval.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    rows = rows if os.environ.get("CODEACT_FULL") else rows[4::20]
    ids = [row["task_id"] for row in rows]
    problems = load_problems("humaneval", data_folder / "bench", sandbox, task_ids=ids)
    prompts = {problem.task_id: problem.prompt for problem in problems}
    samples = [
        Sample("humaneval", r["task_id"], prompts[r["task_id"]] + r["completion"]) for r in rows
    ]
    found = {
        sample.task_id: _words(judged) for sample, judged in judge_all(problems, samples, sandbox)
    }
    assert found == {row["task_id"]: (row["base_status"], row["plus_status"]) for row in rows}


def _words(judged: Judged) -> tuple[str, str]:
    base, plus = ("pass" if each.passed else "fail" for each in (judged.base, judged.plus))
    return base, plus
