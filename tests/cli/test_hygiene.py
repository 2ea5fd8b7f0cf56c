"""``codeact decontaminate`` and ``codeact deduplicate``: what they print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

TASK = "Return every third word of the text x in upper case."
LEAK = "Count the gulls on each pier of the old harbour at noon."


@pytest.fixture
def leaky(places: Any) -> Path:
    """Rows of which the second holds a HumanEval task and a line of a file, and both files."""
    rows = [
        {"id": "clean", "instruction": "Add two numbers.", "output": "a + b"},
        {"id": "leak", "instruction": f"Please: {TASK}", "output": f"# {LEAK.upper()}\npass"},
        {"id": "again", "instruction": "add  two NUMBERS.", "output": "a + b"},
    ]
    (places.out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"task_id": "HumanEval/0", "prompt": f'def f(x):\n    """{TASK}"""\n'}
    task["canonical_solution"] = "    return [word.upper() for word in x.split()[::3]]\n"
    (places.out / "HumanEval.jsonl").write_text(json.dumps(task))
    (places.out / "leaks.txt").write_text(f"nothing of this is in any row\n{LEAK}\n")
    (places.out / "live.jsonl").write_text(json.dumps({"id": 7, "body": TASK}))
    return places.out / "rows.jsonl"


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_the_report_says_what_was_found_where(
    codeact: Any, places: Any, leaky: Path, suffix: str
) -> None:
    done = codeact(
        "decontaminate {out}/rows.jsonl --benchmarks {out} --benchmarks {out}/leaks.txt "
        "--benchmarks {out}/live.jsonl --benchmark-column body --threads 2 "
        "--output {out}/clean.jsonl --report {out}/report" + suffix
    )
    assert done.status == 0, done.err
    assert done.err.endswith(
        "1 of 3 rows contain tasks of HumanEval (1 tasks), leaks (2 tasks), live (1 tasks)\n"
    )
    report = places.out / f"report{suffix}"
    hits = (
        pq.read_table(report).to_pylist()
        if suffix == ".parquet"
        else [json.loads(line) for line in report.read_text().splitlines()]
    )
    assert hits == [json.loads(line) for line in done.out.splitlines()]
    by_name = {hit["benchmark"]: hit for hit in hits}
    assert list(by_name) == ["HumanEval", "leaks", "live"]
    assert by_name["leaks"] == {
        "id": "leak", "benchmark": "leaks", "task_id": "line 2", "rule": "substring",
        "match": LEAK.lower(), "field": "response", "start": 2, "end": 2 + len(LEAK),
        "excerpt": LEAK.upper(),
    }  # fmt: skip
    assert (by_name["live"]["task_id"], by_name["live"]["start"]) == ("7", len("Please: "))
    kept = (places.out / "clean.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in kept] == ["clean", "again"]


def test_the_share_of_ngrams_is_an_option(codeact: Any, places: Any, leaky: Path) -> None:
    copied = 'def f(x):\n  """Return every third word of the text y."""'
    row = {"id": "near", "instruction": "Write f.", "output": copied}
    leaky.write_text(json.dumps(row))
    line = "decontaminate {out}/rows.jsonl --benchmarks {out}/HumanEval.jsonl --ngram 3"
    assert codeact(line).out == ""
    done = codeact(line + " --ngram-share 0.3")
    assert [json.loads(hit)["rule"] for hit in done.out.splitlines()] == ["ngram"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--benchmarks {out}/none.txt", r"folder of benchmarks: \S+none.txt is not a folder"),
        (
            "--benchmarks {out} --benchmark-column body",
            r"is for JSON and Parquet files, got none",
        ),
        ("--benchmarks {out}/live.jsonl", r"live.jsonl:1: no column one of prompt,"),
        ("--benchmarks {out} --benchmarks {out}/HumanEval.jsonl", r"two files are HumanEval: "),
        ("--benchmarks {out} --threads 0", r"num_threads must be from 1 to 1024, got 0"),
        ("--benchmarks {out} --ngram 0", r"ngram must be at least 1, got 0"),
        ("--benchmarks {out} --report {out}/report.html", r"--report must end in .parquet or"),
    ],
)
def test_decontaminate_refuses(refused: Any, leaky: Path, words: str, message: str) -> None:
    refused("decontaminate {out}/rows.jsonl " + words, message)


def test_deduplicate_lists_and_writes(codeact: Any, places: Any, leaky: Path) -> None:
    line = "deduplicate {out}/rows.jsonl --output {out}/unique.jsonl"
    done = codeact(line)
    assert done.status == 0, done.err
    assert done.err.endswith("1 of 3 rows repeat another one: 1 exactly, 0 nearly\n")
    row = {"id": "again", "kept": "clean", "rule": "exact", "similarity": 1.0}
    assert [json.loads(text) for text in done.out.splitlines()] == [row]
    kept = (places.out / "unique.jsonl").read_text().splitlines()
    assert [json.loads(text)["id"] for text in kept] == ["clean", "leak"]
    again = codeact(line + " --table {out}/gone.parquet --on response --threshold 1")
    assert (again.status, again.out) == (0, "")
    assert pq.read_table(places.out / "gone.parquet").to_pylist() == [row]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--on code", r"--on must be both or instruction or response, got 'code'"),
        ("--threshold 0", r"threshold must lie in \(0, 1\], got 0.0"),
        ("--num-perm 3", r"num_perm must be from 16 to 4096, got 3"),
        ("--shingle-words 0", r"shingle_words must be at least 1, got 0"),
        ("--seed -1", r"--seed must be from 0"),
        ("--output {out}/unique.csv", r"--output must end in .jsonl"),
        ("--table {out}/gone.csv", r"--table must end in .parquet or .jsonl"),
    ],
)
def test_deduplicate_refuses(refused: Any, words: str, message: str) -> None:
    refused("deduplicate {rows} " + words, message)
