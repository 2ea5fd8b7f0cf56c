"""The output projection of a causal language model, called for something else than logits.

A forward pass of the model runs with a stand-in for the projection, which keeps the hidden states
that come to it. The projection itself is called afterwards, as the module that it is, so that the
hooks of FSDP and DeepSpeed gather its weight; only what it computes is replaced for that call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from codeact.models.hidden_states import output_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NotFusableError(ValueError):
    """The loss of this model does not come from a plain linear layer in a way known here."""


class LogitForm(NamedTuple):
    """``logits = cap(scale * head(hidden_states))``, ``cap`` as in :func:`linear_nll`."""

    scale: float
    softcap: float | None


class HeadCall(NamedTuple):
    """What comes to the output projection in one forward pass, and what went out instead."""

    hidden_states: Tensor  # (batch_size, seqlen, hidden_size)
    autocast_dtype: torch.dtype | None  # in which autocast would compute the projection
    probe: Tensor  # (vocab_size,) in place of a row of logits


class StandIn(nn.Module):
    """Takes the place of the projection; what the model makes of its output tells the form.

    One for a model's life, since torch.compile compiles again for every other module in its place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.call: HeadCall | None = None

    @property
    def weight(self) -> Any:
        return self.__dict__["head"].weight  # some models read its dtype

    def forward(self, hidden_states: Tensor) -> Tensor:
        if torch.compiler.is_dynamo_compiling():
            outside: Callable[[Tensor], Tensor] = torch.compiler.disable(self.note)
            return outside(hidden_states)
        return self.note(hidden_states)

    def note(self, hidden_states: Tensor) -> Tensor:
        device = hidden_states.device
        autocast_dtype = None
        if torch.is_autocast_enabled(device.type):
            autocast_dtype = torch.get_autocast_dtype(device.type)
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        # As wide as the vocabulary, so that a model that cuts it is noticed; values that a softcap
        # bends, and a power of two at the ends, so that nothing rounds where nothing is done.
        width = plain_linear(self.__dict__["head"]).out_features
        probe = torch.linspace(-256.0, 256.0, width, dtype=dtype, device=device)
        self.call = HeadCall(hidden_states, autocast_dtype, probe)
        return probe[None, None]

    def replace_head(self, model: PreTrainedModel) -> Callable[[], None]:
        """Let the model's forward pass end at its output projection; returns what undoes it."""
        head: Any = model.get_output_embeddings()
        parent, name = next(
            (module, name)
            for module in model.modules()
            for name, child in module._modules.items()
            if child is head
        )
        self.__dict__["head"] = head  # no sub-module: its parameters are not this module's
        parent._modules[name] = self

        def restore() -> None:
            parent._modules[name] = head

        return restore

    def take(self) -> HeadCall:
        """What came in the last pass. Nothing is kept: the graph of all layers hangs on it."""
        call, self.call = self.call, None
        if call is None:
            raise RuntimeError("the forward pass did not reach its output projection")
        return call


def form_in_config(model: PreTrainedModel) -> LogitForm:
    """What the config says that the model does to the projection's output."""
    head = output_head(model)
    return LogitForm(head.scale, head.softcap)


def logit_form(model: PreTrainedModel, probe: Tensor, logits: Tensor) -> LogitForm:
    """How the model made ``logits`` of ``probe``. Waits for the device: ask once for a config.

    Raises:
        NotFusableError: it did neither nothing nor what the config says.
    """
    for form in (LogitForm(1.0, None), form_in_config(model)):
        if logits.shape[-1] == len(probe):
            expected = probe * form.scale
            if form.softcap is not None:
                expected = form.softcap * torch.tanh(expected / form.softcap)
            if torch.allclose(logits.to(expected.dtype), expected, rtol=1e-5, atol=1e-5):
                return form
    raise NotFusableError(
        f"the loss of {type(model).__name__} cannot be fused: it makes logits of the output "
        "of its projection by something else than a scale and a softcap of its config"
    )


def call_head(
    model: PreTrainedModel, hidden_states: Tensor, compute: Callable[[Tensor, nn.Linear], Any]
) -> Any:
    """``compute(hidden_states, linear)`` inside the call of the output projection."""
    head: Any = model.get_output_embeddings()
    linear = plain_linear(head)

    def forward(hidden_states: Tensor) -> Any:
        if type(linear.weight) not in (Tensor, nn.Parameter):
            raise NotFusableError(
                f"the output projection of {type(model).__name__} holds a "
                f"{type(linear.weight).__name__}: it is quantised or split over devices"
            )
        return compute(hidden_states, linear)

    linear.__dict__["forward"] = forward
    try:
        return head(hidden_states)
    finally:
        del linear.__dict__["forward"]


def plain_linear(head: Any) -> nn.Linear:
    """The ``nn.Linear`` that ``head`` is, under the wrapper of FSDP if it has one.

    Raises:
        NotFusableError: an adapter, a quantised layer, or one whose forward was replaced.
    """
    linear = getattr(head, "_fsdp_wrapped_module", head)
    # Subclasses are fine (FSDP makes one) as long as they compute what nn.Linear computes.
    if not isinstance(linear, nn.Linear) or type(linear).forward is not nn.Linear.forward:
        raise NotFusableError(
            f"the output projection is a {type(linear).__name__}, not a plain nn.Linear: merge "
            "its adapter, leave it out of LoRA, modules_to_save and quantisation, or train with "
            "logits"
        )
    if "forward" in linear.__dict__:
        raise NotFusableError(
            "the forward of the output projection was replaced (accelerate does so to offload or "
            "to split a model over devices)"
        )
    return linear
