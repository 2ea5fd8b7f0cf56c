from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codeact.data import BenchmarkTask, find_benchmarks, read_benchmark
from codeact.errors import InputError

WORDS = "Given a list of river gauges, return the median of the three highest readings."
SOLUTION = "    return sorted(gauges)[-2]\n"
PROMPT = f'def median_gauge(gauges):\n    """{WORDS}"""\n'

HUMANEVAL = {"task_id": "HumanEval/0", "prompt": PROMPT, "canonical_solution": SOLUTION}


def test_find_benchmarks_by_name(tmp_path, monkeypatch):
    mbpp = {"task_id": 7, "text": WORDS, "code": SOLUTION}
    plus = {
        "task_id": "Mbpp/7",
        "prompt": f'"""\n{WORDS}\nassert f([1]) == 1\n"""\n',
        "canonical_solution": SOLUTION,
    }
    (tmp_path / "HumanEval.jsonl").write_text(json.dumps(HUMANEVAL) + "\n")
    (tmp_path / "humaneval-x.jsonl").write_text("other languages\n")
    (tmp_path / "mbpp.jsonl.gz").write_bytes(gzip.compress(json.dumps(mbpp).encode()))
    (tmp_path / "MbppPlus-v0.2.0.jsonl").write_text(json.dumps(plus))
    monkeypatch.setenv("CODEACT_BENCHMARKS", str(tmp_path))
    found = find_benchmarks()
    assert found == find_benchmarks(tmp_path)
    assert [(b.name, [t.task_id for t in b.tasks]) for b in found] == [
        ("HumanEval", ["HumanEval/0"]),
        ("MBPP", ["Mbpp/7"]),
        ("MBPP+", ["Mbpp/7"]),
    ]
    assert found[0].path == str(tmp_path / "HumanEval.jsonl")
    assert found[0].tasks[0].texts == (WORDS, SOLUTION)
    assert [text.strip() for text in found[2].tasks[0].texts] == [WORDS, SOLUTION.strip()]


def test_no_benchmarks_is_no_error(tmp_path, monkeypatch):
    monkeypatch.delenv("CODEACT_BENCHMARKS", raising=False)
    assert find_benchmarks(None) == []
    assert find_benchmarks(tmp_path) == []


def test_wrong_benchmark_folder_and_file(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"folder of benchmarks: .*absent is not a folder"):
        find_benchmarks(tmp_path / "absent")
    monkeypatch.setenv("CODEACT_BENCHMARKS", str(tmp_path / "absent"))
    with pytest.raises(InputError, match=r"CODEACT_BENCHMARKS: .*absent is not a folder"):
        find_benchmarks()
    (tmp_path / "mbpp.jsonl").write_text(json.dumps(HUMANEVAL))
    with pytest.raises(InputError, match=r"mbpp.jsonl:1: a task of MBPP needs text, code"):
        find_benchmarks(tmp_path)


def test_any_table_is_a_benchmark(tmp_path):
    tasks = [
        {"question_id": 4, "question": WORDS, "solutions": [SOLUTION, "b"], "notes": "no text"},
        {"question": "second", "solutions": None, "notes": ""},
    ]
    expected = (
        BenchmarkTask("4", (WORDS, SOLUTION, "b"), f"{WORDS}\n{SOLUTION}\nb"),
        BenchmarkTask("row 1", ("second",), "second"),
    )
    lines = tmp_path / "live.v1.jsonl.gz"
    lines.write_bytes(gzip.compress("".join(json.dumps(task) + "\n" for task in tasks).encode()))
    whole = tmp_path / "live.v1.json"
    whole.write_text(json.dumps(tasks))
    table = tmp_path / "live.v1.parquet"
    pq.write_table(pa.Table.from_pylist(tasks), table)
    for path in (lines, whole, table):
        found = read_benchmark(path)
        assert (found.name, found.tasks, found.path) == ("live.v1", expected, str(path))
    named = read_benchmark(lines, columns=["notes", "question"])
    assert named.tasks[0].texts == ("no text", WORDS)


def test_any_other_file_is_lines_of_text(tmp_path):
    plain, packed = tmp_path / "leaks.txt", tmp_path / "leaks.txt.gz"
    plain.write_text(f"\ufeff{WORDS}\n\n  second \r\n", encoding="utf-8")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (plain, packed):
        found = read_benchmark(path)
        assert found.name == "leaks"
        assert found.tasks == (
            BenchmarkTask("line 1", (WORDS,), WORDS),
            BenchmarkTask("line 3", ("  second ",), "  second "),
        )


def test_a_known_file_is_read_as_in_a_folder(tmp_path):
    path = tmp_path / "HumanEval.jsonl"
    path.write_text(json.dumps(HUMANEVAL))
    assert [read_benchmark(path)] == find_benchmarks(tmp_path)
    assert read_benchmark(path).tasks[0].texts == (WORDS, SOLUTION)
    assert read_benchmark(path, columns=["prompt"]).tasks[0].texts == (PROMPT,)


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("absent.txt", None, None, "absent.txt is not a file"),
        ("a.txt", b" \n\n", None, "a benchmark must hold text, got none"),
        ("a.txt", b"text", ["prompt"], "columns were named, but only JSON and Parquet"),
        ("a.txt", b"\xff\xfe", None, "text must be UTF-8"),
        ("a.txt.gz", b"text", None, "not a whole gzip file"),
        ("a.jsonl", b'{"a": "x"}', None, r"a.jsonl:1: no column one of prompt, .*; it has a"),
        ("a.jsonl", b'{"a": "x"}', ["b"], "a.jsonl:1: no column b; it has a"),
        ("a.jsonl", b'{"prompt": [1]}', None, "a.jsonl:1: prompt must be a string .* got int"),
        ("a.jsonl", b'{"prompt": ""}', None, "a benchmark must hold text, got none"),
        ("a.jsonl", b"[1]", None, "a.jsonl:1: must be an object, got list"),
    ],
)
def test_wrong_files(tmp_path, name, content, columns, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_benchmark(path, columns=columns)
