"""``codeact score``: the preset picks the method; tables and matrices are the library's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import codeact
from codeact.cli import main
from codeact.data import load_examples
from codeact.scoring import Scorer

ROWS = [{"instruction": f"Add {i}", "output": f"return x + {i}"} for i in range(7)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def score(data: Path, model: Path, *options: str) -> int:
    line = ["score", str(data), "--model", str(model), "--device", "cpu"]
    return main([*line, "--output", str(data.parent / "x.parquet"), *options])


@pytest.mark.parametrize("preset", ["superfiltering", "tshirt", "qaq"])
def test_presets(
    data: Path, tiny_model_folder: Path, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In shards of three rows, which S-IFD must not see."""
    from codeact.pipeline import selection_stages

    monkeypatch.setattr(selection_stages, "SHARD_SIZE", 9 if preset == "tshirt" else 3)
    options = ["--num-copies", "2", "--seed", "4"] if preset == "tshirt" else []
    assert score(data, tiny_model_folder, "--preset", preset, *options) == 0
    found = pq.read_table(data.parent / "x.parquet")
    scorer, examples = Scorer(tiny_model_folder, preset=preset), load_examples(data)
    expected = {
        "superfiltering": lambda: scorer.ifd(examples),
        "tshirt": lambda: scorer.s_ifd(examples, num_copies=2, seed=4),
        "qaq": lambda: scorer.rmi(examples),
    }[preset]()
    assert found.schema.names == expected.schema.names
    assert found["status"].to_pylist() == ["ok"] * 7
    for name in expected.schema.names[3:-1]:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5)


def test_embeddings_and_token_losses(
    data: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from codeact.pipeline import selection_stages

    monkeypatch.setattr(selection_stages, "SHARD_SIZE", 3)
    matrix = data.parent / "e.npy"
    options = ["--embeddings", str(matrix), "--pool", "prompt", "--token-nll"]
    assert score(data, tiny_model_folder, *options) == 0
    found = pq.read_table(data.parent / "x.parquet")
    table, vectors = Scorer(tiny_model_folder).ifd_and_embeddings(
        load_examples(data), pool="prompt", token_nlls=True
    )
    assert found.schema.names == table.schema.names
    np.testing.assert_allclose(np.load(matrix), vectors, atol=1e-5)
    for ours, theirs in zip(found["token_nll_cond"], table["token_nll_cond"], strict=True):
        np.testing.assert_allclose(ours.as_py(), theirs.as_py(), atol=1e-5)
    assert not list(data.parent.glob("*parts*"))


def test_token_losses_of_a_row_without_a_score(data: Path, tiny_model_folder: Path) -> None:
    """JSON has no NaN: a model that gives one may not stop the writing of a finished table."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    broken = data.parent / "broken"
    shutil.copytree(tiny_model_folder, broken)
    weights = load_file(broken / "model.safetensors")
    (x,) = AutoTokenizer.from_pretrained(broken)("x")["input_ids"]
    weights["model.embed_tokens.weight"][x] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    output = data.parent / "x.jsonl"
    assert score(data, broken, "--output", str(output), "--token-nll") == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["status"] for row in rows] == ["nonfinite"] * 7
    assert [row["token_nll_cond"] for row in rows] == [None] * 7


def test_interrupted_with_embeddings_alone(
    data: Path,
    tiny_model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The parts wait beside the matrix, and the user is told so."""
    from codeact.pipeline import selection_stages

    monkeypatch.setattr(selection_stages, "SHARD_SIZE", 3)
    scored: list[int] = []
    real = Scorer.ifd_and_embeddings

    def interrupt(self: Scorer, examples: Any, **options: Any) -> Any:
        scored.append(len(examples))
        if len(scored) == 2:
            raise KeyboardInterrupt
        return real(self, examples, **options)

    monkeypatch.setattr(Scorer, "ifd_and_embeddings", interrupt)
    line = ["score", str(data), "--model", str(tiny_model_folder), "--device", "cpu"]
    line += ["--embeddings", str(data.parent / "e.npy")]
    assert main(line) == 130
    assert "the same command goes on from here" in capfd.readouterr().err
    with monkeypatch.context() as other_version:  # whose rules and shards may differ
        other_version.setattr(codeact, "__version__", "0.0.0")
        assert main(line) == 0
    assert scored == [3, 3, 3, 3, 1]
    assert main(line) == 0
    assert scored[5:] == [3, 1]
    assert np.load(data.parent / "e.npy").shape == (7, 32)
    assert not list(data.parent.glob("*parts*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "qaq", "--embeddings", "{}/e.npy"], "embeddings come with a preset of IFD"),
        (["--preset", "tshirt", "--token-nll"], "losses of tokens come with ifd and rmi"),
        (["--turns", "first"], "--turns must be all or last"),
        (["--pool", "cls"], "--pool must be sequence or prompt"),
        (["--embeddings", "{}/e.npz"], "--embeddings must end in .npy"),
        (["--num-copies", "-1"], "--num-copies must be at least 0"),
        (["--num-copies", "3"], "--num-copies needs --preset tshirt, got codeact"),
        (["--pool", "prompt"], "--pool needs --embeddings"),
        (["--preset", "alpaca"], "preset must be one of codeact, superfiltering, cherry, tshirt"),
    ],
)
def test_refused(
    data: Path, options: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before the model is read: there is none."""
    given = [option.format(data.parent) for option in options]
    assert score(data, Path("/no/such/model"), *given) == 2
    shown: Any = capfd.readouterr()
    assert shown.err.startswith(f"codeact score: error: {message}")
