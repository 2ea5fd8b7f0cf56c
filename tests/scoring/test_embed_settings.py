"""A sentence-transformers model is embedded as its own settings say, by that library or not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codeact.data import load_examples
from codeact.errors import InputError
from codeact.scoring import Embedder
from codeact.scoring.sentence_settings import read_sentence_settings

ROWS = [
    {"instruction": "add", "output": "return a + b"},
    {"instruction": "sort a long list of names", "output": "names.sort()"},
    {"instruction": "é", "output": "x"},
]
EXAMPLES = load_examples(ROWS)
TEXTS = {
    "instruction": [row["instruction"] for row in ROWS],
    "response": [row["output"] for row in ROWS],
    "both": [f"{row['instruction']}\n{row['output']}" for row in ROWS],
}
OLD_MEAN = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False}
OLD_MEAN |= {"pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": False}
NEW_MEAN = {"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": True}
CLS = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}

Make = Callable[..., Path]


@pytest.fixture
def make(tiny_model_folder: Path, tmp_path: Path) -> Make:
    """Makes a model folder with these settings of sentence-transformers."""

    def folder(pooling: dict[str, Any], *kinds: str, whole: dict[str, Any] | None = None) -> Path:
        made = Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))
        modules = [
            {"idx": place, "name": str(place), "path": f"{place}_{kind}" if place else ""}
            | {"type": f"sentence_transformers.models.{kind}"}
            for place, kind in enumerate(("Transformer", "Pooling", *kinds))
        ]
        (made / "modules.json").write_text(json.dumps(modules))
        for module in modules[1:]:
            (made / module["path"]).mkdir()
            (made / module["path"] / "config.json").write_text("{}")
        (made / "1_Pooling/config.json").write_text(json.dumps(pooling))
        (made / "sentence_bert_config.json").write_text('{"max_seq_length": 40}')
        if whole is not None:
            (made / "config_sentence_transformers.json").write_text(json.dumps(whole))
        return made

    return folder


@pytest.mark.parametrize(
    ("pooling", "kinds", "normalised"),
    [(OLD_MEAN, ["Normalize"], True), (NEW_MEAN, [], False), (CLS, ["Normalize"], True)],
    ids=["mean", "mean-unnormalised", "cls"],
)
def test_equals_the_library(make: Make, pooling: Any, kinds: Any, normalised: bool) -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = make(pooling, *kinds)
    truth = library.SentenceTransformer(str(folder), device="cpu")
    for text, texts in TEXTS.items():
        embedder = Embedder(folder, text=text, device="cpu", batch_size=2)  # type: ignore[arg-type]
        vectors = embedder.embed(EXAMPLES)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, truth.encode(texts), atol=1e-6)
        lengths = np.linalg.norm(vectors, axis=1)
        assert np.allclose(lengths, 1, atol=1e-5) == normalised


def test_a_length_is_handed_to_the_library(make: Make) -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = make(CLS | {"pooling_mode_cls_token": False, "pooling_mode_lasttoken": True})
    embedder = Embedder(folder, device="cpu", max_length=3)
    truth = library.SentenceTransformer(str(folder), device="cpu").encode(["add", "sor", "é"])
    assert embedder.max_length == 3
    np.testing.assert_allclose(embedder.embed(EXAMPLES), truth, atol=1e-6)
    assert Embedder(folder, device="cpu").max_length == 40


def test_text_and_response(tiny_model_folder: Path) -> None:
    """A part of the rows is embedded as a set of that part alone."""
    for text, texts in TEXTS.items():
        rows = load_examples([{"instruction": words, "output": "y"} for words in texts])
        expected = Embedder(tiny_model_folder, device="cpu").embed(rows)
        embedder = Embedder(tiny_model_folder, text=text, device="cpu")  # type: ignore[arg-type]
        np.testing.assert_array_equal(embedder.embed(EXAMPLES), expected)


def test_a_text_without_tokens_has_a_vector(tiny_model_folder: Path) -> None:
    """It is that of a start token, alone and beside others; a mean of nothing is none."""
    empty = [{"instruction": "add", "output": ""}]
    embedder = Embedder(tiny_model_folder, text="response", device="cpu")
    alone = embedder.embed(load_examples(empty))[0]
    beside = embedder.embed(load_examples([*ROWS, *empty]))[3]
    np.testing.assert_allclose(beside, alone, atol=1e-6)
    start = load_examples([{"instruction": "<|im_start|>", "output": "x"}])
    expected = Embedder(tiny_model_folder, device="cpu").embed(start)[0]
    np.testing.assert_array_equal(alone, expected)


@pytest.mark.parametrize(
    ("pooling", "kinds", "whole", "expected"),
    [
        (CLS, [], None, "pools by cls"),
        (OLD_MEAN | {"pooling_mode_max_tokens": True}, [], None, "pools by mean and max"),
        (NEW_MEAN | {"pooling_mode": "lasttoken"}, [], None, "pools by lasttoken"),
        (NEW_MEAN | {"include_prompt": False}, [], None, "leaves its prompt out of the mean"),
        (OLD_MEAN, ["Dense"], None, "is made of Transformer, Pooling, Dense"),
        (
            OLD_MEAN,
            ["Normalize"],
            {"prompts": {"query": "Q: "}, "default_prompt_name": "query"},
            "puts 'Q: ' before every text",
        ),
        (OLD_MEAN, [], {"prompts": {"query": "Q: "}, "default_prompt_name": None}, None),
    ],
)
def test_what_needs_the_library(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    pooling: Any,
    kinds: Any,
    whole: Any,
    expected: str | None,
) -> None:
    folder = make(pooling, *kinds, whole=whole)
    settings = read_sentence_settings(str(folder))
    assert settings is not None
    assert settings.beyond_mean == expected
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    if expected is None:
        assert Embedder(folder, device="cpu").embed(EXAMPLES).shape == (3, 32)
        return
    with pytest.raises(InputError, match=r"needs sentence-transformers: pip install") as refused:
        Embedder(folder, device="cpu")
    assert expected in str(refused.value)


def test_broken_settings(make: Make) -> None:
    folder = make(OLD_MEAN)
    (folder / "1_Pooling/config.json").unlink()
    with pytest.raises(InputError, match=r"lacks 1_Pooling/config\.json"):
        Embedder(folder, device="cpu")
    (folder / "modules.json").write_text("[")
    with pytest.raises(InputError, match=r"modules\.json is not JSON"):
        Embedder(folder, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "code"}, "text must be instruction, response or both, got 'code'"),
        ({"max_length": 0}, "max_length must be at least 1, got 0"),
    ],
)
def test_refused_before_anything_is_read(options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Embedder("/no/such/folder", **options)
