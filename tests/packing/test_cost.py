"""The cost model counts what PyTorch counts, and what is published about models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from codeact.errors import InputError
from codeact.packing.cost import AttentionCost, ModelCost

TINY: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
LATENT = {
    "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4,
    "v_head_dim": 10, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2,
    "topk_group": 1, "moe_intermediate_size": 8, "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}  # fmt: skip
MODELS = {
    "llama": ("LlamaConfig", {}),
    "llama-head-dim": ("LlamaConfig", {"head_dim": 6}),
    "qwen2-tied": ("Qwen2Config", {"tie_word_embeddings": True}),
    "mistral": ("MistralConfig", {"head_dim": 4}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3-moe": ("Qwen3MoeConfig", EXPERTS),
    "gemma2": ("Gemma2Config", {"head_dim": 4}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 4}),
    "starcoder2": ("Starcoder2Config", {}),
    "deepseek-v3": ("DeepseekV3Config", LATENT),
    "gpt2": ("GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 4}),
}


def config_of(name: str) -> Any:
    kind, options = MODELS[name]
    return getattr(transformers, kind)(**TINY | options)


def counted_flops(config: Any, num_tokens: int) -> int:
    """FLOPs of one forward pass with all pairs of tokens, as PyTorch counts them."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    if hasattr(config, "_experts_implementation"):
        model.set_experts_implementation("eager")
    ids = torch.randint(1, 40, (1, num_tokens))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.eval()(input_ids=ids, use_cache=False)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", MODELS)
def test_matches_the_flop_counter(name: str) -> None:
    """a L + b L² through two lengths; rotary angles are a product of 2 tokens by head_dim too."""
    config = config_of(name)
    cost = ModelCost.from_config(config)
    short, long = (counted_flops(config, num_tokens) for num_tokens in (16, 48))
    pairs = (long - 3 * short) / (48**2 - 3 * 16**2)
    linear = (short - pairs * 16**2) / 16
    assert sum(kind.num_layers * kind.flops_per_pair for kind in cost.attention) == pairs
    rotary = linear - cost.flops_per_token
    assert 0 <= rotary <= 24, "angles are at most 2 * head_dim / 2 FLOPs a token and kind"


QWEN = {"vocab_size": 151936, "num_key_value_heads": 2, "tie_word_embeddings": True}
PUBLISHED = {
    # (config, options, weights a token meets in billions, of which embeddings are not)
    "Qwen2.5-0.5B": (
        "Qwen2Config",
        QWEN | {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
                "num_attention_heads": 14},
        0.494,
    ),
    "Mixtral-8x7B": (
        "MixtralConfig",
        {"sliding_window": None},  # the class's own defaults are the model's
        12.88 - 0.131,
    ),
    "DeepSeek-V3": ("DeepseekV3Config", {}, 37.55 - 0.927),
    "Mistral-7B": ("MistralConfig", {}, 7.24 - 0.131),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_matches_published_sizes(name: str) -> None:
    kind, options, billions = PUBLISHED[name]
    cost = ModelCost.from_config(getattr(transformers, kind)(**options))
    assert cost.flops_per_token / 2e9 == pytest.approx(billions, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "options", "windows"),
    [
        ("llama", {}, {None: 2}),
        ("mistral", {"sliding_window": 8}, {8: 2}),
        ("mistral", {"sliding_window": None}, {None: 2}),
        ("qwen2-tied", {"sliding_window": 8, "use_sliding_window": False}, {None: 2}),
        ("gemma2", {"sliding_window": 8}, {8: 1, None: 1}),
        (
            "gemma3",
            {"sliding_window": 8, "layer_types": ["sliding_attention"] * 2},
            {8: 2},
        ),
    ],
)
def test_windows(name: str, options: dict[str, Any], windows: dict[int | None, int]) -> None:
    kind, base = MODELS[name]
    cost = ModelCost.from_config(getattr(transformers, kind)(**TINY | base | options))
    assert {kind.window: kind.num_layers for kind in cost.attention} == windows


def test_linear_attention_costs_no_pairs() -> None:
    config = transformers.Qwen3NextConfig(
        **TINY | EXPERTS | {"num_hidden_layers": 4, "head_dim": 4}
    )
    cost = ModelCost.from_config(config)
    assert [kind.num_layers for kind in cost.attention] == [1]


@pytest.mark.parametrize("window", [None, 1, 3, 100])
def test_pairs_are_those_of_the_mask(window: int | None) -> None:
    cost = ModelCost(0.0, (AttentionCost(1, 1.0, window),))
    for num_tokens in (0, 1, 2, 5, 40):
        query, key = np.ogrid[:num_tokens, :num_tokens]
        seen = (key <= query) & (query - key < (window or num_tokens + 1))
        assert cost([num_tokens])[0] == seen.sum()


def test_costs_add_up() -> None:
    cost = ModelCost(10.0, (AttentionCost(2, 3.0), AttentionCost(1, 1.0, 2)), per_step=7.0)
    # 3 tokens: 30 linear, 6 pairs in two layers, 1 + 2 + 2 pairs in one.
    assert cost(np.array([[3], [0]])).tolist() == [[30 + 36 + 5], [0]]
    assert cost.of_step([3, 3]) == 2 * 71 + 7


def test_models_without_a_cost() -> None:
    with pytest.raises(InputError, match=r"no cost for this model: .*ViTConfig"):
        ModelCost.from_config(transformers.ViTConfig())


def timed_steps(truth: ModelCost, noise: float = 0.0) -> tuple[list[np.ndarray], list[float]]:
    rng = np.random.default_rng(0)
    steps = [rng.integers(10, 600, size) for size in (2, 5, 9, 14, 20, 3, 8, 11)]
    steps += [np.array([4000]), np.array([2000, 1500]), np.array([3000, 10])]
    return steps, [truth.of_step(step) * (1 + noise * rng.standard_normal()) for step in steps]


def test_calibration_finds_the_rates() -> None:
    flops = ModelCost(100.0, (AttentionCost(2, 3.0, 500), AttentionCost(4, 3.0)))
    truth = ModelCost(
        2e-4, (AttentionCost(2, 6e-7, 500), AttentionCost(4, 6e-7)), per_step=0.05, unit="seconds"
    )
    found = flops.calibrated(*timed_steps(truth))
    assert found.unit == "seconds"
    assert found.per_step == pytest.approx(0.05)
    assert found.flops_per_token == pytest.approx(2e-4)
    for kind, expected in zip(found.attention, truth.attention, strict=True):
        assert kind == pytest.approx(expected)
    noisy = flops.calibrated(*timed_steps(truth, noise=0.01))
    assert noisy.of_step([1000, 3000]) == pytest.approx(truth.of_step([1000, 3000]), rel=0.03)


def test_calibration_is_never_negative() -> None:
    """Times that fall with attention give a cost of tokens alone, as well as those explain them."""
    flops = ModelCost(100.0, (AttentionCost(1, 1.0),))
    steps, _ = timed_steps(flops)
    features = np.array(
        [[1.0, step.sum(), flops.of_step(step) - 100 * step.sum()] for step in steps]
    )
    times = features @ [0.1, 1e-3, -1e-8]
    found = flops.calibrated(steps, times.tolist())
    assert found.attention[0].flops_per_pair == 0
    expected = np.linalg.lstsq(features[:, :2], times, rcond=None)[0]
    assert [found.per_step, found.flops_per_token] == pytest.approx(expected.tolist())


@pytest.mark.parametrize(
    ("steps", "seconds", "message"),
    [
        ([[5], [9]], [1.0, 2.0], "needs 3 different steps, got 2"),
        ([[5], [9], [5]], [1.0, 2.0, 1.0], "needs 3 different steps, got 2"),
        ([[8], [4, 4], [2, 6], [1, 7]], [1.0, 2.0, 3.0, 4.0], "too alike"),
        ([[5], [9], [30]], [1.0, 2.0], "one positive number for each of 3 steps"),
        ([[5], [9], [30]], [1.0, 2.0, np.nan], "one positive number for each of 3 steps"),
        ([[5], [9], [30, 2], [4, 50]], [5.0, 3.0, 2.0, 1.0], "do not grow"),
    ],
)
def test_calibration_refused(steps: Any, seconds: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelCost(1.0, (AttentionCost(1, 1.0),)).calibrated(steps, seconds)
