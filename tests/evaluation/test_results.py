"""``results.jsonl``: what is written comes back, and what is broken is named."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from codeact.errors import InputError
from codeact.evaluation.results import ResultRow, read_results, write_results

PASS = ResultRow("humaneval", "HumanEval/0", 0, True, True, "pass", "pass")
HALF = ResultRow(
    "humaneval", "HumanEval/1", 0, True, False, "pass", "fail", "f(2) is 3", "pass", "timeout"
)
MBPP = ResultRow("mbpp", "Mbpp/2", 1, False, True, "timeout", "pass")


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    write_results(tmp_path / "results.jsonl", [PASS, HALF, MBPP])
    results = read_results(tmp_path / "results.jsonl")
    assert results.rows == (PASS, HALF, MBPP)
    assert results.benchmarks == ("humaneval", "mbpp")


def test_plus_is_a_pass_of_both_test_sets(tmp_path: Path) -> None:
    """EvalPlus counts an answer for plus only if it also passes base; MBPP's row does not."""
    later = replace(PASS, sample=1, base=False)
    write_results(tmp_path / "r.jsonl", [later, PASS, HALF, MBPP])
    results = read_results(tmp_path / "r.jsonl")
    expected = {"HumanEval/0": (True, False), "HumanEval/1": (True,)}  # by number of the sample
    assert results.verdicts("humaneval", "base") == expected
    assert results.verdicts("humaneval", "plus") == {**expected, "HumanEval/1": (False,)}
    assert results.verdicts("mbpp", "plus") == {"Mbpp/2": (False,)}


def test_an_answer_given_twice_is_one_that_failed(tmp_path: Path) -> None:
    write_results(tmp_path / "r.jsonl", [PASS, HALF, PASS])
    results = read_results(tmp_path / "r.jsonl")
    assert results.tasks_with("humaneval", "duplicated") == ["HumanEval/0"]
    assert [(row.task_id, row.base, row.base_status) for row in results.rows] == [
        ("HumanEval/0", False, "duplicated"),
        ("HumanEval/1", True, "pass"),
    ]


def test_fields_with_a_default_may_be_left_out(tmp_path: Path) -> None:
    required = dict(list(asdict(PASS).items())[:7])
    (tmp_path / "r.jsonl").write_text(json.dumps({**required, "later": 1}) + "\n")
    assert read_results(tmp_path / "r.jsonl").rows == (PASS,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": 1}, "row 1: base must be bool, got 1"),
        ({"sample": True}, "row 1: sample must be int, got True"),
        ({"sample": -1}, "row 1: sample must be at least 0, got -1"),
        ({"task_id": "APPS/1"}, "task_id must start with HumanEval/ or Mbpp/, got 'APPS/1'"),
        ({"benchmark": "mbpp"}, "row 1: HumanEval/0 is no task of 'mbpp'"),
        ({"evalplus_plus": 0}, "row 1: evalplus_plus must be str or null, got 0"),
        ({"plus_status": None}, "row 1: plus_status must be str, got None"),
    ],
)
def test_refuses(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (tmp_path / "r.jsonl").write_text(json.dumps({**asdict(PASS), **change}))
    with pytest.raises(InputError, match=message):
        read_results(tmp_path / "r.jsonl")


def test_names_a_field_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"benchmark": "mbpp"}')
    with pytest.raises(InputError, match=r"r.jsonl row 1 lacks the field task_id"):
        read_results(tmp_path / "r.jsonl")
