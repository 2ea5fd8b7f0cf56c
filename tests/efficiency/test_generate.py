"""Candidates from models, here and behind a server, in one file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # chat_server
from chat_server import ChatServer

from codeact.efficiency.generation.generate import generate_candidates
from codeact.efficiency.generation.questions import sample_seed
from codeact.efficiency.generation.recipe import CandidateRecipe
from codeact.efficiency.inputs.candidates import load_candidates
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


def test_two_models_in_one_file(here: dict[str, Any], tmp_path: Path) -> None:
    output = tmp_path / "c.jsonl"
    with ChatServer() as server:
        wanted = recipe(here, remote(server, samples=2, temperature=0.5), seed=3)
        summary = generate_candidates(TASKS, wanted, output=output)
    rows = read(output)
    assert names(rows) == [
        (task.id, origin, n) for task in TASKS for origin in ("here", "there") for n in (0, 1)
    ]
    assert (summary.num_written, summary.num_kept, summary.failures) == (20, 0, ())
    assert summary.response_tokens == {
        "here": sum(row["response_tokens"] for row in rows if row["origin"] == "here"),
        "there": 3 * 10,
    }
    assert rows[2]["response"].startswith("echo: Solve this task.")
    assert "Add 0 to a number." in rows[2]["response"]
    assert {row["seed"] for row in rows if row["task_id"] == "task-0"} == {
        sample_seed(3, origin, "task-0", n) for origin in ("here", "there") for n in (0, 1)
    }
    assert len({row["key"] for row in rows}) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["c.jsonl"]
    candidates = load_candidates(output, TASKS)
    assert {candidate.origin for candidate in candidates} == {"here", "there"}
    assert sum(candidate.copies for candidate in candidates) == 20


def test_answers_of_a_model_here_are_those_of_transformers(
    here: dict[str, Any], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    greedy = {**here, "samples": 1, "temperature": 0.0}
    generate_candidates(TASKS, recipe(greedy), output=tmp_path / "c.jsonl")
    model = AutoModelForCausalLM.from_pretrained(here["model"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(here["model"])
    for task, row in zip(TASKS, read(tmp_path / "c.jsonl"), strict=True):
        turns = [{"role": "user", "content": task.instruction}]
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")
        new = model.generate(**ids, do_sample=False, max_new_tokens=8)[0, ids.input_ids.shape[1] :]
        assert row["response"] == tokenizer.decode(new, skip_special_tokens=True)
        assert row["prompt_tokens"] == ids.input_ids.shape[1]
        assert row["finish"] == ("stop" if int(new[-1]) == 2 else "length")


def test_answers_that_fail_are_named_and_asked_for_again(tmp_path: Path) -> None:
    output = tmp_path / "c.jsonl"
    with ChatServer(None, 400, None, 500, 500) as server:
        entry = remote(server, concurrency=1)
        summary = generate_candidates(TASKS, recipe(entry), output=output)
        assert [failure[:3] for failure in summary.failures] == [
            ("task-1", "there", 0),
            ("task-3", "there", 0),
        ]
        assert summary.failures[0].reason.startswith("HTTP status 400 Bad Request")
        assert summary.failures[1].reason.startswith("no answer in 2 attempts, the last: HTTP sta")
        assert (summary.num_written, summary.num_missing) == (3, 2)
        assert names(read(output)) == [(f"task-{n}", "there", 0) for n in (0, 2, 4)]
        again = generate_candidates(TASKS, recipe(entry), output=output)
    assert (again.num_kept, again.num_written, again.failures) == (3, 2, ())
    assert names(read(output)) == [(f"task-{n}", "there", 0) for n in range(5)]


def test_a_server_that_refuses_the_key_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEACT_TEST_KEY", KEY)
    output = tmp_path / "c.jsonl"
    with ChatServer(401) as refusing, ChatServer() as willing:
        wanted = recipe(
            remote(refusing, "a", concurrency=1, key_variable="CODEACT_TEST_KEY"),
            remote(willing, "b", key_variable="CODEACT_TEST_KEY"),
        )
        summary = generate_candidates(TASKS, wanted, output=output)
    assert len(refusing.requests) == 1
    assert [failure.origin for failure in summary.failures] == ["a"] * 5
    assert summary.failures[0].reason.startswith("HTTP status 401")
    assert summary.failures[1].reason.startswith("not sent, after: HTTP status 401")
    assert len(read(output)) == 5
    assert willing.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in output.read_text() + repr(summary) + repr(wanted)


def test_a_server_that_is_gone_is_left_alone_after_a_while(tmp_path: Path) -> None:
    tasks = [Task(f"t{n}", "Add.", TESTS, None) for n in range(50)]
    with ChatServer() as server:
        server.forever = 503
        entry = remote(server, concurrency=2, attempts=1)
        summary = generate_candidates(tasks, recipe(entry), output=tmp_path / "c.jsonl")
    assert summary.num_missing == 50
    assert 8 <= len(server.requests) <= 8 + 2
    assert not (tmp_path / "c.jsonl").exists()


def test_requests_go_out_together_and_not_more_than_allowed(tmp_path: Path) -> None:
    with ChatServer() as server:
        server.seconds = 0.1
        tasks = [Task(f"t{n}", "Add.", TESTS, None) for n in range(12)]
        generate_candidates(
            tasks, recipe(remote(server, concurrency=4)), output=tmp_path / "c.jsonl"
        )
    assert server.most_at_once == 4


def test_a_prompt_too_long_for_a_model_fails_alone(here: dict[str, Any], tmp_path: Path) -> None:
    tasks = [*TASKS[:2], Task("long", "word " * 200, TESTS, None)]
    summary = generate_candidates(tasks, recipe(here), output=tmp_path / "c.jsonl")
    assert [failure[:3] for failure in summary.failures] == [
        ("long", "here", 0),
        ("long", "here", 1),
    ]
    assert "tokens, the model takes 512" in summary.failures[0].reason
    assert len(read(tmp_path / "c.jsonl")) == 4


def test_what_is_wrong_with_the_last_model_is_said_before_the_first_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CODEACT_TEST_KEY", raising=False)
    with ChatServer() as server:
        first = remote(server, "a")
        unset = remote(server, "b", key_variable="CODEACT_TEST_KEY")
        with pytest.raises(InputError, match=r"model b: .*CODEACT_TEST_KEY.* is not set"):
            generate_candidates(TASKS, recipe(first, unset), output=tmp_path / "c.jsonl")
        nowhere = {"name": "c", "model": str(tmp_path / "nowhere")}
        with pytest.raises(InputError, match=r"model c: model .* is not a folder"):
            generate_candidates(TASKS, recipe(first, nowhere), output=tmp_path / "c.jsonl")
    assert server.requests == []
    assert os.listdir(tmp_path) == []
