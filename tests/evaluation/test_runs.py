"""Runs from folders and files of several kinds, and what is said of their faults."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codeact.errors import InputError
from codeact.evaluation import compare
from codeact.evaluation.comparing.run_report import compare_run_pair, run_names
from codeact.evaluation.comparing.runs import read_run
from codeact.evaluation.comparing.seeds import compare_runs
from codeact.evaluation.results import ResultRow, failed_row, write_results


def ours(path: Path, passed: Mapping[str, Sequence[bool]]) -> Path:
    """A results file: base verdicts as given, plus fails for every third task."""
    rows = [
        ResultRow(
            "mbpp", task_id, sample, ok, ok and number % 3 != 0, "pass" if ok else "fail", "-"
        )
        for number, (task_id, answers) in enumerate(passed.items())
        for sample, ok in enumerate(answers)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_results(path, rows)
    return path


def statuses(path: Path, rows: Sequence[tuple[Any, ...]]) -> Path:
    """JSON lines as published: task id, base and plus status, perhaps code and a number."""
    keys = ("task_id", "base_status", "plus_status", "completion", "sample")
    lines = (json.dumps(dict(zip(keys, row, strict=False))) for row in rows)
    path.write_text("".join(line + "\n" for line in lines))
    return path


def evalplus(path: Path, tasks: Mapping[str, Any], version: str = "fe58") -> Path:
    path.write_text(json.dumps({"date": "2025-02-04", "hash": version, "eval": tasks}))
    return path


def random_run(seed: int, num_tasks: int = 40) -> dict[str, tuple[bool, ...]]:
    passed = np.random.default_rng(seed).random(num_tasks) < 0.6
    return {f"Mbpp/{task}": (bool(ok),) for task, ok in enumerate(passed)}


def base(path: Path) -> dict[str, tuple[bool, ...]]:
    results = read_run(path).seeds[0]
    return results.verdicts(results.benchmarks[0], "base")


def test_a_run_may_be_a_file_a_folder_or_seeds(tmp_path: Path) -> None:
    one, two = random_run(1), random_run(2)
    ours(tmp_path / "run/s1/results.jsonl", one)
    ours(tmp_path / "run/s0/results.jsonl", two)
    assert base(tmp_path / "run/s1/results.jsonl") == base(tmp_path / "run/s1") == one
    seeds = read_run(tmp_path / "run")
    assert [results.verdicts("mbpp", "base") for results in seeds.seeds] == [two, one]
    assert [file.parent.name for file in seeds.files] == ["s0", "s1"]


def test_evalplus_file(tmp_path: Path) -> None:
    answers = [
        {"base_status": "pass", "plus_status": "pass", "solution": "x = 1"},
        {"base_status": "fail", "plus_status": "pass", "solution": "x = 2"},
        {"base_status": "pass", "plus_status": "timeout", "solution": "x = 3"},
        {"base_status": "pass", "plus_status": "pass", "solution": " \n"},
    ]
    run = read_run(evalplus(tmp_path / "a_eval_results.json", {"HumanEval/3": answers}))
    results = run.seeds[0]
    assert results.versions == {"humaneval": "fe58"}
    assert results.verdicts("humaneval", "base") == {"HumanEval/3": (True, False, True, False)}
    assert results.verdicts("humaneval", "plus") == {"HumanEval/3": (True, False, False, False)}
    assert results.tasks_with("humaneval", "empty") == ["HumanEval/3"]


def test_published_verdicts(data_folder: Path) -> None:
    """The totals that the data's notes state: 119 and 105 of 164."""
    file = data_folder / "eval" / "starcoder2_15b_instruct_humaneval.jsonl.gz"
    (results,) = read_run(file).seeds
    for metric, total in (("base", 119), ("plus", 105)):
        verdicts = results.verdicts("humaneval", metric)  # type: ignore[arg-type]
        assert (len(verdicts), sum(map(sum, verdicts.values()))) == (164, total)


def test_lines_of_one_task_are_its_answers_in_order(tmp_path: Path) -> None:
    rows = [("Mbpp/2", "pass", "pass"), ("Mbpp/3", "fail", "fail"), ("Mbpp/2", "fail", "fail")]
    rows += [("Mbpp/3", "fail", "pass")]
    path = statuses(tmp_path / "s.jsonl", rows)
    assert base(path) == {"Mbpp/2": (True, False), "Mbpp/3": (False, False)}


def test_an_id_given_more_often_than_others_counts_as_failed(tmp_path: Path) -> None:
    rows = [(f"Mbpp/{task}", "pass", "pass") for task in (2, 3, 4, 3)]
    path = statuses(tmp_path / "s.jsonl", rows)
    assert base(path) == {"Mbpp/2": (True,), "Mbpp/3": (False,), "Mbpp/4": (True,)}
    assert read_run(path).seeds[0].tasks_with("mbpp", "duplicated") == ["Mbpp/3"]


def test_answers_are_counted_by_benchmark(tmp_path: Path) -> None:
    """Two to each HumanEval task are no duplicates where most tasks, of MBPP, have one."""
    rows = [(f"HumanEval/{task}", status, "pass") for task in (0, 1) for status in ("pass", "fail")]
    rows += [(f"Mbpp/{task}", "pass", "pass") for task in (2, 3, 4)]
    (results,) = read_run(statuses(tmp_path / "s.jsonl", rows)).seeds
    assert set(results.verdicts("humaneval", "base").values()) == {(True, False)}
    assert set(results.verdicts("mbpp", "base").values()) == {(True,)}


def test_a_task_without_answers_is_missing(tmp_path: Path) -> None:
    answer = [{"base_status": "pass", "plus_status": "pass"}]
    run = read_run(evalplus(tmp_path / "a.json", {"Mbpp/2": answer, "Mbpp/3": []}))
    report = compare_run_pair(run, run, metrics=["base"])
    assert report.comparisons[0].comparison.rate_a == 0.5
    assert report.notes[0].endswith("no answer to 1 of 2 tasks, counted as failed: Mbpp/3")


def test_numbers_of_answers_are_taken_as_given(tmp_path: Path) -> None:
    rows = [("Mbpp/2", "fail", "fail", "x", 1), ("Mbpp/2", "pass", "pass", "x", 0)]
    assert base(statuses(tmp_path / "s.jsonl", rows)) == {"Mbpp/2": (True, False)}
    path = statuses(tmp_path / "t.jsonl", [*rows, ("Mbpp/2", "pass", "pass", "x", 1)])
    assert base(path) == {"Mbpp/2": (True, False)}
    assert read_run(path).seeds[0].tasks_with("mbpp", "duplicated") == ["Mbpp/2"]


def test_report_is_compare_on_the_tasks_of_both(tmp_path: Path) -> None:
    one, two = random_run(3), random_run(4)
    shuffled = dict(sorted(two.items(), reverse=True))  # tasks pair by id, not by place
    report = compare_run_pair(
        read_run(ours(tmp_path / "a.jsonl", one)),
        read_run(ours(tmp_path / "b.jsonl", shuffled)),
        metrics=["base"],
    )
    (found,) = report.comparisons
    assert found.title == "MBPP"
    assert found.comparison == compare(
        [one[task][0] for task in one], [two[task][0] for task in one]
    )
    assert report.notes == ("one run each: the spread between trainings is not in this test",)
    assert run_names(read_run(tmp_path / "a.jsonl"), read_run(tmp_path / "b.jsonl")) == ("a", "b")


def test_several_tests_are_adjusted_by_holm(tmp_path: Path) -> None:
    a, b = {f"Mbpp/{i}": (i < 30,) for i in range(40)}, {f"Mbpp/{i}": (i < 21,) for i in range(40)}
    pair = [read_run(ours(tmp_path / f"{name}.jsonl", run)) for name, run in (("a", a), ("b", b))]
    report = compare_run_pair(*pair)
    plain = [one.comparison.p_value for one in report.comparisons]
    assert plain == [2 / 2**9, 2 / 2**6]  # 9 tasks only by a; of 21 .. 29 the 3, 6, 9 fail plus
    adjusted = [one.comparison.adjusted_p_value for one in report.comparisons]
    assert adjusted == [4 / 2**9, 2 / 2**6]
    assert "p = 0.0039, p = 0.0078 after Holm's correction" in report.lines()[0]


def test_seeds_are_compared_as_runs(tmp_path: Path) -> None:
    runs = [random_run(seed) for seed in range(6)]
    for seed, run in enumerate(runs):
        ours(tmp_path / ("a" if seed < 3 else "b") / f"seed-{seed}" / "results.jsonl", run)
    report = compare_run_pair(read_run(tmp_path / "a"), read_run(tmp_path / "b"), metrics=["base"])
    rates = np.array([[run[f"Mbpp/{task}"][0] for task in range(40)] for run in runs])
    assert report.comparisons[0].comparison == compare_runs(rates[:3], rates[3:])
    assert report.notes == ()
    ours(tmp_path / "two/seed-0/results.jsonl", runs[0])
    ours(tmp_path / "two/seed-1/results.jsonl", runs[1])
    (few,) = compare_run_pair(read_run(tmp_path / "two"), read_run(tmp_path / "b")).notes
    assert few.startswith("two runs of a side hardly tell the spread")
    row = report.to_json()["comparisons"][0]
    assert row["spread_a"] == pytest.approx(rates[:3].mean(axis=1).std(ddof=1))


def test_answers_of_a_task_are_averaged(tmp_path: Path) -> None:
    """A lost answer counts as failed: Mbpp/1 has one pass of two, not one of one."""
    many = {"Mbpp/0": (True, True), "Mbpp/1": (True,), "Mbpp/2": (False, True)}
    single = {"Mbpp/0": (True,), "Mbpp/1": (False,), "Mbpp/2": (False,)}
    pair = [read_run(ours(tmp_path / f"{i}.jsonl", run)) for i, run in enumerate((many, single))]
    report = compare_run_pair(*pair, metrics=["base"])
    assert report.comparisons[0].comparison == compare_runs([[1, 0.5, 0.5]], [[1, 0, 0]])
    assert report.notes[0] == (
        "0: fewer answers than to other tasks to 1 of 3 tasks, counted as failed: Mbpp/1"
    )


def test_missing_duplicated_and_empty_are_noted_and_fail(tmp_path: Path) -> None:
    full = {f"Mbpp/{task}": (True,) for task in range(10)}
    rows = [(f"Mbpp/{task}", "pass", "pass", "x") for task in (0, 1, 2, 3)]
    rows += [("Mbpp/3", "pass", "pass", "x"), ("Mbpp/4", "pass", "pass", " ")]
    a, b = ours(tmp_path / "full.jsonl", full), statuses(tmp_path / "part.jsonl", rows)
    report = compare_run_pair(read_run(a), read_run(b), metrics=["base"])
    result = report.comparisons[0].comparison
    assert (result.num_pairs, result.rate_a, result.rate_b) == (10, 1.0, 0.3)
    assert report.notes[:3] == (
        "part: no answer to 5 of 10 tasks, counted as failed: Mbpp/5, Mbpp/6, Mbpp/7, ...",
        "part: an answer given twice to 1 of 10 tasks, counted as failed: Mbpp/3",
        "part: an answer without code to 1 of 10 tasks, counted as failed: Mbpp/4",
    )


def test_faults_that_an_evaluation_noted_are_said_again(tmp_path: Path) -> None:
    rows = [ResultRow("mbpp", "Mbpp/2", 0, True, True, "pass", "pass")]
    write_results(tmp_path / "a.jsonl", rows)
    rows += [failed_row("Mbpp/3", 0, "missing", "answer missing")]
    write_results(tmp_path / "b.jsonl", rows)
    report = compare_run_pair(read_run(tmp_path / "a.jsonl"), read_run(tmp_path / "b.jsonl"))
    assert report.notes[:2] == tuple(
        f"{name}: no answer to 1 of 2 tasks, counted as failed: Mbpp/3" for name in "ab"
    )


def test_versions_must_agree(tmp_path: Path) -> None:
    answer = [{"base_status": "pass", "plus_status": "fail"}]
    a = read_run(evalplus(tmp_path / "a.json", {"HumanEval/0": answer}))
    b = read_run(evalplus(tmp_path / "b.json", {"HumanEval/0": answer}, version="0b1d"))
    with pytest.raises(InputError, match=r"different versions of humaneval \(0b1d and fe58\)"):
        compare_run_pair(a, b)
    report = compare_run_pair(a, b, any_version=True)
    assert report.notes[0].startswith("runs were tested on different versions of humaneval")
    ours(tmp_path / "run/results.jsonl", {"Mbpp/0": (True,)})
    (tmp_path / "run/evaluation.json").write_text('{"data_hashes": {"mbpp": "ee43"}}')
    assert read_run(tmp_path / "run").seeds[0].versions == {"mbpp": "ee43"}


def test_tests_that_were_not_run_are_not_compared(tmp_path: Path) -> None:
    answer = [{"base_status": "pass", "plus_status": None}]
    a = read_run(evalplus(tmp_path / "a.json", {"Mbpp/2": answer}))
    report = compare_run_pair(a, a)
    assert [one.metric for one in report.comparisons] == ["base"]
    assert report.notes[0] == "the plus tests of MBPP were not run in both runs"
    with pytest.raises(InputError, match="the plus tests of mbpp were not run"):
        compare_run_pair(a, a, metrics=["plus"])


def test_answers_that_the_plus_tests_left_out_fail_them(tmp_path: Path) -> None:
    rows = [
        ("Mbpp/2", "pass", "pass"),
        ("Mbpp/3", "pass"),
        ("Mbpp/4", "fail"),
        ("Mbpp/5", "pass", "pass"),
    ]
    run = read_run(statuses(tmp_path / "s.jsonl", rows))
    report = compare_run_pair(run, run)
    assert [one.comparison.rate_a for one in report.comparisons] == [0.75, 0.5]
    assert report.notes[0].endswith(
        "an answer that the plus tests left out to 1 of 4 tasks, counted as failed: Mbpp/3"
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[1]", "must be an eval_results.json of EvalPlus, with the key eval"),
        ("a.json", '{"eval": {"Mbpp/2": {}}}', r"eval\['Mbpp/2'\] must be a list, got {}"),
        ("a.json", '{"eval": {"Mbpp/2": [1]}}', r"eval\['Mbpp/2'\]\[0\] must be an object"),
        ("a.json", '{"eval": {}}', "must hold at least 1 verdict, got 0"),
        ("a.json", "[" * 100_000, "a.json is no JSON"),
        ("a.json", "9" * 5000, "a.json is no JSON"),
        ("a.jsonl", "", "the data set is empty"),
        ("a.jsonl", '{"task_id": 3}', "a.jsonl:1 must be an object with a task_id"),
        (
            "a.jsonl",
            '{"task_id": "Mbpp/2"}',
            "base_status must be one of pass, fail, timeout, got None",
        ),
        (
            "a.jsonl",
            '{"task_id": "Mbpp/2", "base_status": "PASS"}',
            "pass, fail, timeout, got 'PASS'",
        ),
        ("a.jsonl", '{"task_id": "Mbpp/2", "base": true}', "a.jsonl:1 lacks the field benchmark"),
        (
            "a.jsonl",
            '{"task_id": "Mbpp/2", "base_status": "pass", "sample": -1}',
            "sample must be a number from 0, got -1",
        ),
        ("a.csv", "task_id", "a run must be a folder or end in .json, .jsonl or .jsonl.gz"),
        ("run/samples.jsonl", "", "must be an evaluation folder with results.jsonl or a folder"),
        ("run/s0/evaluation.json", "{}", "must be an evaluation folder with results.jsonl"),
    ],
)
def test_refuses(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_run(tmp_path / name.split("/")[0])


def test_refuses_seeds_that_are_not_judged_yet(tmp_path: Path) -> None:
    ours(tmp_path / "s0/results.jsonl", random_run(0))
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1/evaluation.json").write_text("{}")
    with pytest.raises(InputError, match=r"s1 must be judged to the end, it has no results.jsonl"):
        read_run(tmp_path)
