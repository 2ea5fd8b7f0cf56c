"""Tiny random models, one for each feature that attention or the output head must know."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from codeact.models import register_attention
from codeact.models.attention import varlen

sys.path.insert(0, str(Path(__file__).parent))  # attention_fakes
from attention_fakes import Installer

_SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama-gqa": LlamaConfig(**_SHAPE),
    "qwen2-bias": Qwen2Config(**_SHAPE),
    "mistral-window": MistralConfig(**_SHAPE, sliding_window=5),
    "gemma2-softcap": Gemma2Config(**_SHAPE, sliding_window=6, query_pre_attn_scalar=8),
    "cohere-logit-scale": CohereConfig(**_SHAPE, logit_scale=0.25),
    "granite-logits-scaling": GraniteConfig(**_SHAPE, logits_scaling=4.0),
}


@pytest.fixture(params=CONFIGS)
def tiny_model(
    request: pytest.FixtureRequest, make_tiny: Callable[..., PreTrainedModel]
) -> PreTrainedModel:
    return make_tiny(request.param)


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., PreTrainedModel]:
    """``make_tiny(name, attn_implementation)``: the same weights for the same name."""
    register_attention()

    def make(name: str, attn_implementation: str = "codeact") -> PreTrainedModel:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            copy.deepcopy(CONFIGS[name]), attn_implementation=attn_implementation
        )
        return model.eval()

    return make


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Installer]:
    """``install("fa2", "varlen_attn", ...)``: these attention packages and no others are there."""
    yield Installer(monkeypatch)
    monkeypatch.undo()
    Installer.forget()


@pytest.fixture
def on_hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice is that of bfloat16 on an H100; the tensors stay on the CPU, in float32."""
    real = varlen.need_of
    monkeypatch.setattr(
        varlen,
        "need_of",
        lambda call, **more: real(call, **more)._replace(
            device="cuda", sm=(9, 0), dtype=torch.bfloat16
        ),
    )


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """FlexAttention without Dynamo, which takes a second for each of its shapes."""
    with torch.compiler.set_stance("force_eager"):
        yield
