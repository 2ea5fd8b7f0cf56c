"""``codeact select``: the rows that the library keeps; bad input says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codeact.selection.budget import TokenBudget
from codeact.selection.candidates import Candidates
from codeact.selection.registry import METHODS, select_rows

Codeact = Callable[[str], Any]
Refused = Callable[[str, str], None]

SELECT = "select {rows} --scores {scores} --embeddings {embeddings} --output {out}/old.jsonl"


def ids_of(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def candidates(places: Any, **more: Any) -> Candidates:
    table = pq.read_table(places.scores)
    columns = {
        field.name: table[field.name].to_numpy().astype(np.float64)
        for field in table.schema
        if field.type == pa.float64()
    }
    prompts, responses = (
        table[f"num_{part}_tokens"].to_numpy().astype(np.int64) for part in ("prompt", "response")
    )
    return Candidates(
        ids=table["id"].to_pylist(),
        columns=columns,
        embeddings=np.load(places.embeddings),
        num_tokens=prompts + responses,
        response_tokens=responses,
        **more,
    )


@pytest.mark.parametrize(
    ("words", "method", "budget", "options"),
    [
        ("--method longest --budget 5", "longest", 5, {}),
        ("--method longest --budget 300tokens", "longest", TokenBudget(300), {}),
        ("--method random --budget 0.4tokens --seed 7", "random", TokenBudget(0.4), {"seed": 7}),
        ("--method ifd --score ifd_loss --budget 3", "ifd", 3, {"score": "ifd_loss"}),
        (
            "--method ppl --score ppl_cond --budget 0.25 --set keep=lowest",
            "ppl",
            0.25,
            {"score": "ppl_cond", "keep": "lowest"},
        ),
        ("--budget 6 --set num_clusters=2", "cdas", 6, {"num_clusters": 2}),
    ],
)
def test_keeps_what_the_library_keeps(
    words: str, method: str, budget: Any, options: dict[str, Any], codeact: Codeact, places: Any
) -> None:
    done = codeact(f"{SELECT} {words}")
    expected = select_rows(method, candidates(places), budget, **options)
    kept = sorted(expected.selected_.tolist())
    assert (done.status, done.out, done.err) == (0, "", f"kept {len(kept)} of 12 rows\n")
    rows = [json.loads(line) for line in places.rows.read_text().splitlines()]
    written = [json.loads(line) for line in (places.out / "old.jsonl").read_text().splitlines()]
    assert written == [rows[row] for row in kept]


def test_table_has_every_row_with_its_reason(codeact: Codeact, places: Any) -> None:
    done = codeact(f"{SELECT} --budget 0.5 --set num_clusters=2 --table {{out}}/table.parquet")
    assert done.status == 0, done.err
    table = pq.read_table(places.out / "table.parquet")
    assert table.schema.names == ["id", "cluster", "ifd_ppl", "kept", "rank", "reason"]
    found = select_rows("cdas", candidates(places), 0.5, num_clusters=2)
    assert table["reason"].to_pylist() == list(found.reasons_)
    assert table["rank"].to_pylist() == found.ranks_.tolist()
    kept = table.filter(table["kept"])["id"].to_pylist()
    assert kept == ids_of(places.out / "old.jsonl")


def test_list_names_every_method_with_what_makes_its_inputs(codeact: Codeact) -> None:
    done = codeact("select --list")
    assert (done.status, done.err) == (0, "")
    names = [line.split()[0] for line in done.out.splitlines() if not line.startswith(" ")]
    assert names == list(METHODS)
    assert "column s_ifd (codeact score --preset tshirt)" in done.out
    assert "arXiv:2408.02193" in done.out
    assert "num_clusters=10" in done.out


def test_columns_of_several_tables_are_put_together(codeact: Codeact, places: Any) -> None:
    ids = [f"row-{row}" for row in range(12)]
    quality = np.random.default_rng(0).permutation(12).astype(float)
    pq.write_table(pa.table({"id": ids, "quality": quality}), places.out / "quality.parquet")
    line = SELECT.replace("--scores {scores}", "--scores {scores} --scores {out}/quality.parquet")
    assert codeact(f"{line} --method ppl --score quality --budget 4").status == 0
    best = sorted(range(12), key=lambda row: -quality[row])[:4]
    assert ids_of(places.out / "old.jsonl") == [ids[row] for row in sorted(best)]


def test_a_column_that_means_two_things_is_refused_where_it_is_read(
    refused: Refused, codeact: Codeact, places: Any
) -> None:
    ids = [f"row-{row}" for row in range(12)]
    other = pa.table({"id": ids, "ppl_direct": np.arange(12.0), "rmi": np.arange(12.0)})
    pq.write_table(other, places.out / "rmi.parquet")
    line = SELECT.replace("--scores {scores}", "--scores {scores} --scores {out}/rmi.parquet")
    twice = r"column ppl_direct differs between the tables"
    refused(f"{line} --method ppl --score ppl_direct --budget 2", twice)
    assert codeact(f"{line} --method longest --budget 2").status == 0


def test_strata_of_languages_and_fields(codeact: Codeact, places: Any) -> None:
    line = "select {rows} --method stratified-random --budget 6 --output {out}/kept.jsonl --strata "
    assert codeact(line + "language").status == 0
    rows = [json.loads(text) for text in places.rows.read_text().splitlines()]
    halves = places.out / "halves.jsonl"
    halves.write_text("".join(json.dumps({**row, "half": row["extra"] < 4}) + "\n" for row in rows))
    assert codeact(line.replace("{rows}", str(halves)) + "half").status == 0
    kept = [row for row in rows if row["id"] in ids_of(places.out / "kept.jsonl")]
    assert [row["extra"] < 4 for row in kept].count(True) == 2


def test_reference_and_weak_scores(codeact: Codeact, places: Any) -> None:
    assert codeact(f"{SELECT} --method longest --budget 4").status == 0
    line = (
        "select {rows} --scores {scores} --method length-matched-random --budget 4 "
        "--reference {out}/old.jsonl --output {out}/matched.jsonl"
    )
    assert codeact(line).status == 0
    names = [f"row-{row}" for row in range(12)]
    reference = np.array([names.index(name) for name in ids_of(places.out / "old.jsonl")])
    expected = select_rows(
        "length-matched-random", candidates(places, reference=reference), 4
    ).selected_
    assert ids_of(places.out / "matched.jsonl") == [names[row] for row in sorted(expected.tolist())]


def test_a_tokenizer_counts_where_no_table_does(codeact: Codeact, places: Any) -> None:
    line = "select {rows} --method longest --budget 3 --tokenizer {model} --output {out}/kept.jsonl"
    assert codeact(line).status == 0
    rows = [json.loads(text) for text in places.rows.read_text().splitlines()]
    longest = sorted(rows, key=lambda row: -len(row["output"].split()))[:3]
    least = min(len(row["output"].split()) for row in longest)
    kept = set(ids_of(places.out / "kept.jsonl"))
    assert all(len(row["output"].split()) >= least for row in rows if row["id"] in kept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--budget 0", r"budget must be a count, a share in \(0, 1\], .+, got '0'"),
        ("--budget 0.0", r"budget must be .+ share in \(0, 1\], .+, got '0\.0'"),
        ("--budget 13", r"budget must be a count from 1 to 12 .+, got 13"),
        ("--budget 1.5", r"budget must be .+, got '1\.5'"),
        ("--budget -3", r"budget must be .+, got '-3'"),
        ("--budget nan", r"budget must be .+, got 'nan'"),
        ("--budget half", r"budget must be a count, a share .+, got 'half'"),
        ("--budget 4token", r"budget must be .+, got '4token'"),
        (
            "--budget 1tokens",
            r"budget must hold the shortest eligible row, of \d+ tokens, got 1 tokens",
        ),
        ("--budget 3 --set exact_budget=false", r"budget must be a float share .+, got 3"),
        ("--method randon", r"there is no method 'randon', do you mean 'random'\?"),
        ("--score loss", r"cdas needs column loss \(a scores table that has it\)"),
        ("--method tshirt", r"tshirt needs column s_ifd \(codeact score --preset tshirt\)"),
        ("--method rds+", r"rds\+ needs queries \(codeact embed"),
        ("--method longest --score x", r"score = 'x' has no use: longest reads no column"),
        ("--set num_cluster=3", r"cdas has no option 'num_cluster', do you mean 'num_clusters'"),
        ("--set num_clusters=many", r"option num_clusters of cdas must be .+, got 'many'"),
        ("--set num_clusters", r"--set expects key=value"),
        ("--compare random", r"--compare needs --report"),
        ("--report {out}/x.pdf", r"--report must end in \.html, got .+x\.pdf"),
        ("--report {out}/x.html --compare tshirt", r"tshirt needs column s_ifd"),
        ("--epochs 0", r"--epochs must be above 0 and finite, got 0"),
        ("--method stratified-random --strata x", r"--strata must be language or a field of the"),
        ("--reference {bad}/other.jsonl", r"--reference must hold rows of .+'other-0' of .+ none"),
        ("--weak-scores {scores}", r"scores\.parquet lacks the column rmi"),
        ("--weak-scores {bad}/words.jsonl", r"words\.jsonl lacks the column rmi"),
        ("--queries {bad}/flat.npy", r"--queries .+flat\.npy must hold one matrix"),
        ("--seed -1", r"--seed must be from 0 to 4294967295, got -1"),
        ("--table {out}/t.csv", r"--table must end in \.parquet or \.jsonl, got .+t\.csv"),
        ("--output {out}/x.parquet", r"--output must end in \.jsonl, got .+x\.parquet"),
    ],
)
def test_refused(options: str, message: str, refused: Refused) -> None:
    refused(f"{SELECT} {options}", message)


def test_without_the_options_that_had_names_of_their_own(refused: Refused) -> None:
    for option in ("--num-clusters 2", "--exact-budget"):
        refused(f"{SELECT} {option}", r"No such option")


def test_report_of_a_selection(codeact: Codeact, places: Any) -> None:
    line = f"{SELECT} --method ifd --budget 5 --report {{out}}/page.html --compare longest"
    done = codeact(line)
    assert done.status == 0, done.err
    page = (places.out / "page.html").read_text(encoding="utf-8")
    assert "Of 12 rows of rows.jsonl, ifd keeps 5 (42\xa0%)" in page
    for name in ("longest", "random", "length-matched-random"):
        assert name in page
    # The tables of codeact score say what they have cost.
    assert "Scoring took" in page


def test_cost_survives_in_the_table_alone(codeact: Codeact, places: Any) -> None:
    from codeact.models import load_model
    from codeact.packing import ModelCost
    from codeact.pipeline.score_cost import read_cost

    cost = read_cost(places.scores)
    assert cost is not None
    table = pq.read_table(places.scores)
    model = load_model(places.model).model
    prompts, responses = (
        table[f"num_{part}_tokens"].to_numpy().astype(np.int64) for part in ("prompt", "response")
    )
    of = ModelCost.from_config(model.config)
    assert cost.num_parameters == model.num_parameters()
    assert cost.num_tokens == int((prompts + responses).sum())
    assert cost.forward_flops == pytest.approx(of(prompts + responses).sum())
    assert cost.flops == pytest.approx((of(prompts + responses) + of(responses)).sum())
    assert cost.seconds > 0
    assert (cost.preset, cost.device) == ("codeact", "cpu")
    bare = table.replace_schema_metadata(None)
    pq.write_table(bare, places.out / "bare.parquet")
    assert read_cost(places.out / "bare.parquet") is None
    line = SELECT.replace("{scores}", "{out}/bare.parquet")
    assert codeact(f"{line} --method ifd --budget 5 --report {{out}}/page.html").status == 0
    page = (places.out / "page.html").read_text(encoding="utf-8")
    assert "The scores table does not say what it has cost" in page


def test_seconds_of_an_interrupted_command_count(
    codeact: Codeact, places: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from codeact.pipeline import selection_stages
    from codeact.pipeline.score_cost import read_cost
    from codeact.scoring import Scorer

    monkeypatch.setattr(selection_stages, "SHARD_SIZE", 5)
    score, calls = Scorer.ifd, []

    def slow(self: Scorer, examples: Any, **options: Any) -> Any:
        calls.append(len(examples))
        if len(calls) == 2:
            time.sleep(1.0)
            raise KeyboardInterrupt
        return score(self, examples, **options)

    monkeypatch.setattr(Scorer, "ifd", slow)
    line = "score {rows} --model {model} --output {out}/x.parquet"
    assert codeact(line).status == 130
    assert codeact(line).status == 0
    cost = read_cost(places.out / "x.parquet")
    assert cost is not None
    assert 1.0 < cost.seconds < 60
    shutil.copy(places.out / "x.parquet", places.out / "copy.parquet")
    assert read_cost(places.out / "copy.parquet") == cost
