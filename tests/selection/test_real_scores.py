"""CDAS and its baseline on 320 rows of real scores and embeddings."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans

from codeact.selection import (
    CDAS,
    LengthMatchedRandom,
    RandomSelection,
    TopIFD,
    cluster_kmeans,
)


@pytest.fixture(scope="module")
def rows(data_folder: Path) -> list[dict[str, Any]]:
    folder = data_folder / "ref"
    if not folder.is_dir():
        pytest.skip(f"no reference scores in {folder}")
    with gzip.open(folder / "ifd_smollm2_135m.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    embeddings = np.load(folder / "minilm_embeddings.npz")
    assert [row["row_id"] for row in rows] == embeddings["row_id"].tolist()
    return [{**row, "embedding": e} for row, e in zip(rows, embeddings["embedding"], strict=True)]


def select_data(data: list[dict[str, Any]], ratio: float) -> list[str]:
    """The authors' script in plain Python: k-means, then the rule per cluster, on row dicts."""
    embeddings = np.stack([item["embedding"] for item in data])
    labels = KMeans(n_clusters=10, random_state=42).fit_predict(embeddings)
    groups: list[list[dict[str, Any]]] = [[] for _ in range(10)]
    for item, label in zip(data, labels, strict=True):
        groups[label].append(item)
    chosen = []
    for group in groups:
        below = sorted((x for x in group if x["ifd"] < 1.0), key=lambda x: x["ifd"], reverse=True)
        chosen += below[: int(len(below) * ratio)]
    return [item["row_id"] for item in chosen]


@pytest.mark.parametrize("scale", [1.0, 1.7], ids=["as scored", "many above 1"])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.4, 1.0])
def test_keeps_the_rows_of_the_authors_script(
    rows: list[dict[str, Any]], ratio: float, scale: float
) -> None:
    # Every real score here is below 1; scaled up, the cap drops a good part of them.
    rows = [{**row, "ifd": scale * row["ifd"]} for row in rows]
    assert any(row["ifd"] >= 1 for row in rows) == (scale > 1)
    embeddings = np.stack([row["embedding"] for row in rows])
    ours = CDAS(ratio, exact_budget=False).fit(embeddings, [row["ifd"] for row in rows])
    assert [rows[i]["row_id"] for i in ours.selected_] == select_data(rows, ratio)


def test_exact_budget_keeps_what_was_asked_and_all_but_the_margin_agrees(
    rows: list[dict[str, Any]],
) -> None:
    embeddings, ifd = np.stack([row["embedding"] for row in rows]), [row["ifd"] for row in rows]
    clusters = cluster_kmeans(embeddings)
    exact = CDAS(0.4).fit(embeddings, ifd, clusters=clusters)
    theirs = CDAS(0.4, exact_budget=False).fit(embeddings, ifd, clusters=clusters)
    assert len(exact.selected_) == 128
    # Their rule rounds down in each of 10 clusters, so it is short by fewer than 10.
    assert 128 - 10 < len(theirs.selected_) < 128
    assert set(theirs.selected_) <= set(exact.selected_)


@pytest.mark.parametrize("scale", [1.0, 1.7], ids=["as scored", "many above 1"])
def test_top_ifd_keeps_the_rows_of_superfiltering(rows: list[dict[str, Any]], scale: float) -> None:
    """Its select_data.py: below the threshold, sorted by falling score, the first of them."""
    scores = {row["row_id"]: scale * row["ifd"] for row in rows}
    below = [row_id for row_id, score in scores.items() if score < 1]
    expected = sorted(below, key=scores.__getitem__, reverse=True)[:32]
    top = TopIFD(0.1).fit(list(scores.values()), ids=list(scores))
    assert [rows[i]["row_id"] for i in top.selected_] == expected


def test_length_matched_random_has_the_profile_of_cdas(rows: list[dict[str, Any]]) -> None:
    lengths = np.array([row["n_answer"] for row in rows])
    embeddings, ifd = np.stack([row["embedding"] for row in rows]), [row["ifd"] for row in rows]
    kept = CDAS(0.4).fit(embeddings, ifd).selected_
    matched = LengthMatchedRandom(seed=0).fit(lengths, kept)
    plain = RandomSelection(128, seed=0).fit(lengths)
    report = matched.report_
    assert report.num_kept == len(matched.selected_) == 128
    assert report.num_borrowed == 0
    assert report.ks_distance <= 0.05
    assert abs(report.mean_random / report.mean_reference - 1) < 0.1
    # IFD follows length, so plain random rows are far from the profile.
    assert abs(lengths[plain.selected_].mean() / report.mean_reference - 1) > 0.1
    assert 0 < report.overlap < 128
