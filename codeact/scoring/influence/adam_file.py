"""Whose moments are they? An optimizer's file numbers its tensors; here they get names."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from codeact.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FILE = "optimizer.pt"
# Put before a parameter's name by DistributedDataParallel, torch.compile and PEFT.
_WRAPPERS = ("module.", "_orig_mod.", "base_model.model.")
_NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(^|[._])norm(\.|$)")
_NO_DECAY_BEFORE_V5 = re.compile(r"bias")

_Groups: TypeAlias = list[dict[str, Any]]
_Shapes: TypeAlias = Mapping[str, torch.Size]


class Moments(NamedTuple):
    """The fields of :class:`codeact.scoring.influence.adam.AdamState`."""

    exp_avg: dict[str, Tensor]
    exp_avg_sq: dict[str, Tensor]
    step: int
    betas: tuple[float, float]
    eps: float
    weight_decay: dict[str, float]


def read_moments(path: str | Path, model: PreTrainedModel, names: Sequence[str]) -> Moments:
    """The moments of ``names`` from an optimizer's file, float32 on the CPU.

    Raises:
        InputError: as of ``AdamState.load``.
    """
    file = _checked_file(path)
    groups, state = _read(file)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    found = _named(file, groups, state, model, shapes)
    for name in names:
        if name not in found or found[name][0] not in state:
            raise InputError(
                f"{file} has no state of {name}: it was not trained; choose parameters that were "
                "(such as lora or last:K)"
            )
    chosen = {name: (state[found[name][0]], found[name][1]) for name in names}
    return Moments(
        {
            name: entry["exp_avg"].to(torch.float32, copy=True)
            for name, (entry, _) in chosen.items()
        },
        {
            name: entry["exp_avg_sq"].to(torch.float32, copy=True)
            for name, (entry, _) in chosen.items()
        },
        _same(file, "step", [int(entry["step"]) for entry, _ in chosen.values()]),
        _same(file, "betas", [_betas(group) for _, group in chosen.values()]),
        _same(file, "eps", [float(group["eps"]) for _, group in chosen.values()]),
        {name: float(group.get("weight_decay", 0.0)) for name, (_, group) in chosen.items()},
    )


def _checked_file(path: str | Path) -> Path:
    file = Path(path).expanduser()
    if file.is_dir():
        file = file / _FILE
        if not file.is_file():
            raise InputError(
                f"checkpoint {str(path)!r} has no {_FILE}: save it with its optimizer; the state "
                "that DeepSpeed and FSDP keep in shards is not read"
            )
    if not file.is_file():
        raise InputError(f"optimizer state {str(path)!r} is no file")
    return file


def _read(file: Path) -> tuple[_Groups, dict[Any, dict[str, Any]]]:
    """Groups and states of a file of some Adam."""
    try:
        # Mapped: of a large model only the tensors asked for are read.
        saved = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise InputError(f"{file} cannot be read as an optimizer state: {reason}") from error
    if not isinstance(saved, dict) or not {"state", "param_groups"} <= saved.keys():
        raise InputError(f"{file} must hold the state_dict of an optimizer (state, param_groups)")
    groups, state = saved["param_groups"], saved["state"]
    if not state:
        raise InputError(f"{file} holds no moments: the optimizer had made no step, or keeps none")
    for entry in state.values():
        if missing := sorted({"exp_avg", "exp_avg_sq", "step"} - entry.keys()):
            raise InputError(
                f"{file} is not of Adam or AdamW: its state lacks {missing[0]}, it has "
                f"{', '.join(map(str, entry)) or 'nothing'} (Adafactor, SGD and 8-bit optimizers "
                "keep no full second moment)"
            )
    for group in groups:
        if group.get("amsgrad"):
            raise InputError(f"{file} is of AMSGrad, which divides by another moment")
        # Only torch.optim.Adam says False, and it adds the decay to the gradient.
        if group.get("decoupled_weight_decay") is False and group.get("weight_decay"):
            raise InputError(
                f"{file} is of Adam with weight decay inside the gradient; AdamW is expected"
            )
    return groups, state


def _named(
    file: Path,
    groups: _Groups,
    state: Mapping[Any, Mapping[str, Any]],
    model: PreTrainedModel,
    shapes: _Shapes,
) -> dict[str, tuple[Any, dict[str, Any]]]:
    """For each name the key of its state and its group; shapes are as the model's."""
    saved = [_saved_names(group) for group in groups]
    if all(names is not None for names in saved):
        lists = [[_unwrapped(n, shapes) for n in names or []] for names in saved]
    else:
        lists = _names_by_order(file, groups, state, model, shapes)
    found = {}
    for names, group in zip(lists, groups, strict=True):
        for name, key in zip(names, group["params"], strict=True):
            if name not in shapes:
                raise InputError(f"{file} holds {name}, which the model does not have")
            if not _fits(key, shapes[name], state):
                raise InputError(
                    f"{file} is of a model of other shapes: {name} is "
                    f"{tuple(state[key]['exp_avg_sq'].shape)} there and {tuple(shapes[name])} here"
                )
            found[name] = (key, group)
    return found


def _saved_names(group: dict[str, Any]) -> list[str] | None:
    """The names that a group carries: torch keeps them beside the numbers, FSDP in their place."""
    if names := group.get("param_names"):
        return list(names)
    keys = group["params"]
    return keys if all(isinstance(key, str) for key in keys) else None


def _unwrapped(name: str, shapes: _Shapes) -> str:
    while name not in shapes:
        inner = next((name.removeprefix(w) for w in _WRAPPERS if name.startswith(w)), None)
        if inner is None:
            return name
        name = inner
    return name


def _names_by_order(
    file: Path,
    groups: _Groups,
    state: Mapping[Any, Mapping[str, Any]],
    model: PreTrainedModel,
    shapes: _Shapes,
) -> list[list[str]]:
    """The one way to name all tensors, in the Trainer's order, that fits number and shapes."""
    sizes = [len(group["params"]) for group in groups]
    ways: list[list[list[str]]] = []
    for trained in _trained(model):
        for way in _splits(model, trained, len(groups)):
            if [len(names) for names in way] == sizes and way not in ways:
                ways.append(way)
    keys = [key for group in groups for key in group["params"]]
    fitting = [
        way
        for way in ways
        if all(
            _fits(key, shapes[name], state)
            for key, name in zip(keys, (n for names in way for n in names), strict=True)
        )
    ]
    if len(fitting) == 1 or (not fitting and len(ways) == 1):
        return (fitting or ways)[0]  # where shapes differ, the caller names the first
    raise InputError(
        f"{file} has {' + '.join(map(str, sizes))} tensors, which "
        + ("fit in several ways" if fitting else "do not fit")
        + f" the {len(shapes)} parameters of the model"
        + (": load the adapter that was trained" if not fitting else "")
    )


def _trained(model: PreTrainedModel) -> Iterator[list[str]]:
    """Which parameters an optimizer may have had: all, those that train now, the adapter's."""
    parameters = list(model.named_parameters())
    yield [name for name, _ in parameters]
    yield [name for name, parameter in parameters if parameter.requires_grad]
    yield [name for name, _ in parameters if "lora_" in name]


def _splits(
    model: PreTrainedModel, trained: Sequence[str], num_groups: int
) -> Iterator[list[list[str]]]:
    """The groups that a Trainer of today or of transformers 4 makes, or a plain optimizer's one."""
    if num_groups == 1:
        yield [list(trained)]
    if num_groups == 2:
        for pattern in (_NO_DECAY, _NO_DECAY_BEFORE_V5):
            decays = decay_rule(model, pattern)
            yield [[n for n in trained if decays(n)], [n for n in trained if not decays(n)]]


def decay_rule(
    model: torch.nn.Module, pattern: re.Pattern[str] = _NO_DECAY
) -> Callable[[str], bool]:
    """Whether the transformers Trainer lets a parameter's weights decay: no biases, no norms."""
    norms = tuple(
        f"{name}."
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.LayerNorm)
    )
    return lambda name: not name.startswith(norms) and pattern.search(name.lower()) is None


def _fits(key: Any, shape: torch.Size, state: Mapping[Any, Mapping[str, Any]]) -> bool:
    """A parameter that never had a gradient has no state, which fits any."""
    return key not in state or all(
        state[key][moment].shape == shape for moment in ("exp_avg", "exp_avg_sq")
    )


def _betas(group: Mapping[str, Any]) -> tuple[float, float]:
    first, second = group["betas"]
    return float(first), float(second)


def _same(file: Path, what: str, values: Sequence[Any]) -> Any:
    if len(set(values)) != 1:
        raise InputError(
            f"{file} must have one {what} for all parameters, got {values[0]} and "
            f"{next(value for value in values if value != values[0])}"
            if values
            else "an Adam state needs at least one parameter, got none"
        )
    return values[0]
