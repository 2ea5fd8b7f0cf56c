"""LoRA and QLoRA: gradients of the adapters against unpacked passes, and what is saved."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import make_examples, make_plan, tiny, unpacked_loss, weights_of

from codeact.errors import InputError
from codeact.models import load_model
from codeact.models import loading as loading_module
from codeact.training import TrainConfig, fine_tune
from codeact.training.adapters import with_adapter

pytest.importorskip("peft")

STEP: dict[str, Any] = {
    "epochs": 1, "learning_rate": 1.0, "lr_scheduler": "constant", "warmup_ratio": 0.0,
    "max_grad_norm": 0.0, "accumulation": 1000, "optimizer": "sgd",
}  # fmt: skip
LORA = TrainConfig(method="lora", lora_rank=4, **STEP)


def adapter_weights(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """By the names inside the transformers model, whatever is around it."""
    found = {}
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            found[name.removeprefix("base_model.model.")] = parameter
    return found


@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_step_equals_unpacked(
    tiny_model_folder: Path, tmp_path: Path, checkpointing: bool
) -> None:
    """A step of SGD at rate 1 moves each weight by its gradient; nothing else moves."""
    examples, plan = make_examples(tiny_model_folder), make_plan(tiny_model_folder)
    reference = with_adapter(tiny(tiny_model_folder, "sdpa"), LORA)
    loss = unpacked_loss(reference, examples)
    loss.backward()
    expected = {name: p.grad for name, p in adapter_weights(reference).items()}
    start = {name: p.detach().clone() for name, p in adapter_weights(reference).items()}
    model = tiny(tiny_model_folder)
    before = weights_of(model)
    config = TrainConfig(method="lora", lora_rank=4, gradient_checkpointing=checkpointing, **STEP)
    result = fine_tune(model, examples, plan, config, folder=tmp_path / "work")
    assert result.steps[0].loss == pytest.approx(loss.item(), rel=1e-6)
    after = adapter_weights(model)
    assert after.keys() == start.keys()
    assert len(after) == 2 * 2 * 7  # A and B of seven linear layers, in each of two
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, weight in after.items():
        moved = start[name] - weight.detach()
        assert (moved - expected[name]).abs().max() <= 1e-5 * largest, name
    assert largest > 1e-2
    for name, value in before.items():
        plain = name.replace(".weight", ".base_layer.weight")
        now = model.state_dict()
        assert torch.equal(now[plain if plain in now else name], value)
    assert not list((tmp_path / "work").glob("*"))  # no checkpoint was asked for


def test_saved_adapter_is_read_back(tiny_model_folder: Path, tmp_path: Path) -> None:
    examples, plan = make_examples(tiny_model_folder), make_plan(tiny_model_folder)
    model = tiny(tiny_model_folder)
    ids = torch.arange(3, 40)[None]
    untrained = model(input_ids=ids).logits
    config = TrainConfig(
        method="lora", epochs=1, learning_rate=0.05, lora_targets="q_proj, up_proj"
    )
    tokenizer = load_model(tiny_model_folder, device="cpu").tokenizer
    fine_tune(
        model, examples, plan, config, folder=tmp_path, save_to=tmp_path / "out",
        tokenizer=tokenizer,
    )  # fmt: skip
    trained = model(input_ids=ids).logits
    loaded = load_model(
        tiny_model_folder, device="cpu", adapter=tmp_path / "out", tokenizer=tmp_path / "out"
    )
    assert torch.equal(loaded.model(input_ids=ids).logits, trained)
    assert (trained - untrained).abs().max() > 1e-2 * untrained.abs().max()
    assert {name.split(".")[-4] for name in adapter_weights(model)} == {"q_proj", "up_proj"}


def test_same_seed_same_adapter_and_nothing_drawn(tiny_model_folder: Path) -> None:
    state = torch.get_rng_state()
    models = [with_adapter(tiny(tiny_model_folder), LORA) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    other = with_adapter(tiny(tiny_model_folder), TrainConfig(method="lora", lora_rank=4, seed=1))
    first, second, third = (adapter_weights(model) for model in (*models, other))
    name = next(name for name in first if "lora_A" in name)
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], third[name])


def test_what_cannot_be_adapted_is_named(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(tiny_model_folder)

    def refused(words: str, **options: Any) -> None:
        with pytest.raises(InputError, match=words):
            with_adapter(model, TrainConfig(**{"method": "lora", **options}))

    refused("lora_targets names nothing, which is no layer", lora_targets="nothing")
    refused("lora_targets names qproj, which is no layer", lora_targets="v_proj, qproj")
    refused("lora_targets names all-linear, which", lora_targets=("q_proj", "all-linear"))
    refused("lora_targets = input_layernorm: .*not supported", lora_targets="input_layernorm")
    refused("must leave out lm_head: the loss is", lora_targets="q_proj,lm_head")
    refused("must leave out lm_head", lora_targets=("q_proj", "lm_head"))
    refused('load the model with quantization="nf4"', method="qlora")
    inside = with_adapter(model, LORA)
    assert inside is not model
    refused("holds an adapter already")
    with pytest.raises(InputError, match=r"^quantization must be nf4 or None, got 'int8'"):
        tiny(tiny_model_folder, quantization="int8")
    monkeypatch.setattr(loading_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^quantization = nf4 needs bitsandbytes: pip install"):
        tiny(tiny_model_folder, quantization="nf4")


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
def test_qlora_trains_over_4_bit_weights(tiny_model_folder: Path, tmp_path: Path) -> None:
    """Against LoRA over the same weights, rounded to the 16 levels of NF4 and written out."""
    from bitsandbytes.functional import dequantize_4bit

    examples, plan = make_examples(tiny_model_folder), make_plan(tiny_model_folder)
    config = TrainConfig(method="qlora", **STEP)
    model = tiny(tiny_model_folder, quantization="nf4")
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
    with pytest.raises(InputError, match="weights as they are, got 4-bit ones"):
        with_adapter(model, LORA)
    rounded = tiny(tiny_model_folder, "eager")
    for (name, ours), (_, theirs) in zip(
        model.named_modules(), rounded.named_modules(), strict=True
    ):
        if hasattr(getattr(ours, "weight", None), "quant_state"):
            weight = dequantize_4bit(ours.weight.data, ours.weight.quant_state)
            assert not torch.equal(weight, theirs.weight), name
            theirs.weight.data = weight.to(torch.float32)
    expected = with_adapter(rounded, TrainConfig(method="lora", **STEP))
    loss = unpacked_loss(expected, examples)
    loss.backward()
    result = fine_tune(model, examples, plan, config, folder=tmp_path, save_to=tmp_path / "out")
    assert result.steps[0].loss == pytest.approx(loss.item(), rel=1e-4)
    moved = adapter_weights(model)
    for name, weight in adapter_weights(expected).items():
        scale = weight.grad.abs().max()
        change = weight.detach() - moved[name].detach()
        assert (change - weight.grad).abs().max() <= 1e-3 * scale + 1e-6, name
    again = load_model(
        tiny_model_folder, device="cpu", quantization="nf4", adapter=tmp_path / "out"
    ).model
    ids = torch.arange(3, 40)[None]
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)
