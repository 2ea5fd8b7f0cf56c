"""Which attention kernel serves a call, and which ones this machine has."""

from __future__ import annotations

from typing import NamedTuple

import torch

from codeact.models.attention.capability import AttentionBackend, Need
from codeact.models.attention.flash import FA2, FA3, FA4
from codeact.models.attention.flex import FLEX
from codeact.models.attention.per_sequence import PER_SEQUENCE
from codeact.models.attention.torch_varlen import TORCH_VARLEN

# What "auto" tries, in this order. On Hopper flash-attn 3 may be ahead of version 4 for ragged
# batches (pytorch/torchtitan#4413). Next is PyTorch's own kernel, which is tested with the PyTorch
# it comes with; it has no softcap, and in its first release no window. Version 4, a beta, and
# version 2 serve that; the last serves everything.
_AUTO = (FA3, TORCH_VARLEN, FA4, FA2, PER_SEQUENCE)
# FlexAttention is there to be named: it compiles for a minute, and again when lengths change.
_BACKENDS = {backend.name: backend for backend in (*_AUTO, FLEX)}

ATTENTION_BACKENDS = tuple(_BACKENDS)


class BackendState(NamedTuple):
    """One row of :func:`attention_backends`.

    Attributes:
        name: for ``load_model(..., attn_backend=name)``.
        available: whether it runs on this machine.
        reason: what it is; or what it lacks, with the command that installs it.
    """

    name: str
    available: bool
    reason: str


def attention_backends() -> list[BackendState]:
    """Every kernel for packed sequences, as ``"auto"`` prefers them, and whether it runs here.

    A kernel that is available may still lack a feature, such as a softcap or float32: ``"auto"``
    then takes the next one, a named one raises.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    states = []
    for backend in _BACKENDS.values():
        lacking = _wrong_device(backend, device) or backend.missing()
        states.append(BackendState(backend.name, lacking is None, lacking or backend.kernel))
    return states


def check_backend_name(name: str) -> None:
    """Raise ValueError unless ``name`` is ``"auto"`` or a backend."""
    if name != "auto" and name not in _BACKENDS:
        choices = ", ".join(["auto", *_BACKENDS])
        raise ValueError(f"attention backend must be one of {choices}, got {name!r}")


def require_backend(name: str, device: torch.device) -> None:
    """Raise unless ``name`` is installed and runs on ``device``; ``"auto"`` always does.

    Raises:
        ValueError: there is no backend of that name, or it does not run on such a device.
        ImportError: it is not installed; the text has the command.
    """
    check_backend_name(name)
    if name == "auto":
        return
    if wrong := _wrong_device(_BACKENDS[name], device):
        raise ValueError(f"attention backend {name!r} {wrong}, got {device}")
    if missing := _BACKENDS[name].missing():
        raise ImportError(f"attention backend {name!r}: {missing}")


def _wrong_device(backend: AttentionBackend, device: torch.device) -> str | None:
    sm = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    return None if backend.capability(device.type, sm) else f"needs {backend.runs_on}"


# A dictionary and not lru_cache, which torch.compile would look through, into the imports below.
_CHOSEN: dict[tuple[object, ...], AttentionBackend] = {}


def choose_backend(name: str, need: Need) -> AttentionBackend:
    """The kernel for a call: the first that can for ``"auto"``, else the named one or an exception.

    Raises:
        ValueError: there is no backend of that name, or it cannot do what is asked; the text names
            the feature and who has it.
        ImportError: it is not installed; the text has the command.
    """
    key = (name, *need)
    chosen = _CHOSEN.get(key)
    if chosen is None:
        choose = torch.compiler.disable(_choose) if torch.compiler.is_compiling() else _choose
        chosen = _CHOSEN[key] = choose(name, need)
    return chosen


def _choose(name: str, need: Need) -> AttentionBackend:
    check_backend_name(name)
    if name == "auto":
        able = (b for b in _AUTO if b.refusal(need) is None and b.missing() is None)
        return next(able, PER_SEQUENCE)
    backend = _BACKENDS[name]
    if refusal := backend.refusal(need):
        others = [other for other, unit in _BACKENDS.items() if unit.refusal(need) is None]
        raise ValueError(f"attention backend {name!r} {refusal}; {' or '.join(others)} can")
    if missing := backend.missing():
        raise ImportError(f"attention backend {name!r}: {missing}")
    return backend
