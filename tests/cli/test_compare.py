"""``codeact compare``: words on stderr, JSON on stdout or in a file, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scipy import stats


@pytest.fixture
def runs(places: Any) -> Path:
    """Two EvalPlus files of 60 tasks, of which each solves some alone, and a HumanEval one."""
    for name, solved in (("cdas", range(40)), ("random", range(35, 45))):
        tasks = {f"Mbpp/{task}": [verdict(task in solved)] for task in range(60)}
        path = places.out / f"{name}_eval_results.json"
        path.write_text(json.dumps({"hash": "ee43", "eval": tasks}))
    path = places.out / "other_eval_results.json"
    path.write_text(json.dumps({"eval": {"HumanEval/0": [verdict(True)]}}))
    return Path(places.out)


def verdict(passed: bool) -> dict[str, str]:
    status = "pass" if passed else "fail"
    return {"base_status": status, "plus_status": status, "solution": "x = 1"}


LINE = "compare {out}/cdas_eval_results.json {out}/random_eval_results.json"


def test_words_and_json(codeact: Any, runs: Path) -> None:
    done = codeact(LINE + " --metric base")
    assert done.status == 0, done.err
    words, note = done.err.splitlines()
    assert words.startswith("MBPP: cdas is better than random (66.7 % against 16.7 %: +50.0 points")
    assert "35 and 5 tasks solved by one alone, exact McNemar test)" in words
    assert note == "note: one run each: the spread between trainings is not in this test"
    content = json.loads(done.out)
    assert (content["a"], content["b"]) == ("cdas", "random")
    (row,) = content["comparisons"]
    assert row["p_value"] == pytest.approx(stats.binomtest(5, 40).pvalue, rel=1e-9)
    assert row["discordant"]["odds_ratio"] == 7
    assert (row["significant"], row["adjusted_p_value"]) == (True, None)


def test_no_difference_is_said_with_what_could_have_been_seen(codeact: Any, runs: Path) -> None:
    done = codeact(LINE.replace("random_", "cdas_") + " --metric plus --confidence 0.9")
    assert done.status == 0, done.err
    words = done.err.splitlines()[0]
    assert words.startswith("MBPP+: no significant difference between ")
    assert "90 % interval +0.0 to +0.0" in words
    assert words.endswith(" points would be missed in more than 1 of 5 such comparisons")
    discordant = json.loads(done.out)["comparisons"][0]["discordant"]
    assert discordant["odds_ratio"] is None  # JSON has no NaN
    assert discordant["odds_ratio_interval"] == [0.0, None]


def test_output_is_what_stdout_would_be(codeact: Any, runs: Path) -> None:
    done = codeact(LINE + " --output {out}/found.json")
    assert (done.status, done.out) == (0, "")
    assert json.loads((runs / "found.json").read_text()) == json.loads(codeact(LINE).out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{out}/cdas_eval_results.json {out}/none.json", r"none.json cannot be read: No such file"),
        (
            "{out}/cdas_eval_results.json {out}/other_eval_results.json",
            r"both runs must have a benchmark in common, .+ has mbpp, .+ has humaneval",
        ),
        (LINE[8:] + " --metric speed", r"metric must be base or plus, got 'speed'"),
        (LINE[8:] + " --benchmark apps", r"benchmark must be humaneval or mbpp, got 'apps'"),
        (LINE[8:] + " --benchmark humaneval", r"cdas_eval_results.json has no verdicts of human"),
        (LINE[8:] + " --confidence 1", r"confidence must be above 0 and below 1, got 1.0"),
        (LINE[8:] + " --seed -1", r"--seed must be from 0 to 4294967295, got -1"),
        (LINE[8:] + " --output {out}/found.csv", r"--output must end in .json, got"),
        ("{out} {out}/cdas_eval_results.json", r"must be an evaluation folder with results.jsonl"),
    ],
)
def test_refuses(refused: Any, runs: Path, words: str, message: str) -> None:
    refused("compare " + words, message)
