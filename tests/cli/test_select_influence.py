"""``codeact select`` by influence and by ratings: which columns it reads, and its report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codeact.cli.score_columns import ScoreColumns
from codeact.cli.select_inputs import task_influence
from codeact.selection import TopInfluence, TopRating

Codeact = Callable[[str], Any]
Refused = Callable[[str, str], None]

IDS = [f"row-{row}" for row in range(12)]
SELECT = "select {rows} --scores {out}/influence.parquet --output {out}/old.jsonl"
TASKS = ("humaneval", "mbpp-easy")
RATINGS = [4.0, 5.0, 3.0, 4.0, None, 5.0, 2.0, 4.0, 4.0, 1.0, 3.0, 4.0]


def influence_table() -> pa.Table:
    """As ``codeact influence`` writes it: two tasks at two checkpoints, one row that failed."""
    values = 1e-4 * np.random.default_rng(0).normal(size=(2, 2, 12))
    values[:, :, 7] = np.nan
    columns: dict[str, Any] = {
        "id": IDS,
        "num_prompt_tokens": pa.array(range(5, 17), pa.int32()),
        "num_response_tokens": pa.array([*range(3, 14), 40], pa.int32()),
        "nll_response": np.linspace(1, 2, 12),
        "ppl_response": np.exp(np.linspace(1, 2, 12)),
        "influence": values.mean(axis=(0, 1)),
    }
    for task, name in enumerate(TASKS):
        columns[f"influence_{name}"] = values[task].mean(axis=0)
        for checkpoint in range(2):
            columns[f"influence_{name}@step-{checkpoint}"] = values[task, checkpoint]
    columns["influence_source"] = ["measured"] * 12
    columns["status"] = ["ok"] * 7 + ["nonfinite"] + ["ok"] * 4
    columns["token_influence"] = [[0.5]] * 12
    table = pa.table(columns)
    for place, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            nulled = pa.array(table[field.name].to_numpy(), from_pandas=True)
            table = table.set_column(place, field.name, nulled)
    return table


@pytest.fixture
def table(places: Any) -> pa.Table:
    written = influence_table()
    pq.write_table(written, places.out / "influence.parquet")
    lines = [json.dumps({"id": i, "rating": r}) for i, r in zip(IDS, RATINGS, strict=True)]
    (places.out / "ratings.jsonl").write_text("\n".join(lines) + "\n")
    return written


def column(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy().astype(np.float64)


def kept_ids(places: Any, name: str = "old.jsonl") -> list[str]:
    return [json.loads(line)["id"] for line in (places.out / name).read_text().splitlines()]


def names(rows: np.ndarray) -> list[str]:
    return [IDS[row] for row in sorted(rows.tolist())]


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("", {}),
        ("--set keep=band --set low=0.2 --set high=0.8", {"keep": "band", "low": 0.2, "high": 0.8}),
        ("--set keep=drop-bottom --set drop=0.3", {"keep": "drop-bottom", "drop": 0.3}),
        ("--set quotas=tasks", {"quotas": "tasks"}),
    ],
)
def test_keeps_what_the_class_keeps(
    words: str, options: dict[str, Any], codeact: Codeact, places: Any, table: pa.Table
) -> None:
    done = codeact(f"{SELECT} --method influence --budget 5 {words} --table {{out}}/t.parquet")
    assert (done.status, done.err) == (0, "kept 5 of 12 rows\n")
    matrix = np.stack([column(table, f"influence_{task}") for task in TASKS], axis=1)
    expected = TopInfluence(5, **options).fit(
        column(table, "influence"), task_influence=matrix, task_names=TASKS, ids=IDS
    )
    assert kept_ids(places) == names(expected.selected_)
    told = pq.read_table(places.out / "t.parquet")
    assert told.schema.names == ["id", "influence", "kept", "rank", "reason"]
    assert told["reason"].to_pylist() == list(expected.reasons_)
    assert told["influence"][7].as_py() is None
    if options == {"quotas": "tasks"}:
        assert expected.report_.kept_by_task == {"humaneval": 3, "mbpp-easy": 2}


def test_one_task_or_one_checkpoint_as_the_score(
    codeact: Codeact, places: Any, table: pa.Table
) -> None:
    for name in ("influence_mbpp-easy", "influence_humaneval@step-1"):
        assert codeact(f"{SELECT} --method influence --score {name} --budget 4").status == 0
        expected = TopInfluence(4).fit(column(table, name), ids=IDS)
        assert kept_ids(places) == names(expected.selected_)


def test_report_beside_perplexity_length_and_a_judge(
    codeact: Codeact, places: Any, table: pa.Table
) -> None:
    line = (
        f"{SELECT} --method influence --budget 5 --compare ppl --compare longest --compare judge "
        "--scores {out}/ratings.jsonl --report {out}/page.html"
    )
    done = codeact(line)
    assert (done.status, done.err) == (0, "kept 5 of 12 rows\n")
    page = (places.out / "page.html").read_text(encoding="utf-8")
    assert "Of 12 rows of rows.jsonl, influence keeps 5" in page
    for name in ("ppl", "longest", "judge", "random", "length-matched-random"):
        assert f">{name}<" in page
    assert "lowers the loss on validation tasks" in page
    assert "the mean over the tasks" in page
    # Values of a ten-thousandth keep their digits.
    known = column(table, "influence")
    assert f"{np.median(known[~np.isnan(known)]):.3g}" in page
    judged = codeact(f"{line.replace('--method influence', '--method judge')} --compare influence")
    assert judged.status == 0, judged.err
    expected = TopRating(5).fit(np.array(RATINGS, dtype=object), ids=IDS)
    assert kept_ids(places) == names(expected.selected_)


def test_single_checkpoints_are_no_tasks() -> None:
    table = influence_table()
    columns = {name: column(table, name) for name in table.schema.names[3:-3]}
    found = task_influence(ScoreColumns(columns=columns))
    assert found["task_names"] == list(TASKS)
    expected = np.stack([columns[f"influence_{task}"] for task in TASKS], axis=1)
    np.testing.assert_array_equal(found["task_influence"], expected)
    assert task_influence(ScoreColumns(columns={"influence": np.zeros(3)})) == {}


def test_a_task_that_differs_between_tables_is_refused_where_it_is_read(
    refused: Refused, codeact: Codeact, places: Any, table: pa.Table
) -> None:
    other = {"id": IDS, "influence_humaneval": np.arange(12.0)}
    line = f"{SELECT} --scores {{out}}/other.parquet --budget 3"
    # Of one table alone all tasks are known: it is the one that is meant.
    pq.write_table(pa.table(other), places.out / "other.parquet")
    assert codeact(f"{line} --method influence").status == 0
    other["influence_mbpp-easy"] = np.arange(12.0)
    pq.write_table(pa.table(other), places.out / "other.parquet")
    refused(f"{line} --method influence", "column influence_humaneval differs between the tables")
    assert codeact(f"{line} --method longest").status == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--method judge", r"judge needs column rating \(a table of your own"),
        ("--method influence --set keep=best", r"keep of influence must be 'top' or 'band' or 'dr"),
        ("--method influence --set low=x", "low of influence must be a number, got 'x'"),
        ("--method influence --set low=0.95", r"0 <= low < high <= 1, got 0\.95 and 0\.9"),
        ("--method influence --budget 12", "only 11 are eligible, 1 too few: 1 rows have no infl"),
        ("--method influence --set keep=band", "the band leaves 4 between the quantiles 0.5 and"),
    ],
)
def test_refused(options: str, message: str, refused: Refused, table: pa.Table) -> None:
    budget = "" if "--budget" in options else "--budget 5"
    refused(f"{SELECT} {budget} {options}", message)


def test_needs_the_table_of_codeact_influence(refused: Refused, places: Path) -> None:
    line = "select {rows} --scores {scores} --output {out}/old.jsonl --method influence"
    refused(line, r"influence needs column influence \(codeact influence\)")
    pq.write_table(pa.table({"id": IDS, "influence": np.arange(12.0)}), places.out / "bare.parquet")
    refused(
        line.replace("{scores}", "{out}/bare.parquet") + " --set quotas=tasks",
        r"quotas = 'tasks' needs task_influence, the columns influence_<task> of codeact influence",
    )
