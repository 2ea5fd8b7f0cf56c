"""The whole of an evaluation on three small tasks in EvalPlus's format: files, resume, faults."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from codeact.errors import InputError
from codeact.evaluation.evaluate import evaluate
from codeact.evaluation.evaluation_folder import folder_fingerprint
from codeact.evaluation.judging.evalplus_files import EvalPlusFailed, EvalPlusVerdict
from codeact.evaluation.results import read_results, write_results
from codeact.evaluation.samples import read_samples
from codeact.models import LoadedModel, load_model
from codeact.sandbox import Sandbox

PROMPT = 'def {0}(x: int) -> int:\n    """ The next number. """\n'
DOCSTRING = '"""\nWrite a function to double.\nassert double(1) == 2\n"""\n'


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices of 32 columns are slower on two threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def task(task_id: str, prompt: str, name: str, solution: str, **more: Any) -> dict[str, Any]:
    return {
        "task_id": task_id, "prompt": prompt, "entry_point": name, "canonical_solution": solution,
        "base_input": [[1], [2]], "plus_input": [[-5]], "atol": 0, "contract": "", **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks as HumanEval+ has them and one as MBPP+ has it."""
    folder = tmp_path_factory.mktemp("bench")
    body = "    return x + 1\n"
    humaneval = [task(f"HumanEval/{i}", PROMPT.format(f"f{i}"), f"f{i}", body) for i in (0, 1)]
    double = "def double(x):\n    return 2 * x\n"
    asserts = "\nassert double(1) == 2\nassert double(2) == 4\n"
    mbpp = [task("Mbpp/3", DOCSTRING, "double", double, assertion=asserts)]
    for name, rows in (("HumanEvalPlus-v0", humaneval), ("MbppPlus-v0", mbpp)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


@pytest.fixture
def run(
    data: Path, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    monkeypatch.setenv("CODEACT_CACHE", str(tmp_path / "cache"))

    def call(model: Any, **options: Any) -> Any:
        options = {"output": tmp_path / "eval", "data": data, "evalplus": False, **options}
        return evaluate(model, sandbox=sandbox, **options)

    return call


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """One right, one right on the base tests alone, one empty."""
    rows = [
        {"task_id": "HumanEval/0", "completion": "    return x + 1\n"},
        {"task_id": "HumanEval/1", "completion": "    return abs(x) + 1\n"},
        {"task_id": "Mbpp/3", "solution": "\n# nothing\n"},
    ]
    return write(tmp_path / "answers.jsonl", rows)


def statuses(folder: Path) -> dict[str, tuple[str, str]]:
    rows = read_results(folder / "results.jsonl").rows
    return {row.task_id: (row.base_status, row.plus_status) for row in rows}


def test_a_file_is_judged_and_its_faults_count_as_failed(
    run: Any, answers: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = run(None, samples=answers)
    assert statuses(tmp_path / "eval") == {
        "HumanEval/0": ("pass", "pass"),
        "HumanEval/1": ("pass", "wrong_answer"),
        "Mbpp/3": ("empty", "empty"),
    }
    assert "1 answers empty (Mbpp/3): counted as failed" in caplog.text
    humaneval, mbpp = found.benchmarks
    assert [each.value for each in (*humaneval.base, *humaneval.plus)] == [1.0, 0.5]
    assert (mbpp.base[0].value, mbpp.kinds["empty"]) == (0.0, 1)
    described = json.loads((tmp_path / "eval" / "evaluation.json").read_text())
    assert described["summary"] == json.loads(json.dumps(found.to_json()))
    assert list(described["data_hashes"]) == ["humaneval", "mbpp"]
    assert len((tmp_path / "eval" / "samples.jsonl").read_text().splitlines()) == 3


def test_missing_and_duplicated_answers_fail_and_are_not_run(
    run: Any, answers: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    found = run(None, samples=write(answers, [rows[0], rows[0], rows[2]]))
    assert statuses(tmp_path / "eval") == {
        "HumanEval/0": ("duplicated", "duplicated"),
        "HumanEval/1": ("missing", "missing"),
        "Mbpp/3": ("empty", "empty"),
    }
    assert len(found.faults) == 3
    # A file of one benchmark is not an evaluation of the other.
    only = run(None, samples=write(answers, rows[:2]), output=tmp_path / "one")
    assert [each.benchmark for each in only.benchmarks] == ["humaneval"]
    # Nor has it to do with the one that is asked for.
    mbpp = run(None, samples=write(answers, rows), output=tmp_path / "mbpp", benchmarks=["mbpp"])
    assert [(row.task_id, row.base_status) for row in mbpp.rows] == [("Mbpp/3", "empty")]


def test_half_a_surrogate_pair_is_kept_and_is_no_program(
    run: Any, answers: Path, tmp_path: Path
) -> None:
    rows = [{"task_id": "HumanEval/0", "solution": "x = '\ud83d'"}]
    found = run(None, samples=write(answers, rows), limit=1)
    assert [(row.task_id, row.plus) for row in found.rows] == [("HumanEval/0", False)]
    kept = [*read_samples(tmp_path / "eval" / "samples.jsonl")]
    assert [each.solution for each in kept] == ["x = '\ud83d'"]


def test_a_bad_file_leaves_what_is_there(run: Any, answers: Path, tmp_path: Path) -> None:
    run(None, samples=answers)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "eval").iterdir()}
    bad = write(tmp_path / "bad.jsonl", [{"task_id": "HumanEval/7", "solution": "x = 1"}])
    with pytest.raises(InputError, match="task_id must be a task of the benchmarks"):
        run(None, samples=bad, resume=False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "eval").iterdir()} == kept


def test_two_earlier_verdicts_on_one_answer_are_none(
    run: Any, answers: Path, tmp_path: Path
) -> None:
    """As two processes leave them that were both killed while they judged one folder."""
    first = run(None, samples=answers)
    results = tmp_path / "eval" / "results.jsonl"
    lines = results.read_text().splitlines(keepends=True)
    results.write_text(lines[0] * 2 + "".join(lines[1:]))
    assert run(None, samples=answers).rows == first.rows
    description = tmp_path / "eval" / "evaluation.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), "versions": None}))
    assert run(None, samples=answers).rows == first.rows


def test_a_model_answers_and_a_killed_run_goes_on(
    run: Any, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after two answers, then after one verdict: the files end as if nothing was."""
    options = {"temperature": 1.0, "num_samples": 3, "max_new_tokens": 12}
    whole = run(tiny_model_folder, output=tmp_path / "whole", **options)
    assert whole.style.name == "chat"
    assert [each.num_samples for each in whole.benchmarks] == [3, 3]

    class KilledError(Exception):
        pass

    def killing(count: int, title: str) -> Callable[[str, str], Any]:
        def announce(stage: str, unit: str) -> Callable[[int, int], None]:
            def on_progress(done: int, total: int) -> None:
                if stage == title and done >= count:
                    raise KilledError

            return on_progress

        return announce

    for count, title in ((2, "Generate"), (1, "Run the tests")):
        with pytest.raises(KilledError):
            run(tiny_model_folder, **options, announce=killing(count, title))
    with (tmp_path / "eval" / "samples.jsonl").open("a") as torn:
        torn.write('{"benchmark": "mbpp", "ta')
    assert (tmp_path / "eval" / "judged.part.jsonl").read_text().count("\n") >= 1
    again = run(tiny_model_folder, **options)

    def kept(folder: str) -> list[tuple[Any, ...]]:
        rows = [json.loads(line) for line in (tmp_path / folder / "samples.jsonl").open()]
        return sorted((row["task_id"], row["sample"], row["response"]) for row in rows)

    assert kept("eval") == kept("whole")
    assert again.rows == whole.rows
    assert not (tmp_path / "eval" / "judged.part.jsonl").exists()
    # Nothing is asked or run again once all is there.
    monkeypatch.setattr("codeact.evaluation.answering.asking.PreparedModel.load", None)
    monkeypatch.setattr("codeact.evaluation.judging.judge.check", None)
    assert run(tiny_model_folder, **options).rows == whole.rows


def test_verdicts_go_with_their_answers(run: Any, tiny_model_folder: Path, tmp_path: Path) -> None:
    options = {"benchmarks": ["mbpp"], "max_new_tokens": 4}
    first = run(tiny_model_folder, **options)
    results = tmp_path / "eval" / "results.jsonl"
    passed = replace(first.rows[0], base=True, plus=True, base_status="pass", plus_status="pass")
    write_results(results, [passed])
    assert run(tiny_model_folder, **options).rows == (passed,)
    (tmp_path / "eval" / "samples.jsonl").unlink()
    assert run(tiny_model_folder, **options).rows == first.rows


def test_other_settings_are_refused_until_told_otherwise(
    run: Any, tiny_model_folder: Path, tmp_path: Path
) -> None:
    run(tiny_model_folder, max_new_tokens=4, benchmarks=["mbpp"])
    with pytest.raises(InputError, match="holds answers with max_new_tokens 4, not 5; choose"):
        run(tiny_model_folder, max_new_tokens=5, benchmarks=["mbpp"])
    more = run(tiny_model_folder, max_new_tokens=4)
    assert [each.num_tasks for each in more.benchmarks] == [2, 1]
    with pytest.raises(InputError, match="sample 0 of HumanEval/1, which is not asked for"):
        run(tiny_model_folder, max_new_tokens=4, limit=1)
    fewer = run(tiny_model_folder, max_new_tokens=5, limit=1, resume=False)
    assert [each.num_tasks for each in fewer.benchmarks] == [1, 1]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="new or empty folder or that of an evaluation"):
        run(tiny_model_folder, output=tmp_path / "other", resume=False)
    assert (tmp_path / "other" / "thesis.tex").exists()


def test_a_loaded_model_is_known_by_its_weights(
    run: Any, tiny_model_folder: Path, tmp_path: Path
) -> None:
    loaded: LoadedModel = load_model(tiny_model_folder, dtype="float32", device="cpu")
    options = {"max_new_tokens": 4, "benchmarks": ["mbpp"]}
    first = run(loaded, **options)
    by_folder = run(tiny_model_folder, output=tmp_path / "folder", **options)
    assert first.rows == by_folder.rows
    with torch.no_grad():
        next(iter(loaded.model.parameters())).mul_(1.01)
    with pytest.raises(InputError, match="holds answers with model_hash "):
        run(loaded, **options)


def test_a_folder_is_known_by_its_weights_and_not_by_notes(tiny_model_folder: Path) -> None:
    before = folder_fingerprint(tiny_model_folder)
    note = tiny_model_folder / "training.json"
    note.write_text("{}")
    try:
        assert folder_fingerprint(tiny_model_folder) == before
    finally:
        note.unlink()
    odd = tiny_model_folder / "more.safetensors"
    odd.write_bytes(b"")
    try:
        assert folder_fingerprint(tiny_model_folder) != before
    finally:
        odd.unlink()
    assert folder_fingerprint("someone/model") == "someone/model"


def test_evalplus_stands_beside_and_differences_are_listed(
    run: Any, answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it passes all of HumanEval and crashes on MBPP."""
    asked: dict[str, dict[str, list[str]]] = {}

    def fake(benchmark: str, data: Path, solutions: Any, **options: Any) -> Any:
        asked[benchmark] = dict(solutions)
        if benchmark == "mbpp":
            raise EvalPlusFailed("it fell over")
        return {(name, 0): EvalPlusVerdict("pass", "pass") for name in solutions}

    monkeypatch.setattr("codeact.evaluation.judging.second_opinion.run_evalplus", fake)
    monkeypatch.setattr("codeact.evaluation.judging.second_opinion.find_evalplus", lambda: None)
    found = run(None, samples=answers, evalplus=None)
    assert asked["mbpp"] == {"Mbpp/3": [""]}
    assert asked["humaneval"]["HumanEval/0"] == [PROMPT.format("f0") + "    return x + 1\n"]
    humaneval, mbpp = found.benchmarks
    assert (humaneval.evalplus_base, humaneval.evalplus_plus) == (1.0, 1.0)
    assert mbpp.evalplus_plus is None
    assert found.evalplus_error == "mbpp: it fell over"
    lines = (tmp_path / "eval" / "disagreements.jsonl").read_text().splitlines()
    differing = [json.loads(line) for line in lines]
    assert [(each["task_id"], each["metric"]) for each in differing] == [("HumanEval/1", "plus")]
    # What it has said is kept; what it has not is asked again.
    asked.clear()
    run(None, samples=answers, evalplus=None)
    assert list(asked) == ["mbpp"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": None}, "either a model or samples, got both or neither"),
        ({"benchmarks": ["apps"]}, "benchmarks must be among humaneval, mbpp, got 'apps'"),
        ({"benchmarks": []}, "benchmarks must name at least 1"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"data": Path("/nowhere")}, "/nowhere"),
        ({"samples": Path("/nowhere.jsonl")}, "/nowhere.jsonl cannot be read"),
    ],
)
def test_refuses(run: Any, answers: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(None, **{"samples": answers, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 2}, "num_samples must be 1 at temperature 0"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"temperature": -1.0}, "temperature must be finite"),
        ({"style": "chatml"}, "style must be one of auto, chat"),
    ],
)
def test_refuses_before_a_model_is_read(
    run: Any, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run("/nowhere", **options)
    assert not (tmp_path / "eval").exists()


def test_workers_of_its_own_sandbox(data: Path, answers: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="workers must be at least 1, got 0"):
        evaluate(None, samples=answers, data=data, output=tmp_path / "eval", workers=0)
