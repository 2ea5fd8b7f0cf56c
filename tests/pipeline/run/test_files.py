"""What a whole run leaves: every file, with the content that follows from the one before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from codeact.data import load_examples, tokenize_examples
from codeact.models import load_model, load_tokenizer
from codeact.pipeline.recipe import load_recipe
from codeact.pipeline.report_words import arm_names, verdict_sentence
from codeact.pipeline.run import STAGES
from codeact.pipeline.run_folder import file_sha256
from codeact.scoring import Scorer

NUM_OK, NUM_HELD_OUT = 40, 8
NUM_EXAMPLES = NUM_OK - NUM_HELD_OUT
ALL = [stage.name for stage in STAGES]


def table(folder: Path, name: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = pq.read_table(folder / name).to_pydict()
    return columns


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_manifest_records_every_stage_with_its_files(finished: Any) -> None:
    assert finished.announced.begun == ALL
    manifest = json.loads((finished.folder / "manifest.json").read_text())
    assert list(manifest["stages"]) == ALL
    recorded = {
        file: digest
        for stage in manifest["stages"].values()
        for file, digest in stage["files"].items()
    }
    assert recorded == {file: file_sha256(finished.folder / file) for file in recorded}
    on_disk = {
        path.relative_to(finished.folder).as_posix()
        for path in finished.folder.rglob("*")
        if path.is_file()
    }
    assert on_disk == recorded.keys() | {"manifest.json", "recipe.yaml", ".lock"}
    assert load_recipe(finished.folder / "recipe.yaml") == finished.recipe


def test_rows_left_out_are_counted_by_status(finished: Any) -> None:
    summary = finished.announced.summaries["load"]
    assert summary.startswith("40 of 44 rows of ")
    assert summary.endswith("left out: 2 empty_response, 1 truncated, 1 empty_instruction")


def test_candidates_and_held_out_rows_share_none(finished: Any) -> None:
    source = {row["id"]: row for row in lines(Path(str(finished.recipe.data.source)))}
    candidates = lines(finished.folder / "examples.jsonl")
    held_out = lines(finished.folder / "held_out.jsonl")
    assert (len(candidates), len(held_out)) == (NUM_EXAMPLES, NUM_HELD_OUT)
    assert len({row["id"] for row in candidates + held_out}) == NUM_OK
    assert all(row["fields"] == source[row["id"]] for row in candidates + held_out)
    found = json.loads((finished.folder / "decontamination.json").read_text())
    assert (found["num_examples"], found["benchmarks"], found["removed"]) == (NUM_OK, [], [])
    assert found["note"].startswith("no benchmark files found, so nothing was checked")


def test_scores_and_embeddings_are_rows_of_the_candidates(finished: Any) -> None:
    candidates = load_examples(finished.folder / "examples.jsonl")
    scores = table(finished.folder, "scores.parquet")
    assert scores["id"] == list(candidates.ids)
    assert set(scores["status"]) == {"ok"}
    expected = Scorer(finished.recipe.model.name or "").ifd(candidates)
    np.testing.assert_allclose(scores["ifd_ppl"], expected["ifd_ppl"], rtol=1e-5)
    vectors = np.load(finished.folder / "embeddings.npy")
    assert (vectors.shape, vectors.dtype) == ((NUM_EXAMPLES, 32), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    clusters = table(finished.folder, "clusters.parquet")
    assert clusters["id"] == scores["id"]
    for label in range(3):
        members = np.flatnonzero(np.array(clusters["cluster"]) == label)
        centroid = vectors[members].mean(axis=0)
        distances = np.linalg.norm(vectors[members] - centroid, axis=1)
        np.testing.assert_allclose(np.array(clusters["distance"])[members], distances, atol=1e-4)


def test_selection_follows_from_scores_and_clusters(finished: Any) -> None:
    selection = table(finished.folder, "selection.parquet")
    scores = table(finished.folder, "scores.parquet")
    for name in ("id", "ifd_ppl", "num_response_tokens"):
        assert selection[name] == scores[name]
    assert selection["cluster"] == table(finished.folder, "clusters.parquet")["cluster"]
    ifd, labels = np.array(selection["ifd_ppl"]), np.array(selection["cluster"])
    kept, ranks = np.array(selection["kept"]), np.array(selection["rank"])
    assert kept.sum() == np.array(selection["kept_random"]).sum() == NUM_EXAMPLES // 2
    for label in range(3):
        eligible = np.flatnonzero((labels == label) & (ifd < 1))
        in_order = eligible[np.argsort(-ifd[eligible])]
        assert ranks[in_order].tolist() == list(range(len(in_order)))
        assert not np.any(np.diff(kept[in_order].astype(int)) > 0)
    assert not kept[ifd >= 1].any()
    subset = [row["id"] for row in lines(finished.folder / "subset.jsonl")]
    assert subset == [id_ for id_, keep in zip(selection["id"], kept, strict=True) if keep]
    source = {row["id"]: row for row in lines(Path(str(finished.recipe.data.source)))}
    assert all(row == source[row["id"]] for row in lines(finished.folder / "subset.jsonl"))


def test_packing_counts_the_tokens_of_each_arm(finished: Any) -> None:
    packing = json.loads((finished.folder / "packing.json").read_text())
    selection = table(finished.folder, "selection.parquet")
    tokenized = tokenize_examples(
        load_examples(finished.folder / "examples.jsonl"),
        load_tokenizer(finished.recipe.model.name or ""),
        max_length=220,
    )
    chosen = {"full": [True] * NUM_EXAMPLES}
    chosen |= {"selected": selection["kept"], "random": selection["kept_random"]}
    assert packing["capacity"] == 300
    assert packing["arms"].keys() == chosen.keys()
    for arm, rows in chosen.items():
        report, seqlens = packing["arms"][arm], tokenized.seqlens[np.array(rows)]
        assert report["num_examples"] == len(seqlens)
        assert report["num_tokens"] == seqlens.sum()
        assert report["padding_packed"] == pytest.approx(
            1 - seqlens.sum() / (report["num_bins"] * 300)
        )
        assert report["padding_max"] == pytest.approx(1 - seqlens.mean() / 300)
        assert 0 < report["padding_dynamic"] < report["padding_max"]
        assert report["num_updates"] == report["num_steps"] == report["num_bins"]


@pytest.mark.parametrize("arm", ["selected", "random"])
def test_training_went_over_the_arm_once(finished: Any, arm: str) -> None:
    folder = finished.folder / "train" / arm
    log, summary = lines(folder / "log.jsonl"), json.loads((folder / "summary.json").read_text())
    packing = json.loads((finished.folder / "packing.json").read_text())["arms"][arm]
    assert [step["step"] for step in log] == list(range(1, packing["num_updates"] + 1))
    assert sum(step["num_tokens"] for step in log) == packing["num_tokens"]
    assert (summary["num_examples"], summary["num_steps"]) == (NUM_EXAMPLES // 2, len(log))
    assert summary["num_tokens"] == packing["num_tokens"]
    assert summary["forecast"]["num_steps"] == len(log)
    assert log[-1]["loss"] < log[0]["loss"]
    base, trained = (
        load_model(path, device="cpu").model.state_dict()
        for path in (finished.recipe.model.name or "", folder / "model")
    )
    assert base.keys() == trained.keys()
    assert any(not torch.equal(base[name], trained[name]) for name in base)


def test_evaluation_is_the_loss_of_each_held_out_answer(finished: Any) -> None:
    held_out = table(finished.folder, "evaluation/held_out.parquet")
    examples = load_examples(finished.folder / "held_out.jsonl")
    assert held_out["id"] == list(examples.ids)
    model, tokenizer = load_model(finished.recipe.model.name or "", device="cpu")
    ids, labels = (
        torch.from_numpy(np.array(part)).long()[None]
        for part in tokenize_examples(examples, tokenizer, max_length=220)[0]
    )
    expected = model(input_ids=ids, labels=labels, use_cache=False).loss.item()
    assert held_out["nll_base"][0] == pytest.approx(expected, rel=1e-5)
    comparison = json.loads((finished.folder / "evaluation/comparison.json").read_text())
    weights = held_out["num_response_tokens"]
    for name, mean in comparison["means"].items():
        assert mean == pytest.approx(np.average(held_out[f"nll_{name}"], weights=weights))
    pairs = {(pair["a"], pair["b"]): pair for pair in comparison["pairs"]}
    assert list(pairs) == [("selected", "random"), ("selected", "base"), ("random", "base")]
    for (a, b), pair in pairs.items():
        difference = comparison["means"][a] - comparison["means"][b]
        assert pair["difference"] == pytest.approx(difference)
        assert pair["interval"][0] <= pair["difference"] <= pair["interval"][1]
        assert pair["num_pairs"] == NUM_HELD_OUT
    page = (finished.folder / "report.html").read_text()
    names = arm_names(finished.recipe)
    assert verdict_sentence(pairs["selected", "random"]["verdict"], names) in page
