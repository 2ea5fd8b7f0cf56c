"""Disagreements with EvalPlus: which answers are listed, under which cause."""

from __future__ import annotations

import itertools
import json

import pytest

from codeact.evaluation.judging.disagreements import disagreements, write_disagreements
from codeact.evaluation.results import ResultRow


def row(
    ours: tuple[str, str],
    evalplus: tuple[str | None, str | None],
    task_id: str = "HumanEval/3",
    reason: str = "",
    sample: int = 0,
) -> ResultRow:
    base, plus = (status == "pass" for status in ours)
    benchmark = "mbpp" if task_id.startswith("Mbpp") else "humaneval"
    return ResultRow(benchmark, task_id, sample, base, plus, *ours, reason, *evalplus)


@pytest.mark.parametrize(
    ("ours", "evalplus", "found"),
    [
        (("pass", "pass"), ("pass", "pass"), []),
        (("fail", "fail"), ("fail", "timeout"), []),
        (("pass", "fail"), ("pass", "fail"), []),
        (("pass", "pass"), (None, None), []),  # EvalPlus was not run
        # EvalPlus says of the further tests alone what we say of both sets.
        (("fail", "fail"), ("fail", "pass"), []),
        (("pass", "fail"), ("pass", "pass"), [("plus", "fail", "pass")]),
        (("pass", "pass"), ("pass", "timeout"), [("plus", "pass", "timeout")]),
        (("fail", "fail"), ("pass", "fail"), [("base", "fail", "pass")]),
        (("pass", "pass"), ("fail", "pass"), [("base", "pass", "fail"), ("plus", "pass", "fail")]),
        (
            ("wrong_answer", "wrong_answer"),
            ("pass", "pass"),
            [("base", "wrong_answer", "pass"), ("plus", "wrong_answer", "pass")],
        ),
    ],
)
def test_what_counts_as_a_disagreement(ours, evalplus, found):
    listed = disagreements([row(ours, evalplus)])
    assert [(each.metric, each.ours, each.evalplus) for each in listed] == found


@pytest.mark.parametrize(
    ("ours", "evalplus", "task_id", "kind"),
    [
        (("pass", "pass"), ("pass", "fail"), "HumanEval/32", "evalplus_bug"),
        (("pass", "pass"), ("pass", "timeout"), "HumanEval/7", "time_limit"),
        (("pass", "pass"), ("pass", "fail"), "Mbpp/255", "time_limit"),
        (("pass", "pass"), ("pass", "fail"), "Mbpp/256", "unexplained"),
        (("pass", "time_limit"), ("pass", "pass"), "Mbpp/255", "time_limit"),
        (("pass", "memory_limit"), ("pass", "pass"), "Mbpp/2", "memory_limit"),
        (("pass", "unsupported_value"), ("pass", "pass"), "Mbpp/2", "cheat_or_stricter_rule"),
        (("pass", "fail"), ("pass", "pass"), "HumanEval/32", "cheat_or_stricter_rule"),
    ],
)
def test_kinds(ours, evalplus, task_id, kind):
    (found,) = disagreements([row(ours, evalplus, task_id, reason="test 7: got 1")])
    assert found.kind == kind
    assert ("test 7: got 1" in found.explanation) == (ours[1] != "pass")


def test_the_list_explains_the_difference_of_the_numbers():
    statuses = list(itertools.product(("pass", "fail"), repeat=4))
    rows = [row(each[:2], each[2:], sample=number) for number, each in enumerate(statuses)]
    # We never have a pass of the further tests without one of the base tests.
    rows = [each for each in rows if each.base or not each.plus]
    for metric in ("base", "plus"):
        ours = sum(each.passed(metric) for each in rows)
        further = ("pass",) if metric == "plus" else ("pass", "fail")
        theirs = sum(
            each.evalplus_base == "pass" and each.evalplus_plus in further for each in rows
        )
        listed = [each for each in disagreements(rows) if each.metric == metric]
        only_ours = sum(each.ours == "pass" for each in listed)
        assert ours - theirs == only_ours - (len(listed) - only_ours)


def test_file_holds_one_object_a_line(tmp_path):
    listed = disagreements([row(("pass", "fail"), ("pass", "pass"), reason="test 2")])
    write_disagreements(tmp_path / "disagreements.jsonl", listed)
    (line,) = (tmp_path / "disagreements.jsonl").read_text().splitlines()
    read = json.loads(line)
    assert (read["task_id"], read["sample"], read["metric"]) == ("HumanEval/3", 0, "plus")
    assert (read["kind"], read["ours"], read["evalplus"]) == (
        "cheat_or_stricter_rule",
        "fail",
        "pass",
    )
