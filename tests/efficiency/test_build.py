"""EffiInstruct: what is kept, what is dropped and why, the twin, and the files."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from made_measurements import HOST, Made, MadeTask, candidates_of, make, reference, tasks_of

from codeact.efficiency.instruct.build import build_effi_instruct
from codeact.efficiency.racing.measurements import Measurements
from codeact.errors import InputError

FILES = [
    "choices.jsonl",
    "dropped.jsonl",
    "effi_instruct.jsonl",
    "effi_instruct_unoptimised.jsonl",
    "effi_pairs.jsonl",
    "summary.json",
]

TASKS = [
    MadeTask(
        "kept",
        [
            reference(0.020, 0.021, 0.022),
            Made("fast", [0.010, 0.011, 0.012]),
            Made("slow", [0.040, 0.041, 0.042]),
            Made("wrong", status="wrong_answer", reason="test 0: 2"),
        ],
    ),
    MadeTask(
        "all fail",
        [
            reference(),
            Made("a", status="wrong_answer"),
            Made("b", status="time_limit"),
            Made("c", status="unsafe", reason="os.system"),
        ],
    ),
    MadeTask("risky", [reference(), Made("a", status="unsafe", reason="opens files")]),
    MadeTask("plots", [Made("a", status="not_algorithmic", reason="imports matplotlib")]),
    MadeTask("short", [Made("a", [0.001]), Made("b", [0.002])], too_short=True),
    MadeTask("alone", [Made("a", [0.010]), Made("b", status="crashed")]),
    MadeTask("same", [Made("a", [0.0100]), Made("b", [0.0102])]),
    MadeTask("memory", [Made("a", [0.010]), Made("b", [0.0101], memory=11_000_000)]),
    MadeTask("small gap", [Made("a", [0.010]), Made("b", [0.0109])]),
    MadeTask("overlap", [Made("a", [0.010, 0.016]), Made("b", [0.015, 0.017])]),
    MadeTask(
        "counted",
        [
            Made("a", [0.010, 0.016], instructions=1_000_000),
            Made("b", [0.015, 0.017], instructions=1_010_001),
        ],
    ),
    MadeTask(
        "miscounted",
        [
            Made("a", [0.010, 0.016], instructions=1_000_000),
            Made("b", [0.015, 0.017], instructions=1_005_000),
        ],
    ),
]


def build(tasks=TASKS, measurements: Measurements | None = None, **options):
    options = {"confirm": False, **options}
    return build_effi_instruct(
        measurements or make(tasks), tasks_of(tasks), candidates_of(tasks), **options
    )


def test_every_race_is_an_instruction_or_dropped_with_its_reason():
    built = build()
    assert [row["task_id"] for row in built.sft] == [
        "kept", "memory", "small gap", "overlap", "counted", "miscounted",
    ]  # fmt: skip
    of_tasks = [one for one in built.dropped if one.stage == "task"]
    reasons = {one.task_id: (one.reason, one.detail) for one in of_tasks}
    assert reasons == {
        "all fail": (
            "all_fail",
            "none of 3 candidates passed: time_limit 1, unsafe 1, wrong_answer 1",
        ),
        "risky": ("unsafe", "opens files"),
        "plots": ("not_algorithmic", "imports matplotlib"),
        "short": ("too_short", "too little work"),
        "alone": ("no_spread", "only one correct answer"),
        "same": ("no_spread", "2 correct answers within 2.0%"),
    }
    assert len(reasons) + len(built.sft) == len(TASKS)


def test_a_pair_needs_the_gap_and_runs_or_counts_that_agree():
    built = build()
    assert [(row["task_id"], row["evidence"]) for row in built.pairs] == [
        ("kept", "runs"),
        ("counted", "instructions"),
    ]
    reasons = {one.task_id: one.reason for one in built.dropped if one.stage == "pair"}
    assert reasons == {
        "memory": "gap_too_small",
        "small gap": "gap_too_small",
        "overlap": "runs_overlap",
        "miscounted": "runs_overlap",
    }
    wide = build(min_gap=0.08)
    assert "small gap" in [row["task_id"] for row in wide.pairs]


def test_the_rows_of_a_kept_task():
    built = build()
    [row] = [row for row in built.sft if row["task_id"] == "kept"]
    assert row["messages"] == [
        {"role": "user", "content": "Return x."},
        {"role": "assistant", "content": "```python\ndef f(x):\n    return x  # fast\n```"},
    ]
    assert (row["candidate_id"], row["et_seconds"], row["slowdown"]) == ("fast", 0.010, 1.0)
    assert row["speedup_over_reference"] == pytest.approx(2.0)
    assert row["num_correct"] == 3
    pair = built.pairs[0]
    assert pair["prompt"] == [{"role": "user", "content": "Return x."}]
    assert "# fast" in pair["chosen"][0]["content"]
    assert "# slow" in pair["rejected"][0]["content"]
    assert pair["gap"] == pytest.approx(3.0)
    assert pair["confirmed"] is False


def test_the_gap_is_taken_over_the_rounds_that_both_ran():
    # Best ran five rounds and got lucky in the last; the worst was dropped after three.
    tasks = [
        MadeTask(
            "t", [Made("a", [0.010, 0.010, 0.010, 0.010, 0.005]), Made("b", [0.020, 0.021, 0.022])]
        )
    ]
    built = build(tasks)
    [pair] = built.pairs
    assert pair["gap"] == pytest.approx(1.0)
    assert pair["chosen_et_seconds"] == pytest.approx(0.010)
    assert built.choices[0].beaten[0].et_ratio == pytest.approx(2.0)
    seeds = (build(tasks, seed=seed) for seed in range(50))
    other = next(built for built in seeds if built.twin[0]["candidate_id"] == "b")
    assert other.twin[0]["slowdown"] == pytest.approx(2.0)
    gained = other.summary["chosen_over_twin"]["et_seconds"]["geometric_mean"]["value"]
    assert gained == pytest.approx(0.5)


def test_the_twin_has_the_same_tasks_and_a_correct_answer_each():
    correct = {"fast", "slow", "reference"}
    seen: Counter[str] = Counter()
    for seed in range(300):
        built = build(TASKS[:1], seed=seed)
        [row] = built.twin
        assert [row["task_id"]] == [kept["task_id"] for kept in built.sft]
        assert list(row) == list(built.sft[0])
        assert (row["slowdown"] > 1) == (row["candidate_id"] != "fast")
        seen[row["candidate_id"]] += 1
    assert set(seen) == correct
    # 100 each on average, sd 8: five standard deviations.
    assert all(60 < count < 140 for count in seen.values())
    assert [row["task_id"] for row in build().twin] == [row["task_id"] for row in build().sft]


def test_the_draw_of_one_task_does_not_depend_on_the_others():
    alone = build(TASKS[:1], seed=3).twin[0]["candidate_id"]
    assert build(list(reversed(TASKS)), seed=3).twin[-1]["candidate_id"] == alone


def test_without_the_reference_it_is_nowhere():
    built = build(include_reference=False)
    texts = json.dumps([built.sft, built.twin, built.pairs])
    assert "return +x" not in texts
    assert built.sft[0]["speedup_over_reference"] == pytest.approx(2.0)
    faster = [MadeTask("t", [reference(0.01), Made("a", [0.02])])]
    assert [row["origin"] for row in build(faster).sft] == ["reference"]
    assert build(faster, include_reference=False).sft == ()


def test_files_are_the_same_bytes_for_the_same_measurements(tmp_path: Path):
    measurements = make(TASKS)
    measurements.write(tmp_path / "m.jsonl")
    build(measurements=measurements, output=tmp_path / "a")
    build(measurements=Measurements.read(tmp_path / "m.jsonl"), output=tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == FILES
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_the_summary_counts_what_there_is():
    built = build()
    summary = built.summary
    assert (summary["num_instructions"], summary["num_pairs"]) == (6, 2)
    assert summary["dropped_tasks"] == {
        "all_fail": 1, "no_spread": 2, "not_algorithmic": 1, "too_short": 1, "unsafe": 1,
    }  # fmt: skip
    assert summary["host"]["cpu_model"] == HOST.cpu_model
    assert summary["pair_gaps"]["gap"]["1"] == pytest.approx(3.0)
    ratio = 1.0
    for chosen, drawn in zip(built.sft, built.twin, strict=True):
        ratio *= chosen["et_seconds"] / drawn["et_seconds"]
    gained = summary["chosen_over_twin"]["et_seconds"]["geometric_mean"]["value"]
    assert gained == pytest.approx(ratio ** (1 / 6))


def test_nothing_to_keep_is_a_result_too(tmp_path: Path):
    built = build(TASKS[1:5], output=tmp_path)
    assert (built.sft, built.twin, built.pairs) == ((), (), ())
    assert built.summary["chosen_over_twin"] == {}
    assert len((tmp_path / "dropped.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tasks, found: (tasks, found[1:]), "candidates must hold every measured.*'fast'"),
        (lambda tasks, found: ([], found), "tasks must hold every measured task, 'kept'"),
        (
            lambda tasks, found: (tasks, [replace(found[0], source="pass"), *found[1:]]),
            "'fast' of task 'kept' has another source than the one that was measured",
        ),
    ],
)
def test_measurements_of_something_else_are_refused(change, said):
    tasks, found = change(tasks_of(TASKS[:1]), candidates_of(TASKS[:1]))
    with pytest.raises(InputError, match=said):
        build_effi_instruct(make(TASKS[:1]), tasks, found, confirm=False)


@pytest.mark.parametrize("options", [{"min_gap": -0.1}, {"min_spread": float("nan")}])
def test_bad_options_are_named(options):
    with pytest.raises(InputError, match=f"{next(iter(options))} must be finite and at least 0"):
        build(**options)
