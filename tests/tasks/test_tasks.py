from __future__ import annotations

import json
import logging
import re

import pytest

from codeact.errors import InputError
from codeact.sandbox.tests import BinaryTree, Call, FunctionTests, LinkedList, Rule, StdinTests
from codeact.tasks import load_tasks
from codeact.tasks.own_tasks import write_tasks
from codeact.tasks.task_file import Skipped, Task, read_tasks

OWN = {
    "id": "double",
    "instruction": "Double.",
    "entry_point": "f",
    "tests": [{"args": [1], "expected": 2}],
}
LEETCODE = {
    "task_id": "two-sum",
    "query": "Add.\nYou may return the answer in any order.\n\nPlease complete the following "
    "python code precisely:\n```python\nclass Solution:\n    def f(self, x):\n```",
    "prompt": "from typing import *\n",
    "completion": "class Solution:\n    def f(self, x):\n        return [x]",
    "entry_point": "Solution().f",
    "test": "def check(candidate):\n    assert candidate(x = 1) == [1]\n",
    "meta": {"difficulty": "Easy", "question_id": 1, "question_title": "long"},
}
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": "import math\n\n\ndef helper(x):\n    return x\n\n\ndef f(x):\n    '''Half.'''\n",
    "entry_point": "f",
    "canonical_solution": "    return helper(x) / 2\n",
    "test": "METADATA = {}\n\n\ndef check(candidate):\n    assert abs(candidate(3) - 1.5) < 1e-3\n",
}
MBPP = {
    "task_id": 7,
    "text": "Write a function.",
    "code": "def g(x):\r\n    return x",
    "test_setup_code": "import math",
    "test_list": ["assert g(1.5) == 1.5", "assert g(2) == 2"],
}


def only(row) -> Task:
    (task,) = load_tasks([row])
    return task


def test_leetcode_row():
    assert only(LEETCODE) == Task(
        "two-sum",
        "Add.\nYou may return the answer in any order.",
        FunctionTests(
            "Solution().f",
            (Call((), {"x": 1}),),
            ([1],),
            Rule(order="unordered"),
            "from typing import *\n",
        ),
        LEETCODE["completion"],
        prompt_code="class Solution:\n    def f(self, x):",
        fields={"question_id": 1, "difficulty": "Easy"},
    )
    several = {**LEETCODE, "query": "If there are multiple answers, return any of them."}
    assert only(several).fields["several_answers"] is True


def test_humaneval_row():
    task = only(HUMANEVAL)
    assert task.tests == FunctionTests(
        "f",
        (Call((3,)),),
        (1.5,),
        Rule(abs_tol=1e-3, rel_tol=1e-7),
        "import math\n\n\ndef helper(x):\n    return x",
    )
    assert task.reference == HUMANEVAL["prompt"] + HUMANEVAL["canonical_solution"]
    assert task.prompt_code == HUMANEVAL["prompt"]


def test_mbpp_row():
    task = only(MBPP)
    assert task.id == "7"
    assert task.tests == FunctionTests(
        "g",
        (Call((1.5,)), Call((2,))),
        (1.5, 2),
        Rule(abs_tol=1e-6, rel_tol=1e-7),
        "import math",
    )
    assert task.instruction == (
        "Write a function.\nYour code should satisfy this assertion:\nassert g(1.5) == 1.5"
    )
    assert task.reference == "def g(x):\n    return x"


def test_own_row_with_every_field():
    row = {
        **OWN,
        "tests": [
            {"args": [{"tuple": [1, {"set": [2]}]}], "kwargs": {"k": {"float": "inf"}},
             "expected": {"dict": [[1, {"linked_list": [1, 2]}]]}},
            {"kwargs": {"k": None}, "expected": {"plain": {"binary_tree": [1, None]}}},
        ],
        "rule": {"order": "unordered", "abs_tol": 1, "strict_types": True},
        "result": "return",
        "prelude": "import math",
        "prompt_code": "def f(x, k):\n",
        "reference": "def f(x, k): ...",
        "difficulty": "easy",
    }  # fmt: skip
    assert only(row) == Task(
        "double",
        "Double.",
        FunctionTests(
            "f",
            (Call(((1, {2}),), {"k": float("inf")}), Call((), {"k": None})),
            ({1: LinkedList((1, 2))}, {"plain": BinaryTree((1, None))}),
            Rule("unordered", abs_tol=1, strict_types=True),
            "import math",
        ),
        "def f(x, k): ...",
        prompt_code="def f(x, k):\n",
        fields={"difficulty": "easy"},
    )


def test_own_row_on_standard_input():
    tests = [{"stdin": "1\n", "stdout": "2\n"}]
    row = {"id": "p", "instruction": "Double.", "tests": tests, "language": "C++17"}
    task = only({**row, "rule": {"tokens": False}})
    assert task.tests == StdinTests(("1\n",), ("2\n",), Rule(tokens=False))
    assert (task.language, task.reference, task.entry_point) == ("cpp", None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tests": []}, "tests must be a list of at least one, got"),
        ({"tests": {"a": 1}}, "tests must be a list"),
        ({"tests": [3]}, r"tests\[0\] must be an object, got int"),
        ({"tests": [{"args": 3, "expected": 1}]}, r"tests\[0\]: args must be a list"),
        ({"tests": [{"stdin": 1, "stdout": ""}]}, r"tests\[0\]: stdin and stdout must be strings"),
        ({"entry_point": None}, "entry_point is needed"),
        ({"entry_point": "os.system"}, "entry_point must be"),
        ({"language": "cobol"}, "language must be one of"),
        ({"instruction": None}, "instruction must be a string, got NoneType"),
        ({"rule": {"oder": "exact"}}, "rule may have order, .*, got 'oder'"),
        ({"rule": {"order": "any"}}, "rule.order must be one of"),
        ({"rule": {"rel_tol": "1"}}, "rule.rel_tol must be of type int or float, got '1'"),
        ({"rule": {"tokens": 1}}, "rule.tokens must be of type bool, got 1"),
        ({"rule": []}, None),  # empty: the default
        ({"rule": "exact"}, "rule must be an object, got str"),
        ({"result": "last"}, "result must be"),
        ({"reference": 3}, "reference must be a string, got int"),
        ({"id": ""}, "needs a text in id or task_id"),
    ],
)
def test_own_row_with_a_wrong_field(change, message):
    if message is None:
        assert only({**OWN, **change}) == only(OWN)
        return
    with pytest.raises(InputError, match=f"row 0: .*{message}"):
        load_tasks([{**OWN, **change}])


def nested(depth: int):
    return [] if depth == 0 else [nested(depth - 1)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**OWN, "tests": [{"args": [{"tuple": 3}], "expected": 1}]}, "tag 'tuple'"),
        ({**OWN, "tests": [{"args": [], "expected": nested(300)}]}, "nested deeper"),
        ({**OWN, "tests": [{"args": [], "expected": 10**20000}]}, "test 0: an int of"),
        ({**OWN, "tests": [{"args": [1]}]}, r"tests\[0\] must have args or kwargs and expected"),
        ({**OWN, "tests": [*OWN["tests"], {"stdin": "", "stdout": ""}]}, r"tests\[1\] must have"),
        ({**OWN, "language": "go"}, "functions are called in Python only"),
        ({**LEETCODE, "test": "def check(candidate):\n    x = candidate"}, "not an assert: x ="),
        ({**LEETCODE, "test": "def check(candidate:"}, "do not parse"),
        ({**LEETCODE, "entry_point": "Solution(1).f"}, "entry_point must be"),
        ({**MBPP, "test_list": ["assert 1 == 1"]}, "no test calls a function"),
    ],
)  # fmt: skip
def test_tests_that_cannot_be_used_are_skipped_with_the_reason(row, reason, caplog):
    good = {**OWN, "id": "good"}
    found = read_tasks([row, good])
    assert [task.id for task in found.tasks] == ["good"]
    ((name, why),) = [(skipped.id, skipped.reason) for skipped in found.skipped]
    assert name == str(row.get("id") or row["task_id"])
    assert re.search(reason, why), why
    with caplog.at_level(logging.WARNING):
        assert load_tasks([row, good]) == list(found.tasks)
    assert f"1 tasks read, 1 skipped: their tests cannot be used ({name}: " in caplog.text
    with pytest.raises(InputError, match="no task can be used, 1 skipped"):
        load_tasks([row])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a", "question": "?"}], "row 0: of no known kind of task .*, got id, question"),
        ([OWN, {**OWN, "instruction": "x"}], "task ids must be unique, 'double' comes 2 times"),
        (["x"], "row 0: must be an object, got str"),
        ([{**LEETCODE, "completion": 3}], "row 0: completion must be a string, got int"),
        ([{**MBPP, "test_list": "assert"}], "row 0: test_list must be a list of strings"),
        ([{**HUMANEVAL, "base_input": [], "plus_input": []}], "sandbox must be given"),
    ],
)
def test_bad_files(rows, message):
    with pytest.raises(InputError, match=message):
        load_tasks(rows)


def test_limit_draws_by_seed_and_keeps_the_order():
    rows = [{**OWN, "id": str(index)} for index in range(50)]
    rows[3] = {**rows[3], "language": "go"}  # skipped, and does not count
    drawn = [[task.id for task in load_tasks(rows, limit=10, seed=seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for ids in drawn:
        assert len(set(ids)) == 10
        assert ids == sorted(ids, key=int)
    assert len(load_tasks(rows, limit=100)) == 49
    with pytest.raises(InputError, match="limit must be at least 1, got 0"):
        load_tasks(rows, limit=0)


def test_written_tasks_read_back_the_same(tmp_path):
    every = {**OWN, "tests": [{"args": [{"set": [1]}, float("nan")], "expected": {"1": [True]}}]}
    stdin = {"id": "p", "instruction": "", "tests": [{"stdin": "a", "stdout": "b"}]}
    in_place = {**OWN, "id": "q", "result": "first_argument", "difficulty": 3}
    tasks = load_tasks([every, stdin, in_place, LEETCODE, HUMANEVAL, MBPP])
    path = tmp_path / "tasks.jsonl"
    write_tasks(tasks, path)
    again = load_tasks(path)
    assert repr(again) == repr(tasks)  # by text, because nan is not nan
    assert again[1:] == tasks[1:]
    assert all(isinstance(json.loads(line), dict) for line in path.read_text().splitlines())


def test_real_files(data_folder):
    leetcode = read_tasks(data_folder / "sft" / "leetcode_v0.2.0_train.jsonl.gz")
    assert (len(leetcode.tasks), leetcode.skipped) == (1890, ())
    assert sum(len(task.tests.calls) for task in leetcode.tasks) == 4752
    by_id = {task.id: task for task in leetcode.tasks}
    assert by_id["two-sum"].tests.rule.order == "unordered"
    assert by_id["4sum"].tests.rule.order == "unordered_rows"
    assert by_id["average-waiting-time"].tests.rule.abs_tol == 1e-5
    assert by_id["rotate-list"].tests.expected[0] == LinkedList((4, 5, 1, 2, 3))
    assert by_id["invert-binary-tree"].tests.expected[0] == BinaryTree((4, 7, 2, 9, 6, 3, 1))
    humaneval = read_tasks(data_folder / "bench" / "HumanEval.jsonl.gz")
    assert {s.id.removeprefix("HumanEval/") for s in humaneval.skipped} == {
        "32", "33", "38", "44", "50", "53", "151",  # loops, or answers that are computed
    }  # fmt: skip
    assert len(humaneval.tasks) == 157
    mbpp = read_tasks(data_folder / "bench" / "mbpp.jsonl.gz")
    assert (len(mbpp.tasks), len(mbpp.skipped)) == (968, 6)
    assert mbpp.skipped[1] == Skipped("533", "not a literal: int")
