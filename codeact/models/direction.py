"""A direction in the space of a model's weights, and passes of the model along it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import forward_ad

from codeact.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Direction: TypeAlias = Mapping[str, Tensor]
"""Parts of a direction by the parameter's name in ``model.named_parameters()``, where weights that
are tied appear once. Parameters that are not named do not move."""

_LAST = re.compile(r"last:(\d+)")


def parameter_names(model: PreTrainedModel, which: str = "all") -> tuple[str, ...]:
    """The parameters that a direction moves, in the model's order.

    Args:
        model: a transformers causal language model.
        which: ``"all"``; ``"lora"``, the adapters that PEFT put into the model; or ``"last:K"``,
            the last K decoder layers and the norm after them. The passes along the last two cost
            less: nothing moves below the first parameter that does.

    Raises:
        InputError: another word, no adapter in the model, or more layers than it has.
    """
    names = [name for name, _ in model.named_parameters()]
    if which == "all":
        return tuple(names)
    if which == "lora":
        adapters = tuple(name for name in names if "lora_" in name)
        if not adapters:
            raise InputError("parameters = lora needs a model with a LoRA adapter, got one without")
        return adapters
    match = _LAST.fullmatch(which)
    if match is None:
        raise InputError(f"parameters must be all, lora or last:K, got {which!r}")
    return _last_layers(model, names, int(match[1]))


def _last_layers(model: PreTrainedModel, names: list[str], num_last: int) -> tuple[str, ...]:
    decoder = model.get_decoder()
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, torch.nn.ModuleList):
        raise InputError(f"parameters = last:K does not find the layers of {type(model).__name__}")
    if not 1 <= num_last <= len(layers):
        raise InputError(
            f"parameters = last:K needs K from 1 to the {len(layers)} layers, got {num_last}"
        )
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    below = [f"{prefix}.layers.{layer}." for layer in range(len(layers) - num_last)]
    outside = [
        f"{prefix}.{name}."
        for name, module in decoder.named_children()
        if isinstance(module, torch.nn.Embedding)
    ]
    head = model.get_output_embeddings()
    heads = [f"{name}." for name, module in model.named_modules() if module is head]
    unmoved = tuple(below + outside + heads)
    return tuple(name for name in names if not name.startswith(unmoved))


@contextmanager
def along(model: PreTrainedModel, direction: Direction) -> Iterator[None]:
    """Inside, the parameters are dual numbers: what passes compute carries its derivative.

    A loss found inside has the tangent ``<grad loss, direction>``, exact and from the same pass;
    :func:`codeact.models.stream_losses` reads it into ``SequenceLoss.tangent``. Passes in other
    threads carry it too. A process has one level of dual numbers, so that no two of these can be
    open at once, and no gradient can be asked for inside.

    Args:
        model: its parameters are others inside, and the same ones afterwards.
        direction: (shape, dtype and device of the parameters).

    Raises:
        ValueError: a name that the model does not have, or a tensor unlike its parameter.
    """
    parameters = _checked(model, direction)
    with torch.no_grad(), forward_ad.dual_level():
        duals = {
            name: forward_ad.make_dual(parameters[name].detach(), tangent)
            for name, tangent in direction.items()
        }
        with _swapped(model, duals), _padding(model, _without_tangent):
            yield


def is_moving() -> bool:
    """Whether a model is being passed :func:`along` a direction, in this process."""
    return forward_ad._current_level >= 0


@contextmanager
def moved(
    model: PreTrainedModel, direction: Direction, step: float, *, dtype: torch.dtype | None = None
) -> Iterator[None]:
    """Inside, the parameters are ``parameter + step * direction``; another copy of them.

    What the embedding looks up for its ``padding_idx`` stays, as it has no gradient in PyTorch.

    Args:
        model: as of :func:`along`, as are the errors.
        direction: as there.
        step: how far.
        dtype: what the weights are inside, those that do not move too; None as they are.
    """
    parameters = _checked(model, direction)
    with torch.no_grad():
        others = {}
        for name, parameter in parameters.items():
            if name in direction:
                there = parameter.detach().to(dtype or parameter.dtype)
                others[name] = torch.add(there, direction[name].to(there.dtype), alpha=step)
            elif dtype is not None:
                others[name] = parameter.detach().to(dtype)
        still = _where_it_was(model)
        with _swapped(model, others), _padding(model, still):
            yield


@contextmanager
def _padding(model: PreTrainedModel, still: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Inside, embeddings pass through ``still(embeddings, is_padding)``.

    What is looked up for ``padding_idx`` does not move here, as it has no gradient elsewhere.
    PyTorch's reverse mode leaves that use of the row out (a tied head's use counts), and its
    forward mode does not. Where the padding token also begins or ends a text, rows have it.
    """
    embeddings: Any = model.get_input_embeddings()
    padding = getattr(embeddings, "padding_idx", None)
    if padding is None:
        yield
        return

    def hook(_: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return still(output, (inputs[0] == padding)[..., None])

    handle = embeddings.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _without_tangent(output: Tensor, is_padding: Tensor) -> Tensor:
    value, tangent = forward_ad.unpack_dual(output)
    if tangent is None:
        return output
    dual: Tensor = forward_ad.make_dual(value, tangent.masked_fill(is_padding, 0.0))
    return dual


def _where_it_was(model: PreTrainedModel) -> Callable[[Tensor, Tensor], Tensor]:
    """Puts the embedding that ``padding_idx`` has now in place of others."""
    embeddings: Any = model.get_input_embeddings()
    padding = getattr(embeddings, "padding_idx", None)
    before = None if padding is None else embeddings(torch.tensor([padding], device=model.device))
    return lambda output, is_padding: (
        output if before is None else torch.where(is_padding, before[0].to(output.dtype), output)
    )


def _checked(model: PreTrainedModel, direction: Direction) -> dict[str, Tensor]:
    """The model's parameters, of which ``direction`` is one."""
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    for name, tangent in direction.items():
        if name not in parameters:
            raise ValueError(f"the direction moves {name}, which the model does not have")
        like = parameters[name]
        if (tangent.shape, tangent.dtype, tangent.device) != (like.shape, like.dtype, like.device):
            raise ValueError(
                f"the direction of {name} must be {like.dtype} {tuple(like.shape)} on "
                f"{like.device}, got {tangent.dtype} {tuple(tangent.shape)} on {tangent.device}"
            )
    return parameters


@contextmanager
def _swapped(model: PreTrainedModel, others: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, each module holds ``others`` in place of the parameters of these names.

    ``torch.func.functional_call`` does this for one call; here many passes in several threads are
    to find them. All modules that share a parameter (tied weights) get the other one.
    """
    parameters = dict(model.named_parameters())
    places: dict[int, Tensor] = {id(parameters[name]): other for name, other in others.items()}
    swapped = []
    try:
        for module in model.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None and id(parameter) in places:
                    swapped.append((module, name, parameter))
                    # Assigned into the dictionary: setattr takes parameters only, and a deleted
                    # entry would come back in another place of the model's order.
                    module._parameters[name] = places[id(parameter)]  # type: ignore[assignment]
        yield
    finally:
        for module, name, parameter in swapped:
            module._parameters[name] = parameter
