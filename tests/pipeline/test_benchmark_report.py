"""What the report says of benchmarks and of the cost of training, from files alone."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from codeact.evaluation.comparing.run_report import compare_run_pair
from codeact.evaluation.comparing.runs import read_run
from codeact.evaluation.results import ResultRow, write_results
from codeact.files import read_json, write_json, write_text
from codeact.pipeline.recipe import EvaluateSection, Recipe
from codeact.pipeline.report import write_report

MakeRun = Callable[..., Path]
NUM_TASKS = 40
SOLVED = {"base": range(4), "random": range(20), "selected": range(2, 24)}  # task numbers


def text_of(page: Path) -> str:
    """The page's words, one blank between any two."""
    body = page.read_text(encoding="utf-8").partition("<main>")[2]
    plain = re.sub(r"<script.*?</script>|<[^>]+>", " ", body, flags=re.DOTALL)
    return " ".join(html.unescape(plain).split())


def ask_for_benchmarks(run: Path, **keys: Any) -> None:
    section = EvaluateSection(benchmarks=["humaneval"], **keys)
    write_text(run / "recipe.yaml", Recipe(name="synthetic", evaluate=section).to_yaml())


def write_comparison(run: Path, **facts: Any) -> None:
    """Plus tests fail the last task that the base tests pass."""
    root, arms, runs = run / "evaluation/benchmarks", {}, {}
    for arm, solved in SOLVED.items():
        rows = [
            ResultRow("humaneval", f"HumanEval/{i}", 0, base, plus, *(2 * ("pass",)))
            for i in range(NUM_TASKS)
            for base, plus in [(i in solved, i in solved[:-1])]
        ]
        write_results(root / arm / "results.jsonl", rows)
        runs[arm] = read_run(root / arm)
        found: dict[str, Any] = {"num_tasks": NUM_TASKS, "evalplus_base": None}
        found |= {"evalplus_plus": len(solved) / NUM_TASKS}
        for metric, num in (("base", len(solved)), ("plus", len(solved) - 1)):
            found[metric] = {"value": num / NUM_TASKS, "interval": [0.123, 0.987]}
        style = {"name": "chat", "asked": "auto", "response_prefix": ""}
        arms[arm] = {"benchmarks": {"humaneval": found}, "style": style, **facts}
    pairs = []
    for a, b in (("selected", "random"), ("selected", "base")):
        report = compare_run_pair(runs[a], runs[b])
        pairs.append({**report.to_json(), "lines": report.lines()})
    write_json(root / "comparison.json", {"arms": arms, "pairs": pairs})


def test_rates_pairs_and_disagreements_are_those_of_the_files(make_run: MakeRun) -> None:
    run = make_run()
    ask_for_benchmarks(run, limit=NUM_TASKS)
    write_comparison(run, disagreements={"time_limit": 1, "unexplained": 2}, evalplus_error=None)
    page = text_of(write_report(run))
    base = binomtest(4, 6).pvalue  # tasks that CDAS or random alone solves: 20 to 23, 0 and 1
    plus = binomtest(4, 6).pvalue  # 19 to 22
    holm = min(1.0, 2 * base)
    for words in (
        "Every model answered the first 40 tasks of HumanEval, each once, by the likeliest tokens",
        "HumanEval before training 10.0 12.3 to 98.7 —",
        "HumanEval+ random 47.5 12.3 to 98.7 50.0",
        "HumanEval+ CDAS 52.5",
        "HumanEval: no significant difference between CDAS and random (55.0 % against 50.0 %",
        "HumanEval: CDAS is better than base (55.0 % against 10.0 %",
        "CDAS − random HumanEval 40 +5.0",
        "CDAS − before training HumanEval+ 40 +45.0",
        f"{base:.2g} {holm:.2g}",
        "EvalPlus differs from our check in 9 verdicts (6 unexplained, 3 time limit)",
        "would be missed in more than 1 of 5 such comparisons",
    ):
        assert words in page, words
    assert base == plus
    assert page.count("the spread between trainings is not in this test") == 1


def test_styles_that_differ_and_evalplus_that_fails_are_said(make_run: MakeRun) -> None:
    run = make_run()
    ask_for_benchmarks(run, num_samples=3, temperature=0.8, max_new_tokens=256)
    write_comparison(run, disagreements={}, evalplus_error="pip install evalplus")
    path = run / "evaluation/benchmarks/comparison.json"
    found = read_json(path)
    found["arms"]["base"]["style"]["name"] = "completion"
    write_json(path, found)
    page = text_of(write_report(run))
    assert "3 times each, at temperature 0.8, in at most 256 tokens" in page
    assert "before training was asked with the task's code alone, the others in its chat" in page
    assert "There is no number of EvalPlus: pip install evalplus" in page
    assert "agrees with every verdict" not in page


def test_no_section_unless_asked_for(make_run: MakeRun) -> None:
    run = make_run()
    write_comparison(run, disagreements={}, evalplus_error=None)
    assert "Benchmarks" not in text_of(write_report(run))
    ask_for_benchmarks(run)
    assert "agrees with every verdict" in text_of(write_report(run))
    (run / "evaluation/benchmarks/comparison.json").unlink()
    assert "The models have not answered the benchmarks yet." in text_of(write_report(run))


def test_cost_is_predicted_and_spent(make_run: MakeRun) -> None:
    run = make_run()
    assert "utilisation" not in text_of(write_report(run))  # a run of an earlier version
    path = run / "train/selected/summary.json"
    saving = {"seconds": 30.0, "share": 0.6}
    spent = {
        "seconds": 12.0, "peak_mib": 2350.5, "mfu": 0.314, "peak_source": "a bare matrix product",
        "batch_size": 8, "saved_by_packing": saving, "saved_in_all": {"seconds": 90, "share": 0.9},
        "saved_by_selection": {"seconds": -3.0, "share": -0.25},
    }  # fmt: skip
    predicted = {"seconds": 11.0, "peak_mib": 512.0}
    write_json(path, {**read_json(path), "forecast": predicted, "spending": spent})
    page = text_of(write_report(run))
    assert "CDAS 11 s, 12 s 512 MiB, 2.3 GiB 31 % 60 % (30 s) −25 % (−3.0 s) 90 %" in page
    assert "Utilisation is of the speed of a bare matrix product." in page
    write_json(path, {**read_json(path), "forecast": None})  # a short run has none
    assert "CDAS —, 12 s —, 2.3 GiB 31 % 60 % (30 s)" in text_of(write_report(run))
