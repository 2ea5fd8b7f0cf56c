from __future__ import annotations

import gzip
import json

import pytest

from codeact.errors import InputError
from codeact.sandbox.tests import Call, FunctionTests, Rule
from codeact.tasks import load_tasks
from codeact.tasks.evalplus_tasks import read_plus_row
from codeact.tasks.literals import UnreadableTestError
from codeact.tasks.own_tasks import write_tasks
from codeact.tasks.plus_arguments import typed_arguments
from codeact.tasks.task_file import read_tasks


@pytest.mark.parametrize(
    ("task", "arguments", "typed"),
    [
        (2, [[1, 2], [3]], ((1, 2), (3,))),
        (63, [[[1, 2], [3, [4]]]], ([(1, 2), (3, [4])],)),
        (75, [[[1, 2]], 6], ([(1, 2)], 6)),
        (98, [[1, 2]], ([1, 2],)),
        (106, [[5], [6, [7]]], ([5], (6, [7]))),
        (115, [[[1, 2], [], {}]], ([{1, 2}, {}, {}],)),
        (124, ["0", "1j"], (0.0, 1j)),
        (252, ["(1+2.5e-3j)"], (1 + 2.5e-3j,)),
        (259, [[[1, 3], [4, 5]], [[6, 7]]], (((1, 3), (4, 5)), ((6, 7),))),
        (278, [[1, [2, [3]], "x"]], ((1, (2, [3]), "x"),)),
        (307, [["H", []], 1, 50], (("H", []), 1, 50)),
        (722, [{"a": [6.2, 70]}, 6.0, 70], ({"a": (6.2, 70)}, 6.0, 70)),
        (580, [[4, [5, [6]]], 1], ((4, (5, (6,))), 1)),
    ],
)
def test_types_that_json_lost_come_back(task, arguments, typed):
    found = typed_arguments(f"Mbpp/{task}", arguments)
    assert repr(found) == repr(typed)  # 0.0 and 0, True and 1 are equal and differ


def test_arguments_are_those_of_evalplus(data_folder):
    data = pytest.importorskip("evalplus.data.mbpp", reason="evalplus is not installed")
    with gzip.open(data_folder / "bench" / "MbppPlus-v0.2.0.jsonl.gz") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 378
    for row in rows:
        inputs = [*row["base_input"], *(row["plus_input"] or [])]
        wanted = [tuple(call) for call in data.mbpp_deserialize_inputs(row["task_id"], inputs)]
        read = read_plus_row(row, row["task_id"], "row")
        assert repr([call.args for call in read.calls]) == repr(wanted), row["task_id"]
        assert read.num_base == len(row["base_input"])


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
        "assertion": "assert set(similar_elements((1, 2))) == g()",
    }
    wrong = {**PLUS, "task_id": "HumanEval/2", "canonical_solution": "    return 1 / (x - 9)\n"}
    body = {"canonical_solution": "    return 1.0 if x else 2.0\n", "atol": 1e-4}
    root = {**PLUS, **body, "task_id": "HumanEval/32", "entry_point": "find_zero"}
    root["prompt"] = "def find_zero(x):\n"
    match = {
        **mbpp,
        "task_id": "Mbpp/737",
        "entry_point": "check_str",
        "canonical_solution": "import re\ndef check_str(s): return re.match('a', s)",
        "base_input": [["ab"], ["b"]],
        "plus_input": [],
    }
    found = read_tasks([PLUS, mbpp, wrong, root, match], sandbox=sandbox)
    plus, similar, zero, presence = found.tasks
    assert plus.tests == FunctionTests(
        "f",
        (Call((4,)), Call((9,)), Call((2.25,))),
        ([2.0], [3.0], [1.5]),
        Rule(abs_tol=1e-6, rel_tol=1e-7, equality="python"),
        "import math",
    )
    assert similar.tests.calls == (Call(((1, 2),)), Call(((3,),)))
    assert similar.tests.expected == (("tuple", 3), ("tuple", 3))
    assert similar.tests.rule == Rule(equality="python", oracle="same_set")
    assert similar.instruction == "Write g.\nassert g((1, 2)) == 1"
    assert zero.tests.rule == Rule("exact", 1e-7, 1e-4, equality="python", oracle="polynomial_root")
    assert presence.tests.expected == (True, False)
    assert [skipped.id for skipped in found.skipped] == ["HumanEval/2"]
    assert found.skipped[0].reason.startswith("the canonical solution: raised: ZeroDivisionError")
    write_tasks(found.tasks, tmp_path / "tasks.jsonl")
    assert load_tasks(tmp_path / "tasks.jsonl") == list(found.tasks)  # no sandbox needed


def test_tolerance_is_that_of_evalplus():
    row = read_plus_row(PLUS, "HumanEval/1", "row")
    answers = [1.5, (1.0, 2.5), [2.5, 1.0], (1.0, 2), "1.5", [], ((1.5,),), {"k": 1.5}]
    assert [row.rule([1, each]).abs_tol for each in answers] == [1e-6] * 3 + [0.0] * 5


def test_rows_that_cannot_be_used():
    with pytest.raises(UnreadableTestError, match="no inputs"):
        read_plus_row({**PLUS, "base_input": [], "plus_input": {}}, "HumanEval/1", "row")
    mbpp = {**PLUS, "assertion": "", "base_input": [[1]]}
    with pytest.raises(UnreadableTestError, match="another form"):
        read_plus_row(mbpp, "Mbpp/2", "row")
    with pytest.raises(InputError, match="row 3: base_input must be a list of lists"):
        read_plus_row({**PLUS, "base_input": [4]}, "HumanEval/1", "row 3")
    with pytest.raises(InputError, match="row 3: atol must be a number from 0 to below 1, got '1'"):
        read_plus_row({**PLUS, "atol": "1"}, "HumanEval/1", "row 3")


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
