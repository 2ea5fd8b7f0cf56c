"""The k-means script runs from end to end, and reads a file."""

from __future__ import annotations

from pathlib import Path

import bench_kmeans
import embedding_data
import numpy as np
import pytest


def test_quick(capsys: pytest.CaptureFixture[str]) -> None:
    bench_kmeans.main(["--quick", "--no-record", "--clusters", "6"])
    printed = capsys.readouterr().out
    for contender in ("codeact full", "codeact mini-batch", "scikit-learn"):
        assert contender in printed
    assert "iterations of 2000 rows" in printed


def test_a_file_is_enlarged_by_its_own_rows(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float16)
    np.save(tmp_path / "v.npy", vectors)
    larger = embedding_data.read_embeddings(tmp_path / "v.npy", 120)
    assert larger.shape == (120, 4)
    assert (larger[:50] == vectors).all()
    gaps = np.linalg.norm(larger[50:, None] - vectors[None].astype(np.float32), axis=2).min(1)
    assert (gaps > 0).all()
    assert gaps.max() < 0.6
    assert len(embedding_data.read_embeddings(tmp_path / "v.npy", 30)) == 30
