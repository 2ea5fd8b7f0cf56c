"""A model with a fused loss has the loss and the gradients of the same model without."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fused_batch import batch, loss_and_gradients
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    MixtralConfig,
    PhiConfig,
    PreTrainedModel,
)

from codeact.models import fuse_loss, fused_loss, unfuse_loss

_SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3,
}  # fmt: skip
MORE = {
    "phi-head-bias": PhiConfig(**_SMALL),
    "gpt2-tied": GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "mixtral-auxiliary-loss": MixtralConfig(
        **_SMALL, num_local_experts=4, output_router_logits=True, router_aux_loss_coef=0.5
    ),
}


def make(config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        copy.deepcopy(config), experts_implementation="eager"
    ).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("lm_head.bias"):
            nn.init.normal_(parameter)
    return model


def assert_as_close(model: PreTrainedModel, slack: float = 5e-6, **inputs: Any) -> None:
    """Fused is no further from float64 than unfused, plus ``slack`` of the largest."""
    plain, plain_gradients = loss_and_gradients(model, **inputs)
    true, truth = loss_and_gradients(copy.deepcopy(model).double(), **inputs)
    with fused_loss(model):
        loss, gradients = loss_and_gradients(model, **inputs)
    assert (loss - true).abs() <= (plain - true).abs() + slack * true.abs()
    assert len(gradients) == len(truth) > 0
    for ours, theirs, exact in zip(gradients, plain_gradients, truth, strict=True):
        allowed = (theirs - exact).abs().max() + slack * exact.abs().max()
        assert (ours - exact).abs().max() <= allowed


@pytest.mark.parametrize("num_items", [None, 57, torch.tensor(57)], ids=str)
@pytest.mark.parametrize(
    "name", ["qwen2-bias", "gemma2-softcap", "cohere-logit-scale", "granite-logits-scaling"]
)
def test_equals_unfused(
    make_tiny: Callable[..., PreTrainedModel], name: str, num_items: Any
) -> None:
    inputs = batch() if num_items is None else batch() | {"num_items_in_batch": num_items}
    assert_as_close(make_tiny(name, "eager"), **inputs)


@pytest.mark.parametrize("name", MORE)
def test_other_heads(name: str) -> None:
    assert_as_close(make(MORE[name]), **batch())


def test_float64(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model = make_tiny("gemma2-softcap", "eager").double()
    plain, plain_gradients = loss_and_gradients(model, **batch())
    loss, gradients = loss_and_gradients(fuse_loss(model), **batch())
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)  # transformers' loss is float32
    for ours, theirs in zip(gradients, plain_gradients, strict=True):
        assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()


def test_weights_are_those_of_the_predicted_tokens(
    make_tiny: Callable[..., PreTrainedModel],
) -> None:
    model, inputs = make_tiny("cohere-logit-scale"), batch()
    weights = torch.rand(inputs["labels"].shape, generator=torch.Generator().manual_seed(1))
    logits = model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
    targets = inputs["labels"][:, 1:]
    nll = F.cross_entropy(logits.transpose(1, 2).double(), targets, reduction="none")
    total = (nll * weights[:, 1:]).sum()
    fuse_loss(model)
    mean = model(**inputs, loss_weights=weights).loss
    scored_weight = weights[:, 1:][targets != -100].sum()
    assert mean.item() == pytest.approx((total / scored_weight).item(), rel=1e-5)
    share = model(**inputs, loss_weights=weights, num_items_in_batch=7).loss
    assert share.item() == pytest.approx(total.item() / 7, rel=1e-5)
    with pytest.raises(ValueError, match=r"aligned with labels \(3, 20\).*got \(3, 19\)"):
        model(**inputs, loss_weights=weights[:, 1:])


def test_shift_labels_are_taken_as_they_are(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model, inputs = make_tiny("llama-gqa"), batch()
    shifted = inputs | {"shift_labels": inputs["labels"].roll(3, dims=1)}
    expected = model(**shifted).loss.item()
    assert fuse_loss(model)(**shifted).loss.item() == pytest.approx(expected, rel=1e-6)


def test_change_of_the_softcap_is_seen(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model, inputs = fuse_loss(make_tiny("gemma2-softcap", "eager")), batch()
    for softcap in (30.0, 0.5, None):
        model.config.final_logit_softcapping = softcap
        fused = model(**inputs).loss.item()
        plain = unfuse_loss(model)(**inputs).loss.item()
        assert fused == pytest.approx(plain, rel=1e-5)
        fuse_loss(model)


def test_output_is_the_models_own(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model, inputs = make_tiny("qwen2-bias"), batch()
    options: dict[str, Any] = {"output_hidden_states": True, "use_cache": True}
    plain = model(**inputs, **options)
    unlabelled = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    logits, signature = model(**unlabelled).logits, inspect.signature(model.forward)
    generated = model.generate(**unlabelled, max_new_tokens=4, do_sample=False)

    fuse_loss(model)
    output = model(**inputs, **options)
    assert type(output) is type(plain)
    assert output.logits is None
    assert set(output) == set(plain) - {"logits"}
    assert torch.equal(output.hidden_states[-1], plain.hidden_states[-1])
    as_tuple = model(**inputs, return_dict=False)
    assert as_tuple[0].item() == output.loss.item()
    positional = model(inputs["input_ids"], inputs["attention_mask"], labels=inputs["labels"])
    assert positional.loss.item() == output.loss.item()

    assert torch.equal(model(**unlabelled).logits, logits)
    assert torch.equal(model.generate(**unlabelled, max_new_tokens=4, do_sample=False), generated)
    ours = inspect.signature(model.forward)
    assert "loss_weights" in ours.parameters
    assert [n for n in ours.parameters if n != "loss_weights"] == list(signature.parameters)


def test_can_be_undone(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model, inputs = make_tiny("llama-gqa"), batch()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert fuse_loss(fuse_loss(model)) is model
    assert model.state_dict().keys() == state.keys()
    with fused_loss(model):
        assert model(**inputs).logits is None
    assert model(**inputs).logits is None  # it was fused before
    assert unfuse_loss(model) is model
    assert model(**inputs).logits.shape == (3, 20, 97)
    assert "forward" not in model.__dict__
    with pytest.raises(KeyError), fused_loss(model):
        raise KeyError
    assert unfuse_loss(model)(**inputs).logits is not None


def test_copy_is_fused_on_its_own(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model, inputs = fuse_loss(make_tiny("llama-gqa")), batch()
    before = model(**inputs).loss.item()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert twin(**inputs).loss.item() == before
    assert twin(**inputs).logits is None
    assert unfuse_loss(twin)(**inputs).logits is not None
    assert model(**inputs).logits is None


class LargestTensor(TorchDispatchMode):
    """Elements of the largest result of an operation."""

    num_elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor):
            self.num_elements = max(self.num_elements, output.numel())
        return output


def test_projection_meets_scored_rows_only(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model, inputs = fuse_loss(make_tiny("llama-gqa")), batch()
    rows: list[Tensor] = []
    model.lm_head.register_forward_pre_hook(lambda _, args: rows.append(args[0]))
    with LargestTensor() as largest:
        model(**inputs).loss.backward()
    num_scored = int((inputs["labels"][:, 1:] != -100).sum())
    assert [tuple(states.shape) for states in rows] == [(num_scored, 32)]
    assert largest.num_elements < 3 * 20 * 97


def test_nothing_scored_is_zero(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model, inputs = fuse_loss(make_tiny("llama-gqa")), batch()
    inputs["labels"] = torch.full_like(inputs["labels"], -100)
    for num_items in ({}, {"num_items_in_batch": 0}, {"num_items_in_batch": torch.tensor(0)}):
        loss, gradients = loss_and_gradients(model, **inputs, **num_items)
        assert loss.item() == 0.0
        assert gradients
        assert all((gradient == 0).all() for gradient in gradients)


def test_autocast(make_tiny: Callable[..., PreTrainedModel]) -> None:
    """bfloat16 products, float32 parameters and gradients; no further from float64 than plain."""
    model = make_tiny("llama-gqa")
    true, truth = loss_and_gradients(copy.deepcopy(model).double(), **batch())
    found = []
    for switch in (unfuse_loss, fuse_loss):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found.append(loss_and_gradients(switch(model), **batch()))
    (plain, plain_gradients), (loss, gradients) = found
    assert (loss - true).abs() <= (plain - true).abs() + 1e-3 * true.abs()
    for ours, theirs, exact in zip(gradients, plain_gradients, truth, strict=True):
        allowed = 1.1 * (theirs - exact).abs().max() + 1e-3 * exact.abs().max()
        assert (ours - exact).abs().max() <= allowed
