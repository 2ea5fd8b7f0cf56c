"""The start-up check fails exactly when packing changes results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from codeact.models import assert_isolated, isolation
from codeact.models.attention.packed import packed_attention


def test_every_kind_of_model_passes(tiny_model: PreTrainedModel) -> None:
    tiny_model.train()
    assert_isolated(tiny_model)
    assert tiny_model.training


@pytest.mark.filterwarnings("ignore:flex_attention called without:UserWarning")
@pytest.mark.parametrize("backend", ["per_sequence", "flex"])
def test_every_backend_that_runs_here_passes(
    make_tiny: Callable[..., PreTrainedModel], backend: str
) -> None:
    with torch.compiler.set_stance("force_eager"):  # FlexAttention, else a second a shape
        assert_isolated(make_tiny("gemma2-softcap", f"codeact_{backend}"))


def test_a_backend_that_cannot_is_no_leak(make_tiny: Callable[..., PreTrainedModel]) -> None:
    with pytest.raises(ValueError, match=r"'fa2' needs a CUDA GPU .+, not cpu; per_sequence or fl"):
        assert_isolated(make_tiny("llama-gqa", "codeact_fa2"))


def leaky(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
    """Causal over the whole pack, as a backend that knows nothing of sequences."""
    kwargs |= {"cu_seq_lens_q": None, "position_ids": None}
    return packed_attention(module, query, key, value, mask, **kwargs)


def bidirectional(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
    """Isolated, but not the model's own attention."""
    output, _ = packed_attention(module, query.flip(2), key.flip(2), value.flip(2), mask, **kwargs)
    return output.flip(1), None


@pytest.mark.parametrize(
    ("attention", "cause"), [(leaky, "another sequence"), (bidirectional, "packing")]
)
def test_wrong_attention_is_found(
    make_tiny: Callable[..., PreTrainedModel], attention: Any, cause: str
) -> None:
    AttentionInterface.register(attention.__name__, attention)
    AttentionMaskInterface.register(attention.__name__, lambda **kwargs: None)
    model = make_tiny("llama-gqa")
    model.set_attn_implementation(attention.__name__)
    with pytest.raises(RuntimeError, match=f"not isolated: {cause}"):
        assert_isolated(model)


def test_unknown_logit_transform_is_found(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model = make_tiny("granite-logits-scaling")
    model.config.logits_scaling = 2.0  # the model divides by its own copy, 4
    model.logits_scaling = 4.0
    model.forward = lambda **kw: scaled(type(model).forward(model, **kw))

    def scaled(output: Any) -> Any:
        output.logits = output.logits * 0.5
        return output

    with pytest.raises(RuntimeError, match="leaving out the logits"):
        assert_isolated(model)


def test_runs_once_per_attention(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model = make_tiny("llama-gqa")
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    assert_isolated(model)
    first = len(calls)
    assert_isolated(model)
    assert first > 0
    assert len(calls) == first


def test_checked_again_on_another_device(
    make_tiny: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another kernel is chosen."""
    probed: list[str] = []
    monkeypatch.setattr(isolation, "_probe", lambda model, _: probed.append(model.device.type))
    model = make_tiny("llama-gqa")
    for device in ("cpu", "cpu", "cuda"):
        monkeypatch.setattr(type(model), "device", torch.device(device))
        assert_isolated(model)
    assert probed == ["cpu", "cuda"]


def test_nan_weights_fail(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model = make_tiny("llama-gqa")
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="not isolated"):
        assert_isolated(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type 'dynamic'"),
        ({"rope_parameters": {"full": {"rope_type": "longrope"}}}, "rope_type 'longrope'"),
        ({"attention_chunk_size": 64}, "attention_chunk_size = 64"),
    ],
)
def test_what_a_short_probe_cannot_show(
    make_tiny: Callable[..., PreTrainedModel], change: dict[str, Any], message: str
) -> None:
    model = make_tiny("llama-gqa")
    for name, value in change.items():
        setattr(model.config, name, value)
    with pytest.raises(RuntimeError, match=message):
        assert_isolated(model)


@pytest.mark.parametrize(
    ("dtype", "spoiled", "passes"),
    [
        (torch.bfloat16, slice(11, 13), True),
        (torch.bfloat16, slice(27, 31), False),  # the shortest sequence but for its first token
        (torch.float32, slice(11, 12), False),
    ],
    ids=["rounding", "a-sequence", "float32"],
)
def test_in_half_precision_rounding_may_move_single_tokens(
    make_tiny: Callable[..., PreTrainedModel],
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    spoiled: slice,
    passes: bool,
) -> None:
    model, eager = make_tiny("llama-gqa").to(dtype), isolation._eager_logits

    def chaotic(*args: Any) -> list[torch.Tensor]:
        logits = torch.cat(eager(*args))
        logits[spoiled] += 2 * logits.abs().max()
        return [logits]

    monkeypatch.setattr(isolation, "_eager_logits", chaotic)
    if passes:
        assert_isolated(model)
    else:
        with pytest.raises(RuntimeError, match="not isolated: packing"):
            assert_isolated(model)


def test_a_fresh_adapter_on_the_projection(make_tiny: Callable[..., PreTrainedModel]) -> None:
    """It changes no logit, so that only its gradient would be wrong: it would be zero."""
    peft = pytest.importorskip("peft")

    def adapted(*layers: str) -> PreTrainedModel:
        config = peft.LoraConfig(r=2, target_modules=list(layers))
        return peft.get_peft_model(make_tiny("llama-gqa"), config).get_base_model()

    assert_isolated(adapted("q_proj"))
    with pytest.raises(RuntimeError, match="leaves out the adapter on the output projection"):
        assert_isolated(adapted("q_proj", "lm_head"))
