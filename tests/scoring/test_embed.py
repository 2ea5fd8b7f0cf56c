"""Embeddings are the mean over real tokens, whatever else is in the batch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from codeact.data import load_examples
from codeact.errors import InputError
from codeact.scoring import Embedder

TEXTS = ["add", "a much longer instruction than the others", "é", "sort a list"]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_equals_one_text_at_a_time(tiny_model_folder: Path, batch_size: int) -> None:
    examples = load_examples([{"instruction": text, "output": "x"} for text in TEXTS])
    vectors = Embedder(tiny_model_folder, device="cpu", batch_size=batch_size).embed(examples)
    model = AutoModel.from_pretrained(tiny_model_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    for vector, text in zip(vectors, TEXTS, strict=True):
        with torch.no_grad():
            state = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(vector, (state / state.norm()).numpy(), atol=1e-5)


def test_real_vectors(data_folder: Path) -> None:
    """Independent vectors of real questions by the packaged encoder."""
    import gzip
    import json

    from codeact.models import demo_embedder

    try:
        folder = demo_embedder()
    except InputError as error:
        pytest.skip(f"no encoder here: {error}")
    truth = np.load(data_folder / "ref" / "minilm_embeddings.npz")
    with gzip.open(data_folder / "ref" / "ifd_smollm2_135m.jsonl.gz", "rt") as lines:
        questions = {row["row_id"]: row["question"] for row in map(json.loads, lines)}
    chosen = range(0, 320, 10)
    rows = [{"instruction": questions[str(truth["row_id"][i])], "output": "x"} for i in chosen]
    vectors = Embedder(folder, device="cpu", max_length=256).embed(load_examples(rows))
    np.testing.assert_allclose(vectors, truth["embedding"][list(chosen)], atol=1e-4)


def test_missing_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no config\.json"):
        Embedder(tmp_path)


EXAMPLES = load_examples([{"instruction": text, "output": "x"} for text in ("add", "sort a list")])


def test_a_tokenizer_without_padding(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))
    tokenizer = AutoTokenizer.from_pretrained(folder, pad_token=None, padding_side="left")
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).pad_token is None
    expected = Embedder(tiny_model_folder, device="cpu").embed(EXAMPLES)
    np.testing.assert_allclose(Embedder(folder, device="cpu").embed(EXAMPLES), expected, atol=1e-6)


def test_home_is_expanded(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny_model_folder.parent))
    found = Embedder(f"~/{tiny_model_folder.name}", device="cpu").embed(EXAMPLES)
    assert found.shape == (2, 32)


def test_an_error_without_words(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(AutoModel, "from_pretrained", fail)
    with pytest.raises(InputError, match="cannot be loaded: OSError"):
        Embedder(tiny_model_folder, device="cpu")


def test_batch_size_is_refused_before_anything_is_read() -> None:
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        Embedder("/no/such/folder", batch_size=0)
