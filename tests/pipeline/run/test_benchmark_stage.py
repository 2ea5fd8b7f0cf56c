"""Benchmarks inside a run: what is asked, what is kept, what is refused before any training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codeact.errors import InputError
from codeact.evaluation.comparing.run_report import compare_run_pair
from codeact.evaluation.comparing.runs import read_run
from codeact.evaluation.samples import Sample
from codeact.files import read_json, read_jsonl
from codeact.pipeline.recipe import Recipe
from codeact.pipeline.run import run_recipe
from codeact.sandbox import Sandbox, SandboxUnavailable

ROOT = "evaluation/benchmarks"
ARMS = ("base", "random", "selected")
RIGHT, WRONG = "    return x + 1\n", "    return x\n"
NUM_RIGHT = {"base": 0, "random": 1, "selected": 2}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks as HumanEval+ has them."""
    rows = [
        {
            "task_id": f"HumanEval/{i}", "prompt": f'def f{i}(x):\n    """ The next. """\n',
            "entry_point": f"f{i}", "canonical_solution": RIGHT, "base_input": [[1]],
            "plus_input": [[-5]], "atol": 0, "contract": "",
        }
        for i in range(2)
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("bench") / "HumanEvalPlus-v0.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def asked(finished: Any, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The finished run's recipe with a benchmark; EvalPlus counts as not installed."""

    def not_installed() -> None:
        raise ImportError("pip install evalplus")

    monkeypatch.setenv("CODEACT_CACHE", str(tmp_path / "cache"))
    opinion = "codeact.evaluation.judging.second_opinion.find_evalplus"
    monkeypatch.setattr(opinion, not_installed)
    return changed(
        finished.recipe, benchmarks=["humaneval"], benchmark_data=str(tasks), max_new_tokens=6
    )


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Instead of the models': 0, 1 and 2 right ones by arm. Holds the arms that were asked."""
    asked: list[str] = []

    def answer(_: Any, problems: Any, wanted: Any, *words: Any, **options: Any) -> Iterator[Sample]:
        arm = ARMS[len(set(asked))]
        asked.append(arm)
        for number, problem in enumerate(p for p in problems if p.task_id in wanted):
            body = RIGHT if number < NUM_RIGHT[arm] else WRONG
            yield Sample(
                problem.benchmark, problem.task_id, 0, body, problem.prompt + body, 0.1, 5, "stop"
            )

    monkeypatch.setattr("codeact.evaluation.answering.generation.generate_samples", answer)
    return asked


def changed(recipe: Recipe, section: str = "evaluate", **keys: Any) -> Recipe:
    values = recipe.model_dump()
    values[section] |= keys
    return Recipe.model_validate(values)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_models_answer_and_are_compared(
    asked: Recipe, copied: Path, announced: Any, sandbox: Sandbox, method: str
) -> None:
    """Real answers of the tiny models, which are no programs."""
    steps: list[tuple[int, int]] = []

    def note(stage: str, done: int, total: int) -> None:
        if stage == "benchmarks":
            steps.append((done, total))

    listener = announced(note)
    run_recipe(changed(asked, "train", method=method), copied, listener)
    assert listener.begun[-2:] == ["benchmarks", "report"]
    assert ("train-selected" in listener.begun) == (method == "lora")
    assert steps == sorted(steps)
    assert steps[-1] == (12, 12)  # two answers of three models, each written and tested
    settings = [read_json(copied / ROOT / arm / "evaluation.json")["settings"] for arm in ARMS]
    assert len({one["model_hash"] for one in settings}) == 3
    assert {one["style"] for one in settings} == {"chat"}
    arms = read_json(copied / ROOT / "comparison.json")["arms"]
    for arm in ARMS:
        samples = list(read_jsonl(copied / ROOT / arm / "samples.jsonl"))
        assert [one["task_id"] for one in samples] == ["HumanEval/0", "HumanEval/1"]
        assert all(one["num_tokens"] <= 6 for one in samples)
        assert arms[arm]["benchmarks"]["humaneval"]["plus"]["value"] == 0
    again = announced()
    run_recipe(changed(asked, "train", method=method), copied, again)
    assert again.begun == []


def test_numbers_are_those_of_codeact_compare(
    asked: Recipe, copied: Path, announced: Any, sandbox: Sandbox, answers: list[str]
) -> None:
    run_recipe(asked, copied, announced())
    found = read_json(copied / ROOT / "comparison.json")
    rates = {arm: one["benchmarks"]["humaneval"] for arm, one in found["arms"].items()}
    assert {arm: one["base"]["value"] for arm, one in rates.items()} == {
        "base": 0.0, "random": 0.5, "selected": 1.0
    }  # fmt: skip
    runs = {arm: read_run(copied / ROOT / arm) for arm in ARMS}
    against = ["random", "base"]
    for pair, a, b in zip(found["pairs"], ["selected"] * 2, against, strict=True):
        report = compare_run_pair(runs[a], runs[b], seed=asked.seed)
        assert (pair["a"], pair["b"]) == (a, b)
        assert pair["lines"] == report.lines()
        assert pair["comparisons"][1]["difference"] == (0.5 if b == "random" else 1.0)
    page = (copied / "report.html").read_text()
    assert "HumanEval+: no significant difference between CDAS and random" in page


def test_a_run_that_was_interrupted_goes_on_with_the_next_model(
    asked: Recipe, copied: Path, announced: Any, sandbox: Sandbox, answers: list[str]
) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "benchmarks" and done > total / 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recipe(asked, copied, announced(stop))
    assert answers == ["base", "random"]
    answers.remove("random")  # of which one of two answers was kept
    run_recipe(asked, copied, announced())
    assert answers == ["base", "random", "selected"]
    (results,) = read_run(copied / ROOT / "random").seeds
    assert results.verdicts("humaneval", "base").keys() == {"HumanEval/0", "HumanEval/1"}


def test_a_damaged_file_repeats_its_model_alone(
    asked: Recipe, copied: Path, announced: Any, sandbox: Sandbox, answers: list[str]
) -> None:
    run_recipe(asked, copied, announced())
    damaged = copied / ROOT / "random/samples.jsonl"
    expected = [row["task_id"] for row in read_jsonl(damaged)]
    damaged.write_text("{}\n")
    answers[:] = ["base"]
    listener = announced()
    run_recipe(asked, copied, listener)
    # The report too, if the times that an evaluation notes are others.
    assert (listener.begun[0], answers) == ("benchmarks", ["base", "random"])
    assert not {*listener.begun} - {"benchmarks", "report"}
    assert [row["task_id"] for row in read_jsonl(damaged)] == expected


def test_other_tasks_are_answered_anew_and_none_leave_nothing(
    asked: Recipe, copied: Path, announced: Any, sandbox: Sandbox, answers: list[str]
) -> None:
    run_recipe(asked, copied, announced())
    answers.clear()
    limited = announced()
    run_recipe(changed(asked, limit=1), copied, limited)
    assert (limited.begun, answers) == (["benchmarks", "report"], list(ARMS))
    assert len(list(read_jsonl(copied / ROOT / "base/results.jsonl"))) == 1
    without = announced()
    run_recipe(changed(asked, benchmarks=[]), copied, without)
    assert without.begun == ["report"]
    assert [path for path in (copied / ROOT).rglob("*") if path.is_file()] == []
    assert 'id="benchmarks"' not in (copied / "report.html").read_text()


def test_without_a_sandbox_nothing_begins(
    asked: Recipe, tmp_path: Path, announced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_holds(external: bool) -> None:
        raise SandboxUnavailable("bwrap", "it is not installed")

    monkeypatch.setattr("codeact.sandbox.tiers.choose_tier", none_holds)
    listener = announced()
    with pytest.raises(SandboxUnavailable, match="not installed"):
        run_recipe(asked, tmp_path / "new", listener)
    assert (listener.begun, (tmp_path / "new").exists()) == ([], False)


@pytest.mark.parametrize(
    ("benchmarks", "message"),
    [(["mbpp"], "must hold tasks of mbpp, whose ids begin with Mbpp/, got 'HumanEval/0'"),
     (["humaneval"], "nowhere: not found")],
)  # fmt: skip
def test_files_of_another_benchmark_or_none_are_refused_at_once(
    asked: Recipe, tmp_path: Path, announced: Any, benchmarks: list[str], message: str
) -> None:
    keys: dict[str, Any] = {"benchmarks": benchmarks}
    if benchmarks == ["humaneval"]:
        keys["benchmark_data"] = str(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"evaluate\.benchmarks: ") as caught:
        run_recipe(changed(asked, **keys), tmp_path / "new", announced())
    assert message in str(caught.value)
    assert not (tmp_path / "new").exists()
