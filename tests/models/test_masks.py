"""One batch, every attention: the same logits, and no sequence sees another, or an exception."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from codeact.errors import InputError
from codeact.models import assert_isolated, register_attention
from codeact.ops.varlen import PackedBatch, pack_sequences
from codeact.packing import Mask, PackedCollator, layer_windows
from codeact.packing.layer_masks import attention_masks

SHAPE = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3,
}  # fmt: skip
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SHAPE),
    "mistral-window": MistralConfig(**SHAPE, sliding_window=5),
    "qwen2-mixed": Qwen2Config(
        **SHAPE, use_sliding_window=True, sliding_window=5, max_window_layers=1
    ),
}
WINDOWS: dict[str, Any] = {
    "llama": None,
    "mistral-window": 5,
    "qwen2-mixed": {"full_attention": None, "sliding_attention": 5},
}
ATTENTIONS: dict[str, tuple[str, Mask | None]] = {
    "eager": ("eager", None),
    "eager-mask": ("eager", "additive"),
    "sdpa": ("sdpa", None),
    "sdpa-mask": ("sdpa", "dense"),
    "flex": ("flex_attention", None),
    "flex-mask": ("flex_attention", "flex"),
    "codeact": ("codeact", None),
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:_compile flag:DeprecationWarning"),  # transformers' own
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning"),
]
SEQLENS = (9, 1, 17, 4, 140)  # 171 tokens are two blocks of FlexAttention
NUM_TOKENS = sum(SEQLENS)


@pytest.fixture(autouse=True)
def uncompiled(request: pytest.FixtureRequest) -> Iterator[None]:
    """FlexAttention in plain PyTorch: to compile it takes half a minute on a CPU."""
    is_slow = request.node.get_closest_marker("slow") is not None
    with torch.compiler.set_stance("default" if is_slow else "force_eager"):
        yield


def make_model(name: str, implementation: str) -> PreTrainedModel:
    register_attention()
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIGS[name])
    return AutoModelForCausalLM.from_config(config, attn_implementation=implementation).eval()


def make_sequences() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(3, 97, size=n) for n in SEQLENS]


def make_features() -> list[dict[str, Any]]:
    return [{"input_ids": row, "labels": row} for row in make_sequences()]


def difference(logits: torch.Tensor, expected: torch.Tensor) -> float:
    return float((logits - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def unpacked_logits(name: str) -> torch.Tensor:
    model = make_model(name, "eager")
    rows = [torch.from_numpy(row)[None] for row in make_sequences()]
    return torch.cat([model(row, use_cache=False).logits[0] for row in rows])


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("fixed_shape", [None, (200, 8)], ids=str)
def test_logits_are_those_of_each_sequence_alone(
    name: str, attention: str, fixed_shape: tuple[int, int] | None
) -> None:
    implementation, mask = ATTENTIONS[attention]
    model = make_model(name, implementation)
    collate = PackedCollator(
        mask=mask, sliding_window=layer_windows(model.config), fixed_shape=fixed_shape
    )
    batch = collate(make_features())
    del batch["labels"]
    logits = model(**batch).logits[0]
    assert len(logits) == (fixed_shape or (NUM_TOKENS,))[0]
    assert difference(logits[:NUM_TOKENS], unpacked_logits(name)) <= 2e-6


@pytest.mark.slow
@torch.no_grad()
def test_compiled_flex_attention() -> None:
    model = make_model("mistral-window", "flex_attention")
    collate = PackedCollator(mask="flex", sliding_window=5)
    batch = collate(make_features())
    del batch["labels"]
    assert difference(model(**batch).logits[0], unpacked_logits("mistral-window")) <= 2e-6


def with_mask(mask: Mask | None, windows: Any) -> Callable[[PackedBatch], dict[str, Any]]:
    def model_inputs(batch: PackedBatch) -> dict[str, Any]:
        inputs = batch.model_inputs()
        if mask is not None:
            inputs["attention_mask"] = attention_masks(batch.cu_seqlens, mask, windows)
        return inputs

    return model_inputs


CALLS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "as given": lambda inputs: inputs,
    "default use_cache": lambda inputs: {k: v for k, v in inputs.items() if k != "use_cache"},
    "position_ids only": lambda inputs: {
        k: v for k, v in inputs.items() if k in ("input_ids", "position_ids", "attention_mask")
    },
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("call", CALLS)
def test_no_leak_or_an_exception(name: str, attention: str, call: str) -> None:
    """With a cache transformers' own masks mix the sequences; that is found, nothing else is."""
    implementation, mask = ATTENTIONS[attention]
    model = make_model(name, implementation)
    assert model.config.use_cache  # the default, which leaks
    inputs = with_mask(mask, WINDOWS[name])

    def model_inputs(batch: PackedBatch) -> dict[str, Any]:
        return CALLS[call](inputs(batch))

    leaks = mask is None and implementation != "codeact" and call != "as given"
    assert leaked(model, model_inputs) is leaks
    if leaks:
        with pytest.raises(RuntimeError, match="not isolated: another sequence in the pack"):
            assert_isolated(model, model_inputs=model_inputs)
    else:
        assert_isolated(model, model_inputs=model_inputs)
    assert_isolated(model)


@torch.no_grad()
def leaked(model: PreTrainedModel, model_inputs: Callable[[PackedBatch], Any]) -> bool:
    """Whether another first sequence moves any logit of the others at all."""
    sequences = make_sequences()
    changed = [(sequences[0] + 7) % 90 + 3, *sequences[1:]]
    logits = [
        model(**model_inputs(pack_sequences(rows, rows))).logits[0, SEQLENS[0] :]
        for rows in (sequences, changed)
    ]
    return difference(*logits) > 1e-6


@pytest.mark.parametrize("kind", ["boolean", "all-ones"])
def test_masks_that_hide_nothing_are_found_out(kind: str) -> None:
    """Eager adds its mask to the scores: True hides nothing, and neither does a mask of ones."""
    model = make_model("llama", "eager")

    def model_inputs(batch: PackedBatch) -> dict[str, Any]:
        ones = torch.ones_like(batch.input_ids)[None]
        dense = attention_masks(batch.cu_seqlens, "dense", None)
        return batch.model_inputs() | {"attention_mask": dense if kind == "boolean" else ones}

    with pytest.raises(RuntimeError, match="not isolated: another sequence in the pack"):
        assert_isolated(model, model_inputs=model_inputs)


def test_a_forgotten_window_is_found_out() -> None:
    model = make_model("mistral-window", "sdpa")
    with pytest.raises(RuntimeError, match="not isolated: packing changes the result"):
        assert_isolated(model, model_inputs=with_mask("dense", None))


@pytest.mark.parametrize("name", CONFIGS)
def test_layer_windows(name: str) -> None:
    assert layer_windows(CONFIGS[name]) == WINDOWS[name]


def test_layer_windows_refuses_what_has_no_mask() -> None:
    config = copy.deepcopy(CONFIGS["llama"])
    config.layer_types = ["full_attention", "chunked_attention"]
    with pytest.raises(InputError, match="layers of chunked_attention"):
        layer_windows(config)
