"""The file of answers: whole whatever interrupts it, and without answers to something else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # chat_server
from chat_server import ChatServer

from codeact.efficiency.generation.generate import GenerationSummary, generate_candidates
from codeact.efficiency.generation.recipe import CandidateRecipe
from codeact.errors import InputError
from codeact.sandbox.tests import Call, FunctionTests
from codeact.tasks.task_file import Task

KEY = "sk-very-secret"
TESTS = FunctionTests("f", (Call((1,)),), (2,))
TASKS = [Task(f"task-{n}", f"Add {n} to a number.", TESTS, None) for n in range(5)]


def recipe(*models: dict[str, Any], **more: Any) -> CandidateRecipe:
    return CandidateRecipe.model_validate({"models": list(models), **more})


def remote(server: ChatServer, name: str = "there", **more: Any) -> dict[str, Any]:
    waits = {"timeout_seconds": 5.0, "attempts": 2, "backoff_seconds": 0.01}
    return {"name": name, "model": "tiny", "endpoint": server.url, **waits, **more}


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def timeless(path: Path) -> list[dict[str, Any]]:
    return [{**row, "seconds": None} for row in read(path)]


def names(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["task_id"], row["origin"], row["sample"]) for row in rows]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def here(tiny_model_folder: Path) -> dict[str, Any]:
    """A random model that takes one token for each byte."""
    return {"name": "here", "model": str(tiny_model_folder), "samples": 2, "temperature": 1.0,
            "max_new_tokens": 8, "prompt": "{instruction}"}  # fmt: skip


class _StoppedError(Exception):
    pass


def stop_after(count: int) -> Callable[[int, int], None]:
    def on_progress(done: int, total: int) -> None:
        if done == count:
            raise _StoppedError

    return on_progress


def test_an_interrupted_file_is_the_whole_one_in_the_end(
    here: dict[str, Any], tmp_path: Path
) -> None:
    with ChatServer() as server:
        wanted = recipe(here, remote(server, samples=3, temperature=1.0))
        generate_candidates(TASKS, wanted, output=tmp_path / "whole.jsonl")
        output = tmp_path / "c.jsonl"
        for count in (1, 4, 11, 24):
            with pytest.raises(_StoppedError):
                generate_candidates(TASKS, wanted, output=output, on_progress=stop_after(count))
            assert not output.exists()
            part = tmp_path / "c.jsonl.part"
            assert len(read(part)) == count
            with part.open("a") as torn:
                torn.write('{"task_id": "task-0", "ori')
        summary = generate_candidates(TASKS, wanted, output=output)
    assert (summary.num_kept, summary.num_written) == (24, 1)
    assert timeless(output) == timeless(tmp_path / "whole.jsonl")
    assert not part.exists()


_KILLED = """
import json, sys
from pathlib import Path
from codeact.efficiency.generation.generate import generate_candidates
from codeact.efficiency.generation.recipe import CandidateRecipe
from types import SimpleNamespace
from codeact.sandbox.tests import Call, FunctionTests

same = {"tests": FunctionTests("f", (Call((1,)),), (2,)), "language": "python", "prompt_code": ""}
# Like a Task, whose module takes seconds to import.
tasks = [SimpleNamespace(id=f"task-{n}", instruction=f"Add {n}.", **same) for n in range(40)]
generate_candidates(tasks, CandidateRecipe.model_validate(json.loads(sys.argv[1])),
                    output=sys.argv[2])
"""


def test_a_killed_process_loses_nothing_and_asks_nothing_twice(tmp_path: Path) -> None:
    output = tmp_path / "c.jsonl"
    part = tmp_path / "c.jsonl.part"
    with ChatServer() as server:
        server.seconds = 0.01
        entry = remote(server, samples=2, temperature=1.0, concurrency=2)
        words = [sys.executable, "-c", _KILLED, json.dumps({"models": [entry]}), str(output)]
        for goal in (10, 30, 60):
            process = subprocess.Popen(words)
            deadline = time.monotonic() + 30
            while not part.exists() or part.read_bytes().count(b"\n") < goal:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.002)
            process.kill()
            process.wait()
        subprocess.run(words, check=True)
    rows = read(output)
    assert names(rows) == [(f"task-{t}", "there", n) for t in range(40) for n in (0, 1)]
    # What was under way at a kill (2 at a time), or answered and not yet written, is asked again.
    assert 80 <= len(server.requests) <= 80 + 3 * 4


def test_more_tasks_samples_and_models_ask_for_what_is_missing(tmp_path: Path) -> None:
    output = tmp_path / "c.jsonl"
    with ChatServer() as server:
        first = remote(server, "a", samples=1, temperature=1.0)
        generate_candidates(TASKS[:2], recipe(first), output=output)
        wanted = recipe({**first, "samples": 2}, remote(server, "b"))
        summary = generate_candidates(TASKS, wanted, output=output)
        assert (summary.num_kept, summary.num_written) == (2, 13)
        assert len(server.requests) == 15
        again = generate_candidates(TASKS, wanted, output=output)
        assert (again.num_kept, again.num_written, len(server.requests)) == (15, 0, 15)
    assert names(read(output)) == [
        (task.id, *answer) for task in TASKS for answer in (("a", 0), ("a", 1), ("b", 0))
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.9}, "answer 0 of there to task-0, of other settings or another prompt"),
        ({"model": "other"}, "of other settings"),
        ({"prompt": "Now: {instruction}"}, "of other settings"),
        ({"samples": 1}, "answer 1 of there to task-0, for which recipe and tasks do not ask"),
        ({"name": "else"}, "answer 0 of there to task-0, for which"),
    ],
)
def test_answers_to_something_else_are_never_mixed_in(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    output = tmp_path / "c.jsonl"
    with ChatServer() as server:
        entry = remote(server, samples=2, temperature=1.0)
        generate_candidates(TASKS, recipe(entry), output=output)
        before = output.read_bytes()
        with pytest.raises(InputError, match=rf"{message}.*choose another --output, or replace"):
            generate_candidates(TASKS, recipe({**entry, **change}), output=output)
        assert (output.read_bytes(), len(server.requests)) == (before, 10)
        summary = generate_candidates(
            TASKS, recipe({**entry, **change}), output=output, resume=False
        )
    assert summary.num_kept == 0
    assert output.read_bytes() != before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"task_id": "task-0", "source": "x = 1"}', "rows that codeact generate has not written"),
        (
            '{"task_id": ["x"], "origin": {}, "sample": 0, "key": "k", "response": "r"}',
            "rows that codeact generate has not written",
        ),
        ("{", "line 1 is no JSON"),
        ("[]", "line 1 must be a JSON object"),
    ],
)
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, line: str, message: str) -> None:
    output = tmp_path / "c.jsonl"
    output.write_text(line + "\n")
    with ChatServer() as server, pytest.raises(InputError, match=message):
        generate_candidates(TASKS, recipe(remote(server)), output=output)
    assert (output.read_text(), server.requests) == (line + "\n", [])


def test_two_processes_do_not_write_to_one_file(tmp_path: Path) -> None:
    with ChatServer() as server:
        wanted = recipe(remote(server))
        summary: list[GenerationSummary] = []

        def meanwhile(done: int, total: int) -> None:
            if done == 1:
                with pytest.raises(InputError, match=r"another process is writing to .*part"):
                    generate_candidates(TASKS, wanted, output=tmp_path / "c.jsonl")

        summary.append(
            generate_candidates(TASKS, wanted, output=tmp_path / "c.jsonl", on_progress=meanwhile)
        )
    assert summary[0].num_written == len(read(tmp_path / "c.jsonl")) == 5
