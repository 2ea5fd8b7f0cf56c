"""A model that cannot be used is one line that says what is missing."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, LlamaForCausalLM

from codeact.errors import InputError
from codeact.models import (
    assert_isolated,
    load_model,
    load_tokenizer,
    parameter_names,
    resolve_device,
    resolve_dtype,
)


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


@pytest.fixture
def adapter(tiny_model_folder: Path, tmp_path: Path) -> Callable[..., tuple[Path, Any]]:
    """Writes an adapter of the tiny model, or of one with another config; its folder and model."""
    peft = pytest.importorskip("peft")

    def write(change: dict[str, Any] | None = None, **options: Any) -> tuple[Path, Any]:
        config = AutoConfig.from_pretrained(tiny_model_folder)
        if change is None:
            base = LlamaForCausalLM.from_pretrained(tiny_model_folder)
        else:
            config.update(change)
            base = LlamaForCausalLM(config)
        options = {"r": 2, "target_modules": ["q_proj", "down_proj"], **options}
        torch.manual_seed(1)
        around = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **options))
        for name, weight in around.named_parameters():
            if "lora_B" in name:  # zero at first: it would change nothing
                torch.nn.init.normal_(weight, std=0.2)
        around.save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter", around.eval()

    return write


def test_adapter_is_inside_the_model(
    tiny_model_folder: Path, adapter: Callable[..., tuple[Path, Any]]
) -> None:
    folder, around = adapter(lora_dropout=0.5)
    ids = torch.arange(3, 20)[None]
    model = load_model(tiny_model_folder, device="cpu", adapter=folder).model
    assert type(model) is LlamaForCausalLM
    assert not model.training
    with torch.no_grad():
        found, expected = model(ids).logits, around(ids).logits
        plain = load_model(tiny_model_folder, device="cpu").model(ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (found - plain).abs().max() > 0.1
    assert_isolated(model)
    names = parameter_names(model, "lora")
    assert len(names) == 2 * 2 * 2  # layers, modules, A and B
    assert {name.split(".")[-3] for name in names} == {"lora_A", "lora_B"}
    half = load_model(tiny_model_folder, device="cpu", dtype="bfloat16", adapter=folder).model
    dtypes = {name: weight.dtype for name, weight in half.named_parameters()}
    assert {dtypes.pop(name) for name in names} == {torch.float32}
    assert set(dtypes.values()) == {torch.bfloat16}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 64}, r"does not fit model .+size mismatch for .+q_proj.lora_A"),
        ({"num_hidden_layers": 3}, r"layers.2.mlp.down_proj.lora_A.weight is in only one of them"),
        ({"num_hidden_layers": 1}, r"layers.1.mlp.down_proj.lora_A.weight is in only one of them"),
    ],
    ids=["wider", "deeper", "flatter"],
)
def test_adapter_of_another_model(
    tiny_model_folder: Path,
    adapter: Callable[..., tuple[Path, Any]],
    change: dict[str, int],
    message: str,
    recwarn: pytest.WarningsRecorder,
) -> None:
    folder, _ = adapter(change)
    recwarn.clear()
    with pytest.raises(InputError, match=message) as caught:
        load_model(tiny_model_folder, device="cpu", adapter=folder)
    assert "\n" not in str(caught.value)
    assert not [warned for warned in recwarn if "adapter keys" in str(warned.message)]


def test_adapter_with_whole_layers_beside_it(
    tiny_model_folder: Path, adapter: Callable[..., tuple[Path, Any]]
) -> None:
    folder, around = adapter(modules_to_save=["lm_head"])
    with torch.no_grad():
        around.base_model.model.lm_head.modules_to_save["default"].weight.mul_(2.0)
    around.save_pretrained(folder)
    ids = torch.arange(3, 20)[None]
    model = load_model(tiny_model_folder, device="cpu", adapter=folder).model
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, around(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "no folder with an adapter_con"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "has no adapter_model"),
        (
            lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"cut"),
            "does not fit model",
        ),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "is no JSON"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "names no peft_type"),
        (
            lambda folder: (folder / "adapter_config.json").write_text('{"peft_type": "SOON"}'),
            "cannot be read",
        ),
    ],
    ids=["no config", "no weights", "broken weights", "broken config", "no kind", "unknown kind"],
)
def test_broken_adapter(
    tiny_model_folder: Path,
    adapter: Callable[..., tuple[Path, Any]],
    break_it: Callable[[Path], object],
    message: str,
) -> None:
    folder, _ = adapter()
    break_it(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_model(tiny_model_folder, device="cpu", adapter=folder)
    assert str(folder) in str(caught.value)


def test_prompt_tuning_is_no_adapter_of_layers(tiny_model_folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = LlamaForCausalLM.from_pretrained(tiny_model_folder)
    config = peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    peft.get_peft_model(base, config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is PROMPT_TUNING, which changes the input and no layer"):
        load_model(tiny_model_folder, device="cpu", adapter=tmp_path)


def test_adapter_without_peft(
    tiny_model_folder: Path,
    adapter: Callable[..., tuple[Path, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, _ = adapter()
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"needs peft: pip install 'codeact\[train\]'"):
        load_model(tiny_model_folder, device="cpu", adapter=folder)


def test_tokenizer_of_another_folder(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    tokenizer = load_model(folder, device="cpu", tokenizer=tiny_model_folder).tokenizer
    assert tokenizer("a b")["input_ids"] == load_tokenizer(tiny_model_folder)("a b")["input_ids"]
