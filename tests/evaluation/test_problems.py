"""Where problems are found, what they say, and that stored answers are used and mended."""

from __future__ import annotations

import gzip
import json
import os

import pytest

from codeact.errors import InputError
from codeact.evaluation.judging import problems as problems_module
from codeact.evaluation.judging.judge import judge_all
from codeact.evaluation.judging.problems import find_problems, limits_of, load_problems
from codeact.evaluation.judging.reference_answers import ReferenceRun, answers_folder
from codeact.sandbox.tests import Call, FunctionTests, Rule

ROW = {
    "task_id": "HumanEval/1",
    "prompt": 'import math\n\n\ndef half(x):\n    """Half."""\n',
    "entry_point": "half",
    "canonical_solution": "    return x / 2\n",
    "base_input": [[4]],
    "plus_input": [[9], [2]],
    "atol": 0,
}
TWICE = {**ROW, "task_id": "HumanEval/7", "entry_point": "twice", "prompt": "def twice(x):\n"}
# One of each kind that once did not load, or not pass: text of megabytes, a checker of its own,
# ints of 100,000 bits, lists of a million, re.Match; and the eight that compare sets.
SAMPLE = {
    "humaneval": ("HumanEval/0", "HumanEval/32", "HumanEval/83", "HumanEval/100", "HumanEval/153"),
    "mbpp": ("Mbpp/2", "Mbpp/124", "Mbpp/252", "Mbpp/278", "Mbpp/558", "Mbpp/737", "Mbpp/808"),
}


class NoSandbox:
    """Fails where a canonical solution would run."""

    workers = 1

    def run(self, *_: object, **__: object) -> None:
        raise AssertionError("answers were stored already")


@pytest.fixture(autouse=True)
def _own_cache(request, tmp_path, monkeypatch):
    if "data_folder" not in request.fixturenames:  # real answers cost minutes, and are kept
        monkeypatch.setenv("CODEACT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "HumanEvalPlus-v0.1.10.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(TWICE) + "\n\n")
    return path


def test_a_problem_is_its_row_and_the_answers_of_its_solution(file, sandbox):
    seen = []
    first, second = load_problems(
        "humaneval", file, sandbox, on_progress=lambda *count: seen.append(count)
    )
    assert seen == [(1, 2), (2, 2)]
    assert (first.benchmark, first.task_id, first.num_base) == ("humaneval", "HumanEval/1", 1)
    assert first.prompt == ROW["prompt"]
    assert first.reference == ROW["prompt"] + ROW["canonical_solution"]
    assert first.tests == FunctionTests(
        "half",
        (Call((4,)), Call((9,)), Call((2,))),
        (2.0, 4.5, 1.0),
        Rule(abs_tol=1e-6, rel_tol=1e-7, equality="python"),
    )
    assert (second.task_id, second.entry_point) == ("HumanEval/7", "twice")
    (only,) = load_problems("humaneval", file, NoSandbox(), task_ids=["HumanEval/7"])
    assert only == second


def test_stored_answers_that_are_damaged_are_made_again(file, sandbox, caplog):
    whole = load_problems("humaneval", file, sandbox)
    stored = sorted(answers_folder().iterdir())
    contents = [path.read_bytes() for path in stored]
    assert len(stored) == 2
    changed = [contents[0][:-2], contents[1].replace(b"\n1", b"\n2")]
    for path, content, damaged in zip(stored, contents, changed, strict=True):
        assert content != damaged
        path.write_bytes(damaged)
    with pytest.raises(AssertionError, match="stored already"):
        load_problems("humaneval", file, NoSandbox())
    again = load_problems("humaneval", file, sandbox)
    assert [problem.tests for problem in again] == [problem.tests for problem in whole]
    assert "made again" in caplog.text
    load_problems("humaneval", file, NoSandbox())


def test_another_row_is_another_answer(file, sandbox):
    load_problems("humaneval", file, sandbox)
    changed = {**ROW, "canonical_solution": "    return x / 4\n"}
    file.write_text(json.dumps(changed))
    (problem,) = load_problems("humaneval", file, sandbox)
    assert problem.tests.expected == (1.0, 2.25, 0.5)


def test_limits_follow_the_reference():
    small = limits_of(ReferenceRun((), 0.2, 2**23, 100))
    assert (small.cpu_seconds, small.wall_seconds) == (10.0, 40.0)
    assert (small.memory_bytes, small.answer_bytes) == (2**30, 2**24)
    large = limits_of(ReferenceRun((), 30.0, 2**30, 2**26))
    assert (large.cpu_seconds, large.wall_seconds) == (120.0, 480.0)
    assert (large.memory_bytes, large.answer_bytes) == (3 * 2**30, 2**28)
    assert limits_of(ReferenceRun((), 1.0, 2**32, 1)).memory_bytes == 2**32


def test_the_file_is_looked_for_in_order(tmp_path, monkeypatch):
    data, cache = tmp_path / "data" / "bench", tmp_path / "xdg" / "evalplus"
    monkeypatch.setenv("CODEACT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("MBPP_OVERRIDE_PATH", raising=False)
    with pytest.raises(InputError, match=r"MbppPlus\*.jsonl: not found in .*/evalplus, .*/bench"):
        find_problems("mbpp")
    for folder in (data, cache):
        folder.mkdir(parents=True)
    for name in ("MbppPlus-v0.1.9.jsonl", "MbppPlus-v0.1.10.jsonl.gz", "MbppPlus-Mini.jsonl"):
        (data / name).touch()
    assert find_problems("mbpp") == data / "MbppPlus-v0.1.10.jsonl.gz"  # 10 is newer than 9
    (cache / "MbppPlus.jsonl").touch()
    assert find_problems("mbpp") == cache / "MbppPlus.jsonl"
    (tmp_path / "some.jsonl").touch()
    monkeypatch.setenv("MBPP_OVERRIDE_PATH", str(tmp_path / "some.jsonl"))
    assert find_problems("mbpp") == tmp_path / "some.jsonl"
    assert find_problems("mbpp", data) == data / "MbppPlus-v0.1.10.jsonl.gz"
    monkeypatch.setenv("MBPP_OVERRIDE_PATH", str(tmp_path / "gone.jsonl"))
    with pytest.raises(InputError, match=r"MBPP_OVERRIDE_PATH: .*gone.jsonl: not found"):
        find_problems("mbpp")
    with pytest.raises(InputError, match=r"no HumanEvalPlus\*.jsonl in it"):
        find_problems("humaneval", data)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the file is empty"),
        (["{"], "line 1: no JSON"),
        (["[1]"], "line 1: a problem of EvalPlus needs task_id, prompt"),
        ([json.dumps({**ROW, "task_id": "Mbpp/2"})], "must begin with HumanEval/, got 'Mbpp/2'"),
        ([json.dumps({**ROW, "base_input": []})], "HumanEval/1: base_input is empty"),
        ([json.dumps(ROW)] * 2, "line 2: task ids must be unique, HumanEval/1 comes twice"),
        (
            [json.dumps({**ROW, "canonical_solution": "    return x / 0\n"})],
            "HumanEval/1: the canonical solution: raised: ZeroDivisionError",
        ),
    ],
)
def test_files_that_cannot_be_used(lines, message, tmp_path, sandbox):
    path = tmp_path / "given.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    with pytest.raises(InputError, match=message):
        load_problems("humaneval", path, sandbox)


def test_what_is_asked_for_must_be_there(file, tmp_path, sandbox):
    with pytest.raises(InputError, match=r"task_ids must be of .*, got HumanEval/8"):
        load_problems("humaneval", file, sandbox, task_ids=["HumanEval/8", "HumanEval/1"])
    with pytest.raises(InputError, match="benchmark must be one of humaneval, mbpp, got 'apps'"):
        load_problems("apps", file, sandbox)
    (tmp_path / "torn.jsonl.gz").write_bytes(gzip.compress(b"x" * 999)[:-5])
    with pytest.raises(InputError, match="not a whole gzip file"):
        load_problems("humaneval", tmp_path / "torn.jsonl.gz", sandbox)


@pytest.mark.parametrize("benchmark", problems_module.BENCHMARKS)
def test_every_reference_passes(benchmark, data_folder, sandbox):
    """A dozen of both (all 164 and 378 with CODEACT_FULL=1)."""
    chosen = None if os.environ.get("CODEACT_FULL") else SAMPLE[benchmark]
    problems = load_problems(benchmark, data_folder / "bench", sandbox, task_ids=chosen)
    assert len(problems) == (len(chosen) if chosen else {"humaneval": 164, "mbpp": 378}[benchmark])

    class Reference:
        def __init__(self, problem):
            self.benchmark, self.task_id = problem.benchmark, problem.task_id
            self.solution = problem.reference

    judged = judge_all(problems, [*map(Reference, problems)], sandbox)
    failed = {sample.task_id: found.plus for sample, found in judged if not found.plus.passed}
    assert failed == {}
