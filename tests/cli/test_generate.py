"""``codeact generate``: from a recipe and tasks to one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def inputs(places: Any) -> Path:
    """A recipe of the tiny model, one of a server that is not there, and three tasks."""
    rows = [
        {"id": f"t{n}", "instruction": f"Add {n}.", "entry_point": "f",
         "tests": [{"args": [1], "expected": 1 + n}]}
        for n in range(3)
    ]  # fmt: skip
    (places.out / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    here = {"name": "tiny", "model": str(places.model), "samples": 2, "temperature": 1.0}
    here |= {"max_new_tokens": 6, "prompt": "{instruction}"}
    gone = {"name": "gone", "model": "m", "endpoint": "http://127.0.0.1:1/v1", "attempts": 1}
    for name, models in {"here": [here], "both": [here, gone], "odd": [{"name": "x"}]}.items():
        (places.out / f"{name}.yaml").write_text(json.dumps({"models": models}))
    return places.out


def test_a_file_that_grows(codeact: Any, inputs: Path) -> None:
    line = "generate {out}/here.yaml --tasks {out}/tasks.jsonl --output {out}/c.jsonl"
    done = codeact(line + " --limit 2")
    assert (done.status, done.out) == (0, ""), done.err
    assert done.err.endswith(f"4 answers in {inputs}/c.jsonl\n")
    first = (inputs / "c.jsonl").read_text().splitlines()
    done = codeact(line)
    assert done.status == 0, done.err
    assert done.err.endswith(f"6 answers in {inputs}/c.jsonl, 4 of them from before\n")
    rows = (inputs / "c.jsonl").read_text().splitlines()
    assert set(first) < set(rows)
    assert [(row["task_id"], row["sample"]) for row in map(json.loads, rows)] == [
        (f"t{task}", sample) for task in range(3) for sample in (0, 1)
    ]
    again = codeact(line + " --no-resume")
    assert again.err.endswith(f"6 answers in {inputs}/c.jsonl\n")
    renewed = [json.loads(row) for row in (inputs / "c.jsonl").read_text().splitlines()]
    assert [row["response"] for row in renewed] == [json.loads(row)["response"] for row in rows]


def test_answers_that_are_missing_are_status_1(codeact: Any, inputs: Path) -> None:
    line = "generate {out}/both.yaml --tasks {out}/tasks.jsonl --output {out}/c.jsonl"
    done = codeact(line)
    assert (done.status, done.out) == (1, "")
    words = done.err.splitlines()[-2:]
    assert words[0] == f"6 answers in {inputs}/c.jsonl"
    assert words[1].startswith("gone: 3 missing, the same command asks again; the first, t0: no ")
    assert len((inputs / "c.jsonl").read_text().splitlines()) == 6


def test_no_answer_at_all_leaves_no_file(codeact: Any, inputs: Path) -> None:
    gone = {"name": "gone", "model": "m", "endpoint": "http://127.0.0.1:1/v1", "attempts": 1}
    (inputs / "gone.yaml").write_text(json.dumps({"models": [gone]}))
    done = codeact("generate {out}/gone.yaml --tasks {out}/tasks.jsonl --output {out}/c.jsonl")
    assert done.status == 1
    assert done.err.splitlines()[-2] == "no answer yet"
    assert not (inputs / "c.jsonl").exists()


def test_tasks_that_need_a_sandbox_say_what_is_missing(
    codeact: Any, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HumanEval+ holds no answers: without a sandbox the fixes are named, with status 3."""
    from codeact.sandbox import SandboxUnavailable

    def refuse(**_: object) -> None:
        raise SandboxUnavailable("bwrap", "not installed", ("install bubblewrap",))

    monkeypatch.setattr("codeact.sandbox.Sandbox", refuse)
    row = {"task_id": "t", "prompt": "def f(x):\n", "entry_point": "f", "base_input": [[1]]}
    row |= {"canonical_solution": "    return x\n", "plus_input": [], "contract": "", "atol": 0}
    (inputs / "plus.jsonl").write_text(json.dumps(row) + "\n")
    line = "generate {out}/here.yaml --tasks {out}/%s --output {out}/c.jsonl"
    done = codeact(line % "plus.jsonl")
    assert done.status == 3
    assert "to mend it: install bubblewrap" in done.err
    (inputs / "bad.jsonl").write_text('{"id": "x", "instruction": "y", "tests": []}\n')
    assert codeact(line % "bad.jsonl").status == 2  # no sandbox would mend that


@pytest.mark.parametrize(("more", "hint"), [("", True), (" --no-resume", False)])
def test_interrupted(
    codeact: Any, inputs: Path, monkeypatch: pytest.MonkeyPatch, more: str, hint: bool
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("codeact.tasks.load_tasks", interrupt)
    line = "generate {out}/here.yaml --tasks {out}/tasks.jsonl --output {out}/c.jsonl"
    done = codeact(line + more)
    assert done.status == 130
    assert done.err.endswith("the same command goes on from here\n") == hint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "{out}/odd.yaml --tasks {out}/tasks.jsonl --output {out}/c.jsonl",
            r"models\[0\].model is",
        ),
        ("{out}/none.yaml --tasks {out}/tasks.jsonl --output {out}/c.jsonl", "cannot be read"),
        ("{out}/here.yaml --tasks {out}/tasks.jsonl --output {out}/c.json", "must end in .jsonl"),
        ("{out}/here.yaml --tasks {out}/tasks.jsonl --output {out}/c.jsonl --limit 0", "--limit"),
        ("{out}/here.yaml --tasks {out}/tasks.jsonl --output {out}/c.jsonl --seed -1", "--seed"),
        ("{out}/here.yaml --tasks {out}/no.jsonl --output {out}/c.jsonl", r"no.jsonl"),
        ("{out}/here.yaml --tasks {out}/tasks.jsonl --output {out}/old.jsonl", "is no JSON"),
        ("{out}/here.yaml --output {out}/c.jsonl", "Missing option '--tasks'"),
    ],
)
def test_refuses(refused: Any, inputs: Path, words: str, message: str) -> None:
    refused("generate " + words, message)
