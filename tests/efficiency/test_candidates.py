from __future__ import annotations

import json
import subprocess
import sys

import pytest

from codeact.efficiency import load_candidates
from codeact.efficiency.inputs.candidates import candidate_id, read_candidates
from codeact.errors import InputError
from codeact.sandbox.tests import Call, FunctionTests, StdinTests
from codeact.tasks.task_file import Task

TASKS = [
    Task("a", "Double.", FunctionTests("f", (Call((1,)),), (2,)), None, prompt_code="def f(x):\n"),
    Task("b", "Echo.", StdinTests(("1",), ("1",)), None, language="cpp"),
]
F = "def f(x):\n    return 2 * x\n"


def test_rows_become_candidates(tmp_path):
    rows = [
        {"task_id": "a", "source": F, "model": "m"},
        {"task_id": "a", "response": f"So:\n```python\n{F}```", "origin": "o", "model": "m"},
        {"task_id": "a", "completion": "    return 2 * x\n", "origin": "c"},
        {"task_id": "b", "response": "```python\nx\n```\n```cpp\nint main(){}\n```"},
        {"task_id": "b", "source": "fn main(){}", "language": "Rust 1.70", "id": "mine"},
        {"task_id": "a", "response": "```js\nlet x\n```", "origin": "o"},
    ]
    path = tmp_path / "candidates.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = load_candidates(path, TASKS)
    assert [(c.task_id, c.source, c.language, c.origin) for c in found] == [
        ("a", F, "python", "m"),
        ("a", F, "python", "o"),
        ("a", F, "python", "c"),
        ("b", "int main(){}\n", "cpp", "unknown"),
        ("b", "fn main(){}", "rust", "unknown"),
        ("a", "", "python", "o"),
    ]
    assert [c.response for c in found[:2]] == [None, rows[1]["response"]]
    assert found[4].id == "mine"
    assert len({c.id for c in found}) == 6


def test_ids_do_not_depend_on_place_or_company():
    row = {"task_id": "a", "source": F, "origin": "m"}
    other = {"task_id": "a", "source": F + "#", "origin": "m"}
    alone, *_ = load_candidates([row], TASKS)
    _, last = load_candidates([other, row], TASKS)
    assert alone.id == last.id == candidate_id("m", "a", "python", F)
    assert alone.id.startswith("m-")
    differing = {
        candidate_id("m", "a", "python", F),
        candidate_id("n", "a", "python", F),
        candidate_id("m", "b", "python", F),
        candidate_id("m", "a", "cpp", F),
        candidate_id("m", "a", "python", F + " "),
        candidate_id("m", "ap", "ython", F),
    }
    assert len(differing) == 6


def test_copies_of_one_origin_are_counted():
    row = {"task_id": "a", "source": F, "origin": "m"}
    found = read_candidates([row, {**row, "origin": "n"}, row, row], TASKS)
    assert [(c.origin, c.copies) for c in found.candidates] == [("m", 3), ("n", 1)]
    assert found.num_duplicates == 2


def test_a_lone_surrogate_has_an_id():
    found = load_candidates([{"task_id": "a", "source": "x = '\ud800'"}], TASKS)
    assert found[0].source == "x = '\ud800'"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"task_id": "a", "source": F}, {"task_id": "z", "source": F},
          {"task_id": "y", "source": F}, {"task_id": "z", "source": "g"}],
         r"rows: 3 of 4 candidates are for 2 unknown tasks \(z, y\); 2 tasks are known, such as a"),
        ([{"source": F}], "row 0: task_id must be a string, got None"),
        ([{"task_id": "a", "code": F}], "row 0: needs one of source, completion, response, got"),
        ([{"task_id": "a", "source": 3}], "row 0: source must be a string, got int"),
        ([{"task_id": "a", "source": F, "language": "cobol"}], "language must be one of"),
        ([{"task_id": "a", "source": F, "origin": 3}], "row 0: origin must be a string, got int"),
        (["x"], "row 0: must be an object, got str"),
        ([], "empty"),
        ([{"task_id": "a", "source": F, "id": "i"}, {"task_id": "a", "source": "", "id": "i"}],
         "candidate ids must be unique, 'i' comes for tasks a and a"),
    ],
)  # fmt: skip
def test_bad_rows(rows, message):
    with pytest.raises(InputError, match=message):
        load_candidates(rows, TASKS)


def test_importing_loads_no_torch():
    code = (
        "import sys, codeact.efficiency.inputs.candidates, codeact.efficiency.inputs.filters\n"
        "import codeact.tasks.own_tasks, codeact.tasks.evalplus_tasks\n"
        "print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stderr


def test_public_names_are_functions_and_classes():
    code = (
        "import codeact.efficiency.racing.measure, codeact.efficiency.instruct.build\n"
        "import codeact.efficiency as package\n"
        "print([name for name in package.__all__ if not callable(getattr(package, name))])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stderr
