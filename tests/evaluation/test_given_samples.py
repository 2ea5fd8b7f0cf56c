"""Files of answers: ours, EvalPlus's, and what is missing, given twice, empty or unknown."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from codeact.errors import InputError
from codeact.evaluation.answering.given_samples import (
    GivenSamples,
    benchmarks_of,
    given_samples,
    read_rows,
)
from codeact.evaluation.judging.problems import Problem
from codeact.evaluation.samples import Sample
from codeact.sandbox.limits import Limits
from codeact.sandbox.tests import Call, FunctionTests

TESTS = FunctionTests("f", (Call((1,)),), (1,))
PROBLEMS = [
    Problem("humaneval", f"HumanEval/{i}", f"def f{i}(x):\n", f"f{i}", TESTS, 1, Limits(), "")
    for i in range(3)
]
KNOWN = frozenset({"HumanEval/0", "HumanEval/1", "HumanEval/2", "HumanEval/3"})
FILE = Path("samples.jsonl")


def given(*rows: dict[str, Any], num_samples: int | None = None) -> GivenSamples:
    return given_samples(rows, FILE, PROBLEMS, KNOWN, num_samples)


def row(i: int, **columns: Any) -> dict[str, Any]:
    return {"task_id": f"HumanEval/{i}", **(columns or {"completion": "    return x\n"})}


def test_completions_go_on_from_the_prompt_and_solutions_stand_alone() -> None:
    found = given(row(1, solution="S = 1", completion="no"), row(0), row(2, solution="import os"))
    solutions = {name[1]: sample.solution for name, sample in found.samples.items()}
    assert solutions == {
        "HumanEval/0": "def f0(x):\n    return x\n",
        "HumanEval/1": "S = 1",
        "HumanEval/2": "import os",
    }
    assert (found.num_samples, found.missing, found.duplicated, found.empty) == (1, (), (), ())
    assert list(found.words()) == []


def test_every_fault_is_reported_and_nothing_of_it_is_judged() -> None:
    """Task 3 is known, but not among the problems: it is passed over."""
    found = given(row(0), row(0), row(1, completion=" \n# nothing\n"), row(3))
    assert found.duplicated == (("humaneval", "HumanEval/0", 0),)
    assert found.missing == (("humaneval", "HumanEval/2", 0),)
    assert found.empty == (("humaneval", "HumanEval/1", 0),)
    assert [name[1] for name in found.samples] == ["HumanEval/1"]
    assert list(found.words()) == [
        "1 answers missing (HumanEval/2): counted as failed",
        "1 answers duplicated (HumanEval/0): counted as failed",
        "1 answers empty (HumanEval/1): counted as failed",
    ]


def test_several_samples_are_counted_in_the_order_of_the_file() -> None:
    rows = [row(i, solution=f"S = {n}") for n in range(3) for i in range(3)]
    found = given(*rows[:-1])
    assert found.num_samples == 3
    assert found.missing == (("humaneval", "HumanEval/2", 2),)
    assert found.samples["humaneval", "HumanEval/1", 2].solution == "S = 2"
    assert len(given(*rows, num_samples=4).missing) == 3
    with pytest.raises(InputError, match=r"num_samples must be at least 3, as in samples\.jsonl"):
        given(*rows, num_samples=2)


def test_our_own_lines_keep_their_numbers() -> None:
    one = Sample("humaneval", "HumanEval/0", 1, "r", "s", 1.5, 3, "length")
    rows = [asdict(replace(one, sample=n, task_id=f"HumanEval/{i}")) for i in range(3)
            for n in (1, 0)]  # fmt: skip
    found = given(*rows, rows[0])
    assert found.samples["humaneval", "HumanEval/2", 1] == replace(one, task_id="HumanEval/2")
    assert found.duplicated == (("humaneval", "HumanEval/0", 1),)
    assert ("humaneval", "HumanEval/0", 0) in found.samples
    with pytest.raises(InputError, match="row 1: HumanEval/0 is no task of 'mbpp'"):
        given({**rows[1], "benchmark": "mbpp"})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(0), row(4)], "samples.jsonl row 2: task_id must be a task .*, got 'HumanEval/4'"),
        ([{"completion": "x"}], "row 1: task_id must be a task of the benchmarks, got None"),
        ([row(0), {"task_id": ["x"]}], r"row 2: task_id must be a task .*, got \['x'\]"),
        ([row(0, code="x")], "row 1: solution or completion must be text, got None"),
        ([row(0, solution=3)], "row 1: solution or completion must be text, got 3"),
    ],
)
def test_refuses(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        given(*rows)


def test_reading_files(tmp_path: Path) -> None:
    rows = [row(0, solution="a = '\u2028'"), {"task_id": "Mbpp/2", "solution": ""}]
    text = "".join(json.dumps(each, ensure_ascii=False) + "\n\n" for each in rows)
    plain, packed = tmp_path / "a.jsonl", tmp_path / "a.jsonl.gz"
    plain.write_text(text)
    packed.write_bytes(gzip.compress(text.encode()))
    assert read_rows(plain) == read_rows(packed) == rows
    assert benchmarks_of(rows) == {"humaneval", "mbpp"}
    assert benchmarks_of([{"task_id": 3}]) == frozenset()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must hold at least 1 line, got none"),
        (b'{"a": 1}\n[1]\n', r"line 2 must be a JSON object, got '\[1\]'"),
        (b'{"a": 1}\n{"a"\n', "line 2 is no JSON"),
        (b"[" * 100000, "line 1 is no JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "line 1 is no JSON"),
        (b"\xff\xfe", "broken gzip, or not UTF-8 text"),
        (gzip.compress(b"{}" * 99)[:-9], "broken gzip"),
    ],
)
def test_refuses_broken_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_rows(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_rows(tmp_path / "none.jsonl")
