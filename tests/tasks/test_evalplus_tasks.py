from __future__ import annotations

from codeact.sandbox.tests import Call, FunctionTests, Rule
from codeact.tasks import load_tasks
from codeact.tasks.evalplus_tasks import restore_types
from codeact.tasks.own_tasks import write_tasks
from codeact.tasks.task_file import read_tasks


def test_types_that_json_lost_come_back():
    literals = [
        ((1, 2), [(1,), (2,)], {3}, {"k": (1,)}, 0, [1, "a"], ((1, (2,)), 5)),
        ((), [], {4}, {}, 1j, [[1], (2,)], ()),
    ]
    arguments = [[[5, [6]], [[7]], [8, 8], {"z": [9]}, "2j", [[1], "3j"], [[[1], 2, [[3]]]]]]
    assert restore_types(arguments, literals) == [
        [(5, (6,)), [(7,)], {8}, {"z": (9,)}, 2j, [[1], "3j"], (((1,), 2, ((3,),)),)]
    ]
    assert restore_types([["1j", "x", ["1"]]], [(1, 1, [1])]) == [[1j, "x", ["1"]]]
    assert restore_types([["(-1+2.5e-3j)", "3"]], [(1, "a")]) == [[-1 + 2.5e-3j, "3"]]
    assert restore_types([[[1]], [2, [3]]], []) == [[[1]], [2, [3]]]


PLUS = {
    "task_id": "HumanEval/1",
    "prompt": 'import math\n\n\ndef f(x):\n    """Root."""\n',
    "entry_point": "f",
    "canonical_solution": "    return [math.sqrt(x)]\n",
    "test": "",
    "base_input": [[4]],
    "plus_input": [[9], [2.25]],
    "atol": 0,
}


def test_canonical_solutions_answer_the_inputs(sandbox, tmp_path):
    mbpp = {
        "task_id": "Mbpp/2",
        "prompt": '"""\nWrite g.\nassert g((1, 2)) == 1\n"""\n',
        "entry_point": "similar_elements",
        "canonical_solution": "def similar_elements(a):\n    return type(a).__name__, sum(a)",
        "base_input": [[[1, 2]]],
        "plus_input": [[[3]]],
        "assertion": "import math\nassert set(similar_elements((1, 2))) == g()",
    }
    wrong = {**PLUS, "task_id": "HumanEval/2", "canonical_solution": "    return 1 / (x - 9)\n"}
    root = {**PLUS, "task_id": "HumanEval/32", "entry_point": "find_zero"}
    found = read_tasks([PLUS, mbpp, wrong, root], sandbox=sandbox)
    plus, similar = found.tasks
    assert plus.tests == FunctionTests(
        "f",
        (Call((4,)), Call((9,)), Call((2.25,))),
        ([2.0], [3.0], [1.5]),
        Rule(abs_tol=1e-6, rel_tol=1e-7),
        "import math",
    )
    assert similar.tests.calls == (Call(((1, 2),)), Call(((3,),)))
    assert similar.tests.expected == (("tuple", 3), ("tuple", 3))
    assert similar.tests.rule == Rule(order="unordered")
    assert similar.instruction == "Write g.\nassert g((1, 2)) == 1"
    assert [skipped.id for skipped in found.skipped] == ["HumanEval/2", "HumanEval/32"]
    assert found.skipped[0].reason.startswith("the canonical solution: raised: ZeroDivisionError")
    write_tasks(found.tasks, tmp_path / "tasks.jsonl")
    assert load_tasks(tmp_path / "tasks.jsonl") == list(found.tasks)  # no sandbox needed


def test_real_references_pass_and_broken_ones_fail(data_folder, sandbox):
    from codeact.sandbox.execute import check
    from codeact.sandbox.programs.program import Program

    path = data_folder / "sft" / "leetcode_v0.2.0_train.jsonl.gz"
    for task in load_tasks(path, limit=12, seed=7):
        verdict = check(sandbox, Program("python", task.reference), task.tests)
        assert verdict.passed, f"{task.id}: {verdict}"
        method = task.entry_point.removeprefix("Solution().")
        broken = f"class Solution:\n    def {method}(self, *a, **k):\n        return 'no'\n"
        verdict = check(sandbox, Program("python", broken), task.tests)
        assert verdict.status == "wrong_answer", task.id
