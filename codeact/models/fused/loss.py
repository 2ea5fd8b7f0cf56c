"""The loss of a transformers causal language model, computed without its logits."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from codeact.models.fused.forward import FusedState, fused_forward
from codeact.models.fused.head_call import NotFusableError, plain_linear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

M = TypeVar("M", bound=nn.Module)

_STATE = "_codeact_fused_loss"


def fuse_loss(model: M) -> M:
    """Let ``model(..., labels=labels)`` compute its loss without logits.

    The decoder runs as before; then only the positions that predict a scored label meet the output
    projection, and their losses and gradients come from :func:`codeact.ops.linear_nll_loss`, whose
    float32 logits exist a chunk of rows at a time. The output is of the model's usual class, with
    ``loss``, and with ``logits`` None. Without labels (``generate``, evaluation of logits) nothing
    changes, and neither do parameters, ``state_dict`` or the signature, which gains an optional
    ``loss_weights``.

    ``labels`` are transformers', (batch_size, seqlen), not shifted, -100 where there is no loss;
    ``loss_weights`` are aligned with them; ``num_items_in_batch`` divides the sum, without it the
    loss is the (weighted) mean. Without a scored label the loss is 0, where transformers says NaN.
    A mixture of experts adds its auxiliary loss as ever. Labels that lie on a GPU are waited for
    once; on the CPU they cost no wait.

    Under autocast, hidden states and projection are cast as autocast would. ``loss`` is at least
    float32, its logits are never rounded to bfloat16.

    Args:
        model: a causal language model, or what wraps one: PEFT, DistributedDataParallel, FSDP,
            torch.compile. It is changed in place; not under ``nn.DataParallel``.

    Returns:
        ``model``.

    Raises:
        NotFusableError: (a ``ValueError``) the output projection is no plain linear layer (LoRA on
            it, ``modules_to_save``, quantised), the loss is not that of a causal language model,
            or the model takes images or has an encoder. What the model does to its logits is
            looked at in the first pass, which raises as well if it is neither Gemma's softcap nor
            Cohere's or Granite's scale.
    """
    causal_lm = find_causal_lm(model)
    _check(causal_lm)
    state: FusedState = causal_lm.__dict__.setdefault(_STATE, FusedState())
    if not state.installed:
        state.previous = causal_lm.__dict__.get("forward")
        state.trl_temperature = _trl_temperature(state.previous)
        causal_lm.__dict__["forward"] = MethodType(_forward_of(causal_lm), causal_lm)
    state.installed = state.enabled = True
    return model


def unfuse_loss(model: M) -> M:
    """Undo :func:`fuse_loss`; nothing happens to a model that it did not change."""
    causal_lm = find_causal_lm(model)
    state: FusedState | None = causal_lm.__dict__.get(_STATE)
    if state is None:
        return model
    state.enabled = False
    forward = causal_lm.__dict__.get("forward")
    # If another library has wrapped the forward since, it stays, and lets everything pass.
    if getattr(forward, "__func__", None) is _forward_of(causal_lm):
        del causal_lm.__dict__["forward"]
        if state.previous is not None:
            causal_lm.__dict__["forward"] = state.previous
        state.installed = False
    return model


@contextlib.contextmanager
def fused_loss(model: nn.Module) -> Iterator[None]:
    """:func:`fuse_loss` until the block ends; what was fused before stays so."""
    state: FusedState | None = find_causal_lm(model).__dict__.get(_STATE)
    if state is not None and state.enabled:
        yield
        return
    fuse_loss(model)
    try:
        yield
    finally:
        unfuse_loss(model)


def find_causal_lm(model: nn.Module) -> PreTrainedModel:
    """The outermost transformers model with an output projection inside ``model``.

    Raises:
        NotFusableError: there is none, or ``model`` is ``nn.DataParallel``, whose copies would all
            run the forward of the first.
    """
    from transformers import PreTrainedModel

    for module in model.modules():
        if isinstance(module, nn.DataParallel):
            raise NotFusableError("the loss cannot be fused under nn.DataParallel: use torchrun")
        if isinstance(module, PreTrainedModel) and module.get_output_embeddings() is not None:
            return module
    raise NotFusableError(
        f"{type(model).__name__} holds no transformers model with an output projection"
    )


def _check(model: PreTrainedModel) -> None:
    from transformers.loss.loss_utils import ForCausalLMLoss

    name = type(model).__name__
    if model.config.is_encoder_decoder or model.config.get_text_config() is not model.config:
        raise NotFusableError(
            f"{name} has an encoder or takes more than text: its loss cannot be fused"
        )
    forward = inspect.unwrap(type(model).forward)
    if (
        model.loss_function is not ForCausalLMLoss
        or "loss_function" not in forward.__code__.co_names
    ):
        raise NotFusableError(f"{name} computes its own loss, which cannot be fused")
    plain_linear(model.get_output_embeddings())


def _trl_temperature(previous: Any) -> float | None:
    if previous is None:
        return None
    from codeact.models.fused.trl_head import asked_temperature

    return asked_temperature(previous)


def _forward_of(model: Any) -> Callable[..., Any]:
    """The forward that :func:`fuse_loss` gives to the instances of a model's class."""
    model_class: Any = type(model)
    return _forward_of_class(model_class)


@functools.cache
def _forward_of_class(model_class: Any) -> Callable[..., Any]:
    signature = inspect.signature(model_class.forward)
    names = list(signature.parameters)[1:]

    @functools.wraps(model_class.forward)
    def forward(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
        if torch.compiler.is_dynamo_compiling():
            # Only the frame of the model's own forward is compiled, and all that it calls.
            run = torch.compiler.disable(fused_forward, recursive=False)
            return run(self, self.__dict__[_STATE], kwargs, torch.compiler.disable)
        return fused_forward(self, self.__dict__[_STATE], kwargs)

    # accelerate strips the forward down to what __wrapped__ leads to when it unwraps a model.
    del forward.__wrapped__
    forward.__signature__ = _with_loss_weights(signature)  # type: ignore[attr-defined]
    return forward


def _with_loss_weights(signature: inspect.Signature) -> inspect.Signature:
    """So that the Trainer, which looks at the signature, does not drop the column."""
    weights = inspect.Parameter("loss_weights", inspect.Parameter.KEYWORD_ONLY, default=None)
    parameters = list(signature.parameters.values())
    has_rest = parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    parameters.insert(len(parameters) - has_rest, weights)
    return signature.replace(parameters=parameters)
