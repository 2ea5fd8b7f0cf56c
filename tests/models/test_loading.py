"""A model that cannot be used is one line that says what is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from codeact.errors import InputError
from codeact.models import load_model, resolve_device, resolve_dtype


def test_local_folder(tiny_model_folder: Path) -> None:
    model, tokenizer = load_model(tiny_model_folder, device="cpu")
    assert model.config._attn_implementation == "codeact"
    assert model.dtype == torch.float32
    assert not model.training
    assert tokenizer.decode(tokenizer("a b")["input_ids"]) == "a b"


def test_bfloat16(tiny_model_folder: Path) -> None:
    assert (
        load_model(tiny_model_folder, dtype="bfloat16", device="cpu").model.dtype == torch.bfloat16
    )


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        (("config.json",), "has no config.json"),
        (("tokenizer.json", "tokenizer_config.json"), "has no tokenizer"),
        (("model.safetensors",), "cannot be loaded"),
    ],
)
def test_incomplete_folder(
    tiny_model_folder: Path, tmp_path: Path, remove: tuple[str, ...], message: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    for name in remove:
        (folder / name).unlink()
    with pytest.raises(InputError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        load_model(tmp_path / "nowhere")


def test_model_that_is_no_language_model(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "vit"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(folder)


def test_names_are_checked() -> None:
    with pytest.raises(InputError, match="dtype must be one of"):
        resolve_dtype("int8", torch.device("cpu"))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no usable GPU"):
            resolve_device("cuda")
