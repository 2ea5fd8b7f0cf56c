"""EvalPlus in the sandbox: its verdicts, its crashes, and what it and the answers can reach."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import socket
import time

import pytest

from codeact.errors import InputError
from codeact.evaluation.judging.evalplus_files import (
    EvalPlusFailed,
    EvalPlusVerdict,
    data_of,
    samples_of,
    verdicts_of,
)
from codeact.evaluation.judging.evalplus_run import evalplus_limits, run_evalplus

needs_evalplus = pytest.mark.skipif(
    importlib.util.find_spec("evalplus") is None, reason="evalplus is not installed"
)
PASS, FAIL = EvalPlusVerdict("pass", "pass"), EvalPlusVerdict("fail", "fail")


def task(task_id: str = "HumanEval/900", body: str = "    return x + 1\n", **changes) -> dict:
    """A row of a data file, of a function ``f`` with one base test and two further ones."""
    row = {
        "task_id": task_id,
        "prompt": "def f(x):\n",
        "contract": "",
        "canonical_solution": body,
        "entry_point": "f",
        "base_input": [[1]],
        "plus_input": [[2], [-5]],
        "atol": 0,
    }
    return {**row, **changes}


def written(path, *rows: dict):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(path) -> list[dict]:
    with gzip.open(path) as lines:
        return [json.loads(line) for line in lines]


@needs_evalplus
def test_real_tasks_get_their_verdicts(data_folder, sandbox, tmp_path, monkeypatch):
    """HumanEval/32's reference fails: EvalPlus 0.3.1 passes nothing there, a listed disagreement.

    An older results file is not read again, the variable that makes EvalPlus hang does not get in,
    and half of a surrogate pair in an answer spoils that answer alone.
    """
    monkeypatch.setenv("EVALPLUS_TIMEOUT_PER_TASK", "120")
    data = data_folder / "bench/HumanEvalPlus-v0.1.10.jsonl.gz"
    rows = rows_of(data)
    references = {row["task_id"]: row["prompt"] + row["canonical_solution"] for row in rows}
    base_only = (  # HumanEval/2, truncate_number: right on the only base tests there are
        "def truncate_number(number):\n    return {3.5: 0.5, 1.33: 0.33, 123.456: 0.456}[number]"
    )
    endless = "def has_close_elements(numbers, threshold):\n    while True: pass\n"
    solutions = {
        "HumanEval/0": [references["HumanEval/0"], endless, "\ud800", "def x(:"],
        "HumanEval/2": [base_only, references["HumanEval/2"]],
        "HumanEval/32": [references["HumanEval/32"]],
    }
    stale = tmp_path / "humaneval_samples_eval_results.json"
    stale.write_text('{"eval": {}}')
    found = run_evalplus("humaneval", data, solutions, folder=tmp_path, workers=2, min_time_limit=1)
    endless_verdict = found.pop(("HumanEval/0", 1))
    assert found == {
        ("HumanEval/0", 0): PASS,
        ("HumanEval/0", 2): FAIL,
        ("HumanEval/0", 3): FAIL,
        ("HumanEval/2", 0): EvalPlusVerdict("pass", "fail"),
        ("HumanEval/2", 1): PASS,
        ("HumanEval/32", 0): FAIL,
    }
    assert "pass" not in (endless_verdict.base, endless_verdict.plus)
    assert verdicts_of(stale.read_bytes(), solutions)["HumanEval/2", 1] == PASS
    assert "humaneval+ (base + extra tests)" in (tmp_path / "humaneval.log").read_text()


@needs_evalplus
def test_answers_reach_neither_network_nor_files(sandbox, tmp_path):
    """The answer looks around and is right only if every wall holds."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        answer = f"""
import _io, os, socket
import evalplus.evaluate
INPUTS = "/opt/evalplus-inputs/"
PATHS = [INPUTS + "data.jsonl", INPUTS + "samples.jsonl", evalplus.evaluate.__file__]
def refused(try_it, *arguments):
    try:
        try_it(*arguments)
    except OSError:
        return True
    return False
def f(x):
    walls = [
        refused(socket.create_connection, ("127.0.0.1", {server.getsockname()[1]}), 1),
        refused(os.listdir, {str(tmp_path)!r}),
        *(os.path.isfile(path) and refused(_io.open, path, "ab") for path in PATHS),
    ]
    return x + 1 if all(walls) else walls
"""
        data = written(tmp_path / "data.jsonl", task())
        arguments = ("humaneval", data, {"HumanEval/900": [answer]})
        assert run_evalplus(*arguments, folder=tmp_path / "raw", workers=1) == {
            ("HumanEval/900", 0): PASS
        }


@needs_evalplus
@pytest.mark.parametrize(
    ("row", "answer", "words"),
    [
        (task(body="    return x // 0\n"), "", "ZeroDivisionError"),
        # Kills the process that judges it; EvalPlus itself would then wait for ever.
        (task(), "import os, posix\nposix.kill(os.getppid(), 9)\n", "BrokenProcessPool"),
    ],
    ids=["reference raises", "answer kills a worker"],
)
def test_a_crash_is_told_in_evalplus_words(sandbox, tmp_path, row, answer, words):
    data = written(tmp_path / "data.jsonl", row)
    start = time.monotonic()
    with pytest.raises(EvalPlusFailed, match=words):
        run_evalplus("humaneval", data, {row["task_id"]: [answer]}, folder=tmp_path, workers=1)
    assert time.monotonic() - start < 60  # its wall limit is 325 s
    assert words in (tmp_path / "humaneval.log").read_text()
    assert not (tmp_path / "humaneval_samples_eval_results.json").exists()


@pytest.mark.parametrize(
    ("name", "md5", "task_id"),
    [  # the official hashes of the uncompressed files
        ("HumanEvalPlus-v0.1.10", "fe585eb4df8c88d844eeb463ea4d0302", "HumanEval/5"),
        ("MbppPlus-v0.2.0", "ee43ecabebf20deef4bb776a405ac5b1", "Mbpp/3"),
    ],
)
def test_data_is_uncompressed_and_cut_to_its_tasks(data_folder, name, md5, task_id):
    path = data_folder / "bench" / f"{name}.jsonl.gz"
    rows = rows_of(path)
    whole = data_of(path, [row["task_id"] for row in rows])
    assert hashlib.md5(whole).hexdigest() == md5
    wanted = [row for row in rows if row["task_id"] == task_id]
    assert [json.loads(line) for line in data_of(path, [task_id]).splitlines()] == wanted


def test_bad_input_is_named(tmp_path):
    data = written(tmp_path / "data.jsonl", task())
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(gzip.compress(data.read_bytes())[:-12])
    good = {"HumanEval/900": [""]}
    for benchmark, path, solutions, workers, words in [
        ("apps", data, good, 1, "benchmark must be one of humaneval, mbpp"),
        ("humaneval", data, good, 0, "workers must be at least 1"),
        ("humaneval", data, {}, 1, "at least one task"),
        ("humaneval", data, {"HumanEval/900": []}, 1, "HumanEval/900"),
        ("humaneval", data, {"HumanEval/900": "def f"}, 1, "list of programs"),
        ("humaneval", data, {**good, "HumanEval/901": [""]}, 1, "HumanEval/901"),
        ("humaneval", tmp_path / "none.jsonl", good, 1, "none.jsonl"),
        ("humaneval", torn, good, 1, "torn.jsonl.gz"),
    ]:
        with pytest.raises((InputError, ImportError), match=words if evalplus_is_here() else ""):
            run_evalplus(benchmark, path, solutions, folder=tmp_path, workers=workers)


def evalplus_is_here() -> bool:
    return importlib.util.find_spec("evalplus") is not None


def results(**changes) -> dict:
    row = {"solution": "p", "base_status": "pass", "plus_status": "timeout", **changes}
    return {"hash": "", "eval": {"HumanEval/1": [row]}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"[]",
        b'{"eval": []}',
        b'{"eval": {}}',
        b'{"eval": {"HumanEval/1": 3}}',
        b'{"eval": {"HumanEval/1": [3]}}',
        b'{"eval": {"HumanEval/1": []}}',
        json.dumps(results(solution="another")).encode(),
        json.dumps(results(base_status=["pass"])).encode(),
        json.dumps(results(plus_status=None)).encode(),
    ],
)
def test_results_that_are_not_of_these_answers_are_refused(content):
    solutions = {"HumanEval/1": ["p"]}
    whole = json.dumps(results()).encode()
    assert verdicts_of(whole, solutions) == {("HumanEval/1", 0): EvalPlusVerdict("pass", "timeout")}
    with pytest.raises(EvalPlusFailed, match="results of EvalPlus"):
        verdicts_of(content, solutions)


def test_samples_keep_the_order_of_the_answers():
    lines = samples_of({"Mbpp/3": ["a\n", "\ud800é"], "Mbpp/2": ["c"]}).splitlines()
    assert [tuple(json.loads(line).values()) for line in lines] == [
        ("Mbpp/3", "a\n"),
        ("Mbpp/3", "\ud800é"),
        ("Mbpp/2", "c"),
    ]


def test_time_grows_with_tasks_and_answers():
    one = {"Mbpp/2": [""]}
    four = {f"Mbpp/{number}": [""] * 3 for number in range(4)}
    # 300 s, 5 s a task, and (10 s + twice the shortest limit) an answer of each worker's
    assert evalplus_limits(one, workers=1, min_time_limit=5).wall_seconds == 300 + 5 + 20
    assert evalplus_limits(four, workers=2, min_time_limit=1).wall_seconds == 300 + 20 + 6 * 12
