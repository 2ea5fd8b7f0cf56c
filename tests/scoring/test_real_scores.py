"""On a real model and real rows: the authors' loop, and scores computed independently of ours."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from codeact.data import load_examples
from codeact.models import LoadedModel, load_model
from codeact.scoring import Scorer


@pytest.fixture(scope="module")
def reference_rows(data_folder: Path) -> list[dict[str, Any]]:
    with gzip.open(data_folder / "ref" / "ifd_smollm2_135m.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


def pairs(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [{"instruction": row["question"], "output": row["answer"]} for row in rows]


@pytest.fixture(scope="module")
def loaded(smollm2: Path, device: torch.device) -> LoadedModel:
    return load_model(smollm2, dtype="float32", device=device.type)


@pytest.mark.slow
def test_authors_loop(
    reference_rows: list[dict[str, Any]],
    loaded: LoadedModel,
    smollm2: Path,
    port: Callable[..., Any],
) -> None:
    """The 16 shortest rows (64 with CODEACT_FULL=1): a pass with all logits for each of 32."""
    num_rows = 64 if os.environ.get("CODEACT_FULL") else 16
    rows = sorted(reference_rows, key=lambda row: row["n_joint"])[:num_rows]
    found = Scorer(loaded).ifd(load_examples(pairs(rows)))["ifd_ppl"].to_numpy()
    stock = load_model(
        smollm2, dtype="float32", device=loaded.model.device.type, attn_implementation="sdpa"
    )
    ported = [port(*stock, row, "codeact", 8192).ifd_ppl for row in pairs(rows)]
    assert np.abs(found - np.array(ported)).max() <= 1e-4
    assert np.abs(found - [row["ifd"] for row in rows]).max() <= 1e-4


@pytest.mark.slow
def test_independent_scores(reference_rows: list[dict[str, Any]], loaded: LoadedModel) -> None:
    """Every 20th row (all 320 with CODEACT_FULL=1), long ones among them."""
    rows = reference_rows if os.environ.get("CODEACT_FULL") else reference_rows[::20]
    table = Scorer(loaded).ifd(load_examples(pairs(rows)))
    for column, key in [
        ("ifd_ppl", "ifd"), ("nll_cond", "nll_cond_joint"), ("nll_direct", "nll_direct_nobos"),
    ]:  # fmt: skip
        error = np.abs(table[column].to_numpy() - [row[key] for row in rows])
        assert error.max() <= 1e-4, f"{column}: {error.max():.1e}"


@pytest.mark.slow
def test_truncated_scores(reference_rows: list[dict[str, Any]], loaded: LoadedModel) -> None:
    rows = [row for row in reference_rows if row.get("trunc256") is not None][:8]
    table = Scorer(loaded, max_length=256).ifd(load_examples(pairs(rows)))
    error = np.abs(table["ifd_ppl"].to_numpy() - [row["trunc256"]["ifd"] for row in rows])
    assert error.max() <= 1e-4


@pytest.mark.gpu
@pytest.mark.slow
def test_bfloat16_ranks_alike(reference_rows: list[dict[str, Any]], smollm2: Path) -> None:
    scorer = Scorer(load_model(smollm2, dtype="bfloat16"))
    found = scorer.ifd(load_examples(pairs(reference_rows)))["ifd_ppl"].to_numpy()
    truth = np.array([row["ifd"] for row in reference_rows])
    assert spearmanr(found, truth).statistic >= 0.999
