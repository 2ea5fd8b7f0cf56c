"""What ``codeact select`` reads beside the rows: every kind of column, and nothing in vain."""

from __future__ import annotations

import decimal
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codeact.cli.score_columns import read_scores
from codeact.pipeline.score_cost import ScoreCost, with_cost
from codeact.selection.candidates import Candidates
from codeact.selection.registry import select_rows

Codeact = Callable[[str], Any]
Refused = Callable[[str, str], None]

IDS = [f"row-{row}" for row in range(12)]


def test_columns_of_any_number_type_are_float64(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array(["a", "b", "c"]).dictionary_encode(),
            "double": pa.array([0.1, None, float("nan")], pa.float64()),
            "half": pa.array([0.5, None, 2.0], pa.float16()),
            "whole": pa.array([3, None, -(2**62)], pa.int64()),
            "price": pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("-2.5")]),
            "nothing": pa.nulls(3),
            "flag": [True, False, None],
            "word": ["x", None, "y"],
            "token_nll_cond": pa.array([[0.1], None, []], pa.list_(pa.float32())),
        }
    )
    pq.write_table(table, tmp_path / "scores.parquet")
    found = read_scores([tmp_path / "scores.parquet"], ["a", "b", "c"], "data")
    expected = {
        "double": [0.1, np.nan, np.nan],
        "half": [0.5, np.nan, 2.0],
        "whole": [3.0, np.nan, -(2.0**62)],
        "price": [1.25, np.nan, -2.5],
        "nothing": [np.nan] * 3,
    }
    assert list(found.columns) == list(expected)
    for name, values in expected.items():
        assert found.columns[name].dtype == np.float64
        np.testing.assert_array_equal(found.columns[name], values, err_msg=name)
    assert set(found.unusable) == {"flag", "word"}


def test_losses_of_tokens_stay_on_the_disk(tmp_path: Path) -> None:
    """Their column is unreadable here, and nothing reads it."""
    path = tmp_path / "scores.parquet"
    losses = list(np.random.default_rng(0).uniform(size=(4, 1000)))
    pq.write_table(pa.table({"id": list("abcd"), "nlls": losses, "ifd_ppl": [0.5] * 4}), path)
    chunk = pq.read_metadata(path).row_group(0).column(1)
    content = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start : start + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(OSError, match="deserialize"):
        pq.read_table(path)
    found = read_scores([path], list("abcd"), "data")
    assert found.columns["ifd_ppl"].tolist() == [0.5] * 4


def test_a_reference_has_the_columns_of_the_data(codeact: Codeact, places: Any) -> None:
    rows = [json.loads(line) for line in places.rows.read_text().splitlines()]
    renamed = [{"id": row["id"], "task": row["instruction"], "code": row["output"]} for row in rows]
    for name, part in (("all", renamed), ("some", renamed[2:8])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (places.out / f"{name}.jsonl").write_text(lines)
    line = (
        "select {out}/all.jsonl --column instruction=task --column response=code --scores {scores} "
        "--method length-matched-random --budget 4 --reference {out}/some.jsonl "
        "--output {out}/kept.jsonl"
    )
    done = codeact(line)
    assert (done.status, done.err) == (0, "kept 4 of 12 rows\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--strata language", r"--strata has no use: random do without"),
        ("--queries {embeddings}", r"--queries has no use"),
        ("--reference {rows}", r"--reference has no use"),
        ("--weak-scores {out}/weak.parquet", r"--weak-scores has no use"),
        (
            "--reference {rows} --report {out}/x.html --compare length-matched-random",
            r"--reference has no use",
        ),
        ("--budget 50tokens", r"--budget in tokens needs .+: give --scores .+ or --tokenizer"),
    ],
)
def test_refuses_what_no_method_reads(
    options: str, message: str, refused: Refused, places: Any
) -> None:
    pq.write_table(pa.table({"id": IDS, "rmi": np.arange(12.0)}), places.out / "weak.parquet")
    refused("select {rows} --method random --output {out}/old.jsonl " + options, message)


def test_a_method_that_is_compared_may_read_a_file(codeact: Codeact, places: Any) -> None:
    line = (
        "select {rows} --method random --budget 4 --output {out}/kept.jsonl --strata language "
        "--report {out}/page.html --compare stratified-random"
    )
    assert codeact(line).status == 0


def test_scoring_by_the_weaker_model_is_a_cost_too(codeact: Codeact, places: Any) -> None:
    rng = np.random.default_rng(0)
    for name in ("strong", "weak"):
        columns = {"rmi": rng.uniform(size=12), "ppl_direct": rng.uniform(1, 9, 12)}
        counts = {f"num_{part}_tokens": np.full(12, 5) for part in ("prompt", "response")}
        cost = ScoreCost(f"org/{name}", "qaq", "cpu", 1000, 120, 1e6, 2e6, 3.0)
        table = with_cost(pa.table({"id": IDS, **columns, **counts}), cost)
        pq.write_table(table, places.out / f"{name}.parquet")
    line = (
        "select {rows} --scores {out}/strong.parquet --weak-scores {out}/weak.parquet "
        "--method qaq --set rule=difference --budget 4 --output {out}/kept.jsonl "
        "--report {out}/page.html"
    )
    done = codeact(line)
    assert done.status == 0, done.err
    page = (places.out / "page.html").read_text(encoding="utf-8")
    assert "org/strong (qaq, cpu)" in page
    assert "org/weak (qaq, cpu)" in page


def test_presets_that_name_columns_alike_go_together(codeact: Codeact, places: Any) -> None:
    """``ppl_direct`` is of the response beside ``ifd_ppl``, of the instruction beside ``rmi``."""
    rng = np.random.default_rng(3)
    rmi, difficulty = rng.uniform(size=12), rng.uniform(1, 9, 12)
    table = pa.table({"id": IDS, "rmi": rmi, "ppl_direct": difficulty})
    pq.write_table(table, places.out / "rmi.parquet")
    expected = select_rows(
        "qaq", Candidates(ids=IDS, columns={"rmi": rmi, "ppl_direct": difficulty}), 4, num_bins=3
    )
    for tables in (("{scores}", "{out}/rmi.parquet"), ("{out}/rmi.parquet", "{scores}")):
        both = " ".join(f"--scores {table}" for table in tables)
        line = (
            f"select {{rows}} {both} --method qaq --set num_bins=3 --budget 4 "
            "--output {out}/kept.jsonl --report {out}/page.html --compare ifd"
        )
        done = codeact(line)
        assert done.status == 0, done.err
        lines = (places.out / "kept.jsonl").read_text().splitlines()
        kept = [json.loads(line)["id"] for line in lines]
        assert kept == [IDS[row] for row in sorted(expected.selected_.tolist())]


def test_a_broken_archive_is_no_matrix(refused: Refused, places: Any) -> None:
    (places.out / "broken.npy").write_bytes(b"PK\x03\x04 and no more")
    line = "select {rows} --method kcenter --budget 2 --output {out}/old.jsonl "
    refused(line + "--embeddings {out}/broken.npy", r"--embeddings .+broken\.npy cannot be read")
