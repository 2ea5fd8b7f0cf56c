"""A fused loss under what wraps a model or derives it, and the models that have none."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fused_batch import batch, loss_and_gradients
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel, T5Config, T5ForConditionalGeneration

from codeact.models import NotFusableError, fuse_loss, fused_loss, unfuse_loss


def test_autocast_that_a_library_put_inside(make_tiny: Callable[..., PreTrainedModel]) -> None:
    """As accelerate does for mixed precision; its wrapper runs below a forward fused afterwards."""
    model = make_tiny("llama-gqa")
    model.forward = torch.autocast("cpu", dtype=torch.bfloat16)(model.forward)  # type: ignore[method-assign]
    seen: list[torch.dtype] = []
    plain = model(**batch()).loss.item()
    model.lm_head.register_forward_hook(lambda _, args, loss: seen.append(loss.dtype))
    with fused_loss(model):
        loss = model(**batch()).loss
    assert seen == [torch.float32]
    assert loss.item() == pytest.approx(plain, rel=2e-3)
    exact = make_tiny("llama-gqa")(**batch()).loss.item()
    assert loss.item() != pytest.approx(exact, rel=1e-6)  # it was computed from bfloat16
    assert unfuse_loss(model)(**batch()).loss.item() == plain


@pytest.mark.parametrize("when", ["for good", "for a call"])
def test_compiled(make_tiny: Callable[..., PreTrainedModel], when: str) -> None:
    """The values hold, and nothing is compiled again for the second step."""
    torch._dynamo.reset()
    model, inputs = make_tiny("gemma2-softcap", "eager"), batch()
    model.model.layers = model.model.layers[:1]  # Dynamo takes seconds for each
    plain, plain_gradients = loss_and_gradients(model, **inputs)
    compiled: Any = torch.compile(model, backend="eager")
    assert compiled(input_ids=inputs["input_ids"]).logits.shape == (3, 20, 97)
    if when == "for good":
        fuse_loss(compiled)
    torch._dynamo.utils.counters.clear()
    for recompiling_is_an_error in (False, True):
        patch = torch._dynamo.config.patch(error_on_recompile=recompiling_is_an_error)
        with patch, fused_loss(compiled):
            loss, gradients = loss_and_gradients(compiled, **inputs)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # the decoder is compiled
        assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
        for ours, theirs in zip(gradients, plain_gradients, strict=True):
            assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_forward_mode(make_tiny: Callable[..., PreTrainedModel]) -> None:
    """The tangent of the loss is the dot product of its gradient with the direction."""
    model = fuse_loss(make_tiny("gemma2-softcap", "eager").double())
    inputs = batch()
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    generator = torch.Generator().manual_seed(3)
    along = {
        name: torch.randn(value.shape, dtype=value.dtype, generator=generator)
        for name, value in parameters.items()
    }

    def loss_of(values: dict[str, Tensor]) -> Tensor:
        output: Tensor = torch.func.functional_call(model, values, (), inputs).loss
        return output

    loss, tangent = torch.func.jvp(loss_of, (parameters,), (along,))
    model(**inputs).loss.backward()
    dot = sum((p.grad * along[name]).sum() for name, p in model.named_parameters())
    # transformers computes norms and softmax in float32 whatever the model is.
    assert tangent.item() == pytest.approx(dot.item(), rel=1e-6)
    assert loss.item() == pytest.approx(model(**inputs).loss.item(), rel=1e-6)


class Adapted(nn.Linear):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return super().forward(hidden_states) * 2


class HalvesItsLogits(LlamaForCausalLM):
    def forward(self, *args: Any, labels: Any = None, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits / 2
        if labels is not None:
            output.loss = self.loss_function(output.logits, labels, self.vocab_size)
        return output


class BreaksAfterItsLogits(LlamaForCausalLM):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        super().forward(*args, **kwargs)
        raise KeyError(self.loss_function)


@pytest.mark.parametrize("model_class", [HalvesItsLogits, BreaksAfterItsLogits])
def test_nothing_is_kept_of_a_pass_that_failed(
    make_tiny: Callable[..., PreTrainedModel], model_class: type[LlamaForCausalLM]
) -> None:
    """Else the activations of all layers live as long as the model, which goes on with logits."""
    model = fuse_loss(model_class(make_tiny("llama-gqa").config))
    states: list[weakref.ref[Tensor]] = []
    model.model.norm.register_forward_hook(lambda *args: states.append(weakref.ref(args[-1])))
    with contextlib.suppress(NotFusableError, KeyError):
        model(**batch())
    gc.collect()
    assert len(states) == 1
    assert states[0]() is None
    assert model.lm_head.in_features == 32  # what stood in for it is gone


def test_adapters_below_the_projection(make_tiny: Callable[..., PreTrainedModel]) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    model = peft.get_peft_model(make_tiny("llama-gqa"), config)
    plain, plain_gradients = loss_and_gradients(model, **batch())
    loss, gradients = loss_and_gradients(fuse_loss(model), **batch())
    assert model(**batch()).logits is None
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
    for ours, theirs in zip(gradients, plain_gradients, strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
    ids=["lora", "saved"],
)
def test_adapted_projection_is_refused(
    make_tiny: Callable[..., PreTrainedModel], options: dict[str, Any]
) -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(make_tiny("llama-gqa"), peft.LoraConfig(r=2, **options))
    with pytest.raises(NotFusableError, match=r"not a plain nn\.Linear: merge its adapter"):
        fuse_loss(model)
    assert model(**batch()).logits is not None


def test_what_cannot_be_fused_is_named(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model, inputs = make_tiny("llama-gqa"), batch()
    with pytest.raises(NotFusableError, match=r"nn\.DataParallel: use torchrun"):
        fuse_loss(nn.DataParallel(model))
    with pytest.raises(NotFusableError, match="Linear holds no transformers model"):
        fuse_loss(nn.Linear(2, 2))
    small = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    with pytest.raises(NotFusableError, match="has an encoder or takes more than text"):
        fuse_loss(T5ForConditionalGeneration(T5Config(vocab_size=16, **small)))
    model.loss_function = lambda logits, labels, **_: logits.sum()
    with pytest.raises(NotFusableError, match="computes its own loss"):
        fuse_loss(model)

    model = make_tiny("llama-gqa")
    with pytest.raises(ValueError, match="leave out logits_to_keep or the labels"):
        fuse_loss(model)(**inputs, logits_to_keep=3)
    unfuse_loss(model).lm_head = Adapted(32, 97)
    with pytest.raises(NotFusableError, match="is a Adapted, not a plain"):
        fuse_loss(model)

    halving = HalvesItsLogits(make_tiny("llama-gqa").config)
    with pytest.raises(NotFusableError, match="something else than a scale and a softcap"):
        fuse_loss(halving)(**inputs)
