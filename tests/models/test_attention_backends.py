"""Every attention kernel gives what the definition gives, in models of every kind."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch
from attention_fakes import Installer, dense, make_inputs, old_varlen_attn
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from codeact.models import register_attention
from codeact.models.attention import torch_varlen, varlen
from codeact.models.attention.varlen import varlen_attention
from codeact.ops.varlen import pack_sequences

pytestmark = [
    pytest.mark.filterwarnings("ignore:flex_attention called without:UserWarning"),
    pytest.mark.usefixtures("uncompiled"),
]

SHAPE = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama-mha": LlamaConfig(**SHAPE | {"num_key_value_heads": 4}),
    "llama-one-kv-head": LlamaConfig(**SHAPE | {"num_key_value_heads": 1}),
    "qwen2-bias": Qwen2Config(**SHAPE),
    "qwen3-norms": Qwen3Config(**SHAPE, head_dim=16),
    "phi3": Phi3Config(**SHAPE),
    "mistral-window": MistralConfig(**SHAPE, sliding_window=5),
    "gemma2-softcap": Gemma2Config(
        **SHAPE, head_dim=8, sliding_window=6, query_pre_attn_scalar=11, attn_logit_softcapping=2.0
    ),
}
SEQLENS = (9, 1, 17, 140)  # more than one block of FlexAttention


def make_model(name: str, implementation: str, dtype: torch.dtype) -> PreTrainedModel:
    register_attention()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        copy.deepcopy(CONFIGS[name]), attn_implementation=implementation
    )
    return model.eval().to(dtype)


def make_sequences() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(3, 97, size=n) for n in SEQLENS]


@torch.no_grad()
def packed_logits(name: str, implementation: str, dtype: torch.dtype) -> Tensor:
    batch = pack_sequences(make_sequences(), make_sequences())
    logits: Tensor = make_model(name, implementation, dtype)(**batch.model_inputs()).logits[0]
    return logits


@cache
@torch.no_grad()
def eager_logits(name: str, dtype: torch.dtype) -> Tensor:
    """Each sequence alone, which needs no knowledge of packing."""
    model = make_model(name, "eager", dtype)
    rows = [torch.from_numpy(ids)[None] for ids in make_sequences()]
    return torch.cat([model(row, use_cache=False).logits[0] for row in rows])


@pytest.mark.parametrize("backend", ["auto", "per_sequence", "flex"])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_logits_are_those_of_float64(backend: str, name: str, dtype: torch.dtype) -> None:
    implementation = "codeact" if backend == "auto" else f"codeact_{backend}"
    truth = eager_logits(name, torch.float64)
    error = (packed_logits(name, implementation, dtype) - truth).abs().max()
    allowed = (eager_logits(name, dtype) - truth).abs().max()
    # eager's softmax and rotary angles are float32 whatever the weights are
    assert error <= 2 * allowed + 3e-6 * truth.abs().max()


@pytest.mark.parametrize("backend", ["per_sequence", "flex"])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 1, 4, 100])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_definition(
    backend: str, softcap: float | None, window: int | None, num_kv_heads: int
) -> None:
    """With empty sequences, and values of another width than keys."""
    q, k, v, bounds = make_inputs(num_kv_heads, value_head_dim=16)
    output = varlen_attention(q, k, v, bounds, 12, 0.4, window, softcap, backend)
    truth = dense(q, k, v, bounds, 0.4, -1 if window is None else window - 1, softcap or 0.0)
    torch.testing.assert_close(output, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("on_hopper")
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("backend", ["fa2", "fa3", "fa4", "varlen_attn"])
def test_arguments_that_packages_get(install: Installer, backend: str, name: str) -> None:
    install(backend)
    implementation = f"codeact_{backend}"
    if backend == "varlen_attn" and "softcap" in name:
        with pytest.raises(
            ValueError, match=r"no softcap \(here 2\); fa3 or fa4 or fa2 or per_sequence"
        ):
            packed_logits(name, implementation, torch.float32)
        return
    truth = eager_logits(name, torch.float64)
    error = (packed_logits(name, implementation, torch.float32) - truth).abs().max()
    assert error <= 1e-5 * truth.abs().max()


@pytest.mark.usefixtures("on_hopper")
@pytest.mark.parametrize("name", ["qwen2-bias", "llama-one-kv-head"])
def test_arguments_of_the_oldest_varlen_attn(install: Installer, name: str) -> None:
    install("varlen_attn", varlen_attn=old_varlen_attn)
    truth = eager_logits(name, torch.float64)
    error = (packed_logits(name, "codeact", torch.float32) - truth).abs().max()
    assert error <= 1e-5 * truth.abs().max()


def test_oldest_varlen_attn_scales_queries(install: Installer) -> None:
    install("varlen_attn", varlen_attn=old_varlen_attn)
    q, k, v, bounds = make_inputs()
    call = varlen.AttentionCall(q, k, v, bounds, None, 0.3, None, None)
    torch.testing.assert_close(
        torch_varlen.TORCH_VARLEN.attend(call), dense(q, k, v, bounds, 0.3, -1, 0.0)
    )
