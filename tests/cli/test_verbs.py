"""What each verb gives back: results in files or on stdout, words on stderr."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from codeact.cli import main

Codeact = Callable[[str], Any]


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_score_is_the_same_in_every_form(codeact: Codeact, places: Any) -> None:
    shown = codeact("score {rows} --model {model}")
    assert (shown.status, shown.err) == (0, "12 rows: 12 ok\n")
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert rows == pq.read_table(places.scores).to_pylist()
    assert codeact("score {rows} --model {model} --output {out}/x.jsonl").out == ""
    assert read_jsonl(places.out / "x.jsonl") == rows
    assert sorted(path.name for path in places.out.iterdir()) == ["old.jsonl", "x.jsonl"]


def test_score_agrees_with_the_library(places: Any) -> None:
    from codeact.data import load_examples
    from codeact.scoring import Scorer

    expected = Scorer(places.model).ifd(load_examples(places.rows))
    table = pq.read_table(places.scores)
    assert table["id"].to_pylist() == [f"row-{row}" for row in range(12)]
    np.testing.assert_allclose(table["ifd_ppl"], expected["ifd_ppl"], rtol=1e-5)


def test_rows_that_cannot_be_scored_stay(codeact: Codeact, places: Any) -> None:
    texts = [("add", "a + b"), ("add", ""), ("", "x + y"), ("word " * 200, "z")]
    data = places.out / "mixed.jsonl"
    rows = [{"instruction": question, "output": answer} for question, answer in texts]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = codeact("score {out}/mixed.jsonl --model {model}")
    assert done.status == 0
    assert done.err.startswith("4 rows: ")
    scores = [json.loads(line) for line in done.out.splitlines()]
    statuses = ["ok", "empty_response", "empty_instruction", "prompt_overflow"]
    assert [row["status"] for row in scores] == statuses
    assert [row["ifd_ppl"] is None for row in scores] == [False, True, True, True]
    assert re.search(r"1 ok.*1 empty_response.*1 empty_instruction.*1 prompt_overflow", done.err)


def test_rows_of_which_none_can_be_scored(
    codeact: Codeact, refused: Callable[[str, str], None], places: Any
) -> None:
    """The table says why for each; choosing from it is what is refused."""
    line = "score {bad}/no_answers.jsonl --model {model} --output {out}/none.jsonl"
    assert codeact(line).err == "3 rows: 3 empty_response\n"
    np.save(places.out / "none.npy", np.eye(3, dtype=np.float32))
    refused(
        "select {bad}/no_answers.jsonl --scores {out}/none.jsonl --embeddings {out}/none.npy "
        "--set num_clusters=1 --budget 1 --output {out}/kept.jsonl",
        r"ifd must hold at least one score, all 3 are null",
    )


def test_interrupted_score_goes_on(
    codeact: Codeact, places: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from codeact.pipeline import selection_stages
    from codeact.scoring import Scorer

    monkeypatch.setattr(selection_stages, "SHARD_SIZE", 5)
    score, scored = Scorer.ifd, []

    def counting(self: Scorer, examples: Any, **options: Any) -> Any:
        scored.append(len(examples))
        if len(scored) == 2:
            raise KeyboardInterrupt
        return score(self, examples, **options)

    monkeypatch.setattr(Scorer, "ifd", counting)
    line = "score {rows} --model {model} --output {out}/x.parquet"
    stopped = codeact(line)
    assert stopped.status == 130
    assert stopped.err == "codeact score: interrupted; the same command goes on from here\n"
    assert not (places.out / "x.parquet").exists()
    assert codeact(line).status == 0
    assert scored == [5, 5, 5, 2]  # the first five were not scored again
    monkeypatch.undo()
    monkeypatch.setattr(selection_stages, "SHARD_SIZE", 5)
    codeact("score {rows} --model {model} --output {out}/whole.parquet")
    # All but the seconds it took, which the file says too.
    parts, whole = (pq.read_table(places.out / f"{name}.parquet") for name in ("x", "whole"))
    assert parts.equals(whole)
    assert parts.schema.metadata.keys() == whole.schema.metadata.keys()
    assert not list(places.out.glob("*parts*"))


def test_interrupted_score_on_stdout_promises_nothing(
    codeact: Codeact, monkeypatch: pytest.MonkeyPatch
) -> None:
    from codeact.scoring import Scorer

    def interrupt(self: Scorer, examples: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Scorer, "ifd", interrupt)
    stopped = codeact("score {rows} --model {model}")
    assert (stopped.status, stopped.err) == (130, "codeact score: interrupted\n")


def test_shards_of_another_model_in_the_same_folder_are_not_taken(
    codeact: Codeact, places: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from codeact.scoring import Scorer

    model = tmp_path / "model"
    shutil.copytree(places.model, model)
    line = "score {rows} --output {out}/x.parquet --model " + str(model)

    def interrupt(self: Scorer, examples: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Scorer, "ifd", interrupt)
    assert codeact(line).status == 130
    weights = (model / "model.safetensors").stat()
    os.utime(model / "model.safetensors", ns=(weights.st_atime_ns, weights.st_mtime_ns + 1))
    assert codeact(line).status == 130
    assert len(list(places.out.glob("x.parquet.parts-*"))) == 2


def test_embed(places: Any) -> None:
    vectors = np.load(places.embeddings)
    assert (vectors.shape, vectors.dtype) == ((12, 32), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_pack_reports_and_writes_bins(codeact: Codeact, places: Any) -> None:
    done = codeact("pack {rows} --model {model} --capacity 300 --output {out}/bins.json")
    assert (done.status, done.err) == (0, "")
    report = json.loads(done.out)
    written = json.loads((places.out / "bins.json").read_text())
    assert sorted(row for bin_ in written.pop("bins") for row in bin_) == list(range(12))
    assert written == report
    assert report["num_examples"] == 12
    assert report["fill"] == report["num_tokens"] / (report["num_bins"] * 300)


@pytest.mark.parametrize(
    ("overflow", "key"),
    [
        ("drop", "num_dropped"),
        ("truncate", "num_truncated"),
        ("truncate_prompt_left", "num_truncated"),
        ("split", "num_cut"),
    ],
)
def test_pack_of_rows_above_the_capacity(
    overflow: str, key: str, codeact: Codeact, places: Any
) -> None:
    plain = json.loads(codeact("pack {rows} --model {model} --capacity 1000").out)
    line = f"pack {{rows}} --model {{model}} --capacity 90 --overflow {overflow}"
    report = json.loads(codeact(line + " --output {out}/bins.json").out)
    assert 0 < report[key] < 12
    assert report["num_tokens"] + report["num_lost_tokens"] == plain["num_tokens"]
    assert (report["num_lost_tokens"] == 0) == (overflow == "split")
    written = json.loads((places.out / "bins.json").read_text())
    assert ("token_ranges" in written) == (overflow != "drop")
    for rows, ranges in zip(written["bins"], written.get("token_ranges", []), strict=False):
        assert sum(stop - start for start, stop in ranges) <= 90
        assert len(rows) == len(ranges)


@pytest.mark.parametrize("order", ["shuffle", "preserve", "compat"])
def test_pack_for_several_ranks(order: str, codeact: Codeact, places: Any) -> None:
    line = f"pack {{rows}} --model {{model}} --capacity 200 --world-size 3 --order {order}"
    done = codeact(line + " --accumulation 2 --output {out}/bins.json")
    report = json.loads(done.out)
    assert report["num_bins"] == 3 * report["num_steps"]
    assert report["num_updates"] == -(-report["num_steps"] // 2)
    assert 0 < report["sync_efficiency"] <= 1
    written = json.loads((places.out / "bins.json").read_text())
    assert sorted(row for bin_ in written["bins"] for row in bin_) == list(range(12))
    if order == "preserve":
        assert [row for bin_ in written["bins"] for row in bin_] == list(range(12))


def test_pack_leaves_bins_empty_where_rows_run_out(codeact: Codeact, places: Any) -> None:
    line = "pack {rows} --model {model} --capacity 20 --overflow truncate --world-size 8"
    codeact(line + " --output {out}/bins.json")
    bins = json.loads((places.out / "bins.json").read_text())["bins"]
    assert len(bins) == 16
    assert sorted(map(len, bins)) == [0] * 4 + [1] * 12
    assert sorted(row for bin_ in bins for row in bin_) == list(range(12))


def test_pack_warns_of_few_updates(codeact: Codeact) -> None:
    done = codeact("pack {rows} --model {model} --capacity 600 --batch-size 1")
    steps = json.loads(done.out)["num_updates"]
    assert done.err.startswith(
        f"warning: in an epoch, packing leaves {steps} optimizer steps where padded batches of 1 "
        "make 12; to keep the steps: capacity = "
    )
    assert done.err.count("\n") == 1


def test_train_writes_a_model_that_has_learned(codeact: Codeact, places: Any) -> None:
    line = (
        "train {rows} --model {model} --output {out}/model --capacity 300 --epochs 4 "
        "--learning-rate 3e-3 --accumulation 1"
    )
    done = codeact(line)
    assert done.status == 0, done.err
    summary = json.loads(done.out)
    assert summary["rows"] == {"ok": 12}
    assert summary["last_loss"] < 0.8 * summary["first_loss"]
    names = {path.name for path in (places.out / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert sorted(path.name for path in places.out.iterdir()) == ["model", "old.jsonl"]
    again = codeact("score {rows} --model {out}/model")
    assert again.status == 0
    trained = [json.loads(row)["nll_cond"] for row in again.out.splitlines()]
    before = pq.read_table(places.scores)["nll_cond"].to_pylist()
    assert np.mean(trained) < np.mean(before)


def test_decontaminate_lists_and_writes(codeact: Codeact, places: Any) -> None:
    task = {
        "task_id": "HumanEval/0",
        "prompt": 'def f(x):\n    """Return every third word of the text x in upper case."""\n',
        "canonical_solution": "    return [word.upper() for word in x.split()[::3]]\n",
        "entry_point": "f",
        "test": "",
    }
    (places.out / "HumanEval.jsonl").write_text(json.dumps(task) + "\n")
    rows = places.rows.read_text()
    copied = {"id": "copy", "instruction": task["prompt"], "output": task["canonical_solution"]}
    (places.out / "rows.jsonl").write_text(rows + json.dumps({**copied, "extra": 0}) + "\n")
    done = codeact("decontaminate {out}/rows.jsonl --benchmarks {out} --output {out}/clean.jsonl")
    assert done.status == 0
    assert json.loads(done.out)["id"] == "copy"
    assert done.err == "1 of 13 rows contain tasks of HumanEval (1 tasks)\n"
    assert (places.out / "clean.jsonl").read_text() == rows


def test_run_and_report(codeact: Codeact, places: Any) -> None:
    done = codeact("run {recipe} --output {out}/run")
    assert done.status == 0, done.err
    assert done.out == f"{places.out}/run/report.html\n"
    assert re.fullmatch(r"(✓ .+ \d+\.\d s .+\n){11}", done.err), done.err
    (places.out / "run/report.html").unlink()
    again = codeact("report {out}/run")
    assert (again.status, again.out, again.err) == (0, done.out, "")
    assert "tiny" in (places.out / "run/report.html").read_text()


def test_run_folder_is_named_after_the_recipe(
    places: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(places.recipe), "--set", "name=other"]) == 0
    assert capfd.readouterr().out == "runs/other/report.html\n"
    assert (tmp_path / "runs/other/report.html").is_file()
