"""A model that cannot be used is one line that says what is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

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
    ("backend", "implementation"),
    [("auto", "codeact"), ("flex", "codeact_flex"), ("per_sequence", "codeact_per_sequence")],
)
def test_attention_backend(tiny_model_folder: Path, backend: str, implementation: str) -> None:
    model = load_model(tiny_model_folder, device="cpu", attn_backend=backend).model
    assert model.config._attn_implementation == implementation


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attn_backend": "flash"}, "must be one of auto, fa3, .+, got 'flash'"),
        ({"attn_backend": "fa3"}, "'fa3' needs a Hopper GPU .+, got cpu"),
        (
            {"attn_backend": "flex", "attn_implementation": "eager"},
            "'flex' is a kernel of attn_implementation 'codeact', got 'eager'",
        ),
    ],
)
def test_attention_backend_refused(
    tiny_model_folder: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_model(tiny_model_folder, device="cpu", **options)


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


@pytest.mark.parametrize("name", ["auto:1", "cuda:9", "tpu", "cuda:", "cpu:1", "cuda:-1"])
def test_devices_that_are_none(name: str) -> None:
    with pytest.raises(InputError, match=f"device .+{name}"):
        resolve_device(name)


def test_index_above_the_last_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert str(resolve_device("cuda:1")) == "cuda:1"
    with pytest.raises(InputError, match="one of 2 GPUs, counted from cuda:0, got 'cuda:2'"):
        resolve_device("cuda:2")


def test_missing_weights_are_not_made_up(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weights, such as model\.norm\.weight"):
        load_model(folder)
