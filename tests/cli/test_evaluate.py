"""``codeact evaluate``: the table, the summary, and what is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codeact.cli.evaluate import evaluation_words
from codeact.evaluation.answering.prompts import PromptStyle
from codeact.evaluation.comparing.pass_at_k import PassAtK
from codeact.evaluation.judging.disagreements import Disagreement
from codeact.evaluation.summary import BenchmarkSummary, Evaluation


@pytest.fixture
def bench(places: Any) -> Path:
    """A benchmark of two tasks, and answers to them of which the second is wrong on plus."""
    folder = Path(places.out) / "bench"
    folder.mkdir()
    tasks = [
        {
            "task_id": f"HumanEval/{i}", "entry_point": "f", "atol": 0, "contract": "",
            "prompt": 'def f(x: int) -> int:\n    """ The next. """\n',
            "canonical_solution": "    return x + 1\n",
            "base_input": [[1], [2]], "plus_input": [[-5]],
        }
        for i in (0, 1)
    ]  # fmt: skip
    (folder / "HumanEvalPlus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tasks))
    completions = ("    return x + 1\n", "    return abs(x) + 1\n")
    rows = [{"task_id": f"HumanEval/{i}", "completion": text} for i, text in enumerate(completions)]
    answers = places.out / "answers.jsonl"
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_file_and_a_model(codeact: Any, places: Any, bench: Path, sandbox: Any) -> None:
    line = "evaluate --data {out}/bench --no-evalplus --workers 1 --output {out}/%s "
    done = codeact(line % "file" + "--samples {out}/answers.jsonl")
    assert done.status == 0, done.err
    summary = json.loads(done.out)["benchmarks"]["humaneval"]
    assert [summary[name][0]["value"] for name in ("base", "plus")] == [1.0, 0.5]
    table = [row.split()[:2] for row in done.err.splitlines()[-4:-1]]
    assert table == [["pass@1", "95"], ["HumanEval", "100.0"], ["HumanEval+", "50.0"]]
    words = "{model} --benchmark humaneval --limit 1 --max-new-tokens 8 --num-samples 2"
    sampled = codeact(line % "model" + words + " --temperature 0.8 --style deepseek")
    assert sampled.status == 0, sampled.err
    assert "HumanEval: 2 answers to 1 tasks" in sampled.err
    assert sampled.err.endswith("prompts in style deepseek\n")
    kept = (places.out / "model" / "samples.jsonl").read_text().splitlines()
    assert [json.loads(row)["num_tokens"] <= 8 for row in kept] == [True, True]


def test_the_words_name_everything_that_a_reader_must_know() -> None:
    def at(k: int, value: float) -> PassAtK:
        return PassAtK(k, value, (value - 0.1, value + 0.1), 4, 10, 0.95)

    kinds = {"whole": 35, "empty": 0, "truncated": 3, "unparsable": 2, "truncated_passed": 1}
    each = BenchmarkSummary(
        "mbpp", 4, 10, (at(1, 0.5), at(10, 0.75)), (at(1, 0.25), at(10, 0.5)), {"pass": 10},
        kinds, 0.55, 0.3, 999,
    )  # fmt: skip
    one = Disagreement("mbpp", "Mbpp/2", 0, "plus", "timeout", "pass", "time_limit", "slow")
    style = PromptStyle("alpaca", "chat", "")
    found = Evaluation(
        Path("eval"), (each,), (), (one,), style, ("2 answers missing",), "it fell over", {}
    )
    assert evaluation_words(found)[1:] == [
        "MBPP                    50.0  40.0 to 60.0        55.0",
        "MBPP pass@10            75.0  65.0 to 85.0           -",
        "MBPP+                   25.0  15.0 to 35.0        30.0",
        "MBPP+ pass@10           50.0  40.0 to 60.0           -",
        "MBPP: 38 answers to 4 tasks, 2 unparsable, 3 cut at their length, of which 1 pass",
        "prompts in style alpaca, as there is no template",
        "2 answers missing",
        "1 verdicts differ from EvalPlus's: eval/disagreements.jsonl",
        "no number of EvalPlus: it fell over",
    ]


def test_no_sandbox_is_status_3_before_a_model_is_read(
    codeact: Any, bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from codeact.sandbox import SandboxUnavailable

    def none(*args: object, **options: object) -> None:
        raise SandboxUnavailable("bwrap", "not here")

    monkeypatch.setattr("codeact.sandbox.Sandbox", none)
    line = "evaluate {model} --benchmark humaneval --data {out}/bench --output {out}/e"
    done = codeact(line)
    assert (done.status, done.out) == (3, "")
    assert done.err == "codeact evaluate: error: no sandbox here: bwrap: not here\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "needs either MODEL or --samples, got both or neither"),
        ("{model} --samples {out}/answers.jsonl", "needs either MODEL or --samples"),
        ("{model} --num-samples 0", "--num-samples must be at least 1, got 0"),
        ("{model} --num-samples 3", "num_samples must be 1 at temperature 0, .+ got 3"),
        ("{model} --temperature nan", "temperature must be finite and at least 0, got nan"),
        ("{model} --top-p 0", r"top_p must lie in \(0, 1\], got 0"),
        ("{model} --limit 0", "--limit must be at least 1, got 0"),
        ("{model} --workers 0", "--workers must be at least 1, got 0"),
        ("{model} --seed -1", "--seed must be from 0"),
        ("{model} --style chatml", "style must be one of auto, chat, .+ got 'chatml'"),
        ("{model} --benchmark apps", "benchmarks must be among humaneval, mbpp, got 'apps'"),
        ("{model} --data {out}/none", "none"),
        ("{model} --data {out}/bench", "Mbpp|mbpp"),
        ("--samples {out}/none.jsonl", "none.jsonl cannot be read: No such file"),
        ("--samples {out}/bench", "bench cannot be read: Is a directory"),
    ],
)
def test_refuses(refused: Any, bench: Path, words: str, message: str) -> None:
    data = "" if "--data" in words else " --data {out}/bench"
    refused(f"evaluate {words}{data} --output {{out}}/e", message)


def test_refuses_a_folder_of_other_things(refused: Any, places: Any, bench: Path) -> None:
    line = "evaluate --samples {out}/answers.jsonl --data {out}/bench --output "
    refused(line + "{out}", "new or empty folder or that of an evaluation, .+ holds other files")
    refused(line + "{out}/old.jsonl", "output must be a folder, got the file")
