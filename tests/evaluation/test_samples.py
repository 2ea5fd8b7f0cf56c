"""samples.jsonl: answers survive, half lines do not, and nothing slips in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from codeact.errors import InputError
from codeact.evaluation.samples import Sample, SampleFile, read_samples

ONE = Sample("humaneval", "HumanEval/0", 0, "é\u2028 return 1", "def f(): return 1", 0.5, 7, "stop")
TWO = replace(ONE, sample=1, response="", solution="", finish="length")
NAMES = [ONE.name, TWO.name, ("mbpp", "Mbpp/2", 0)]


def test_answers_are_taken_over_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    file = SampleFile(path, NAMES)
    file.add(ONE)
    file.add(TWO)
    file.close()
    whole = path.read_bytes()
    path.write_bytes(whole + json.dumps(asdict(ONE)).encode()[:40])
    again = SampleFile(path, NAMES)
    assert again.samples == {ONE.name: ONE, TWO.name: TWO}
    again.add(replace(ONE, benchmark="mbpp", task_id="Mbpp/2"))
    again.close()
    assert path.read_bytes().startswith(whole)
    assert [sample.task_id for sample in read_samples(path)] == ["HumanEval/0"] * 2 + ["Mbpp/2"]


def test_half_a_surrogate_pair_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    odd = replace(ONE, response="\ud83d")
    file = SampleFile(path, NAMES)
    file.add(odd)
    file.close()
    assert list(read_samples(path)) == [odd]


def test_two_writers_are_refused(tmp_path: Path) -> None:
    first = SampleFile(tmp_path / "samples.jsonl", NAMES)
    with pytest.raises(InputError, match="another process is writing to it"):
        SampleFile(tmp_path / "samples.jsonl", NAMES)
    first.close()
    SampleFile(tmp_path / "samples.jsonl", NAMES).close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.update(sample=5), "holds sample 5 of HumanEval/0, which is not asked for"),
        (lambda row: None, "holds sample 0 of HumanEval/0 twice"),
        (lambda row: row.pop("solution"), "line 2: solution is missing or of another type"),
        (lambda row: row.update(sample=True), "line 2: sample is missing or of another type"),
        (lambda row: row.update(sample=-1), "line 2: sample must be at least 0, got -1"),
        (lambda row: row.update(seconds=float("nan")), "seconds must be at least 0, got nan"),
        (lambda row: row.update(num_tokens=-1), "line 2: num_tokens must be at least 0, got -1"),
        (lambda row: row.update(finish="eos"), "line 2: finish must be stop or length, got 'eos'"),
    ],
)
def test_refuses(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    row = asdict(ONE)
    change(row)
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(asdict(ONE)) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(InputError, match=message):
        SampleFile(path, NAMES)


@pytest.mark.parametrize("line", ['{"sample": ' + "9" * 5000 + "}", "[" * 100_000, "{"])
def test_lines_that_json_cannot_read_are_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(asdict(ONE)) + "\n" + line + "\n")
    with pytest.raises(InputError, match=r"samples\.jsonl line 2 "):
        SampleFile(path, NAMES)
