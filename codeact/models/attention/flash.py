"""The three generations of the flash-attn packages.

They are called by keyword: the third positional argument after the values is ``cu_seqlens_q`` in
versions 2 and 3 and ``qv`` in version 4. Their names here have no "flash" in them because
transformers imports a package of its own choice for any ``attn_implementation`` that has.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor

from codeact.models.attention.capability import HALF, AttentionBackend, AttentionCall, Capability
from codeact.models.attention.pack_bounds import max_seqlen_of

_MODULES = {
    "fa2": ("flash_attn",),
    "fa3": ("flash_attn_interface", "flash_attn_3.flash_attn_interface"),
    "fa4": ("flash_attn.cute",),
}
_INSTALL = {
    "fa2": "pip install flash-attn --no-build-isolation",
    "fa3": (
        "pip install --no-build-isolation "
        "'git+https://github.com/Dao-AILab/flash-attention#subdirectory=hopper'"
    ),
    "fa4": "pip install flash-attn-4",
}


_FOUND: dict[str, Callable[..., Any] | str] = {}


def _found(name: str) -> Callable[..., Any] | str:
    """``flash_attn_varlen_func`` of one generation, or why there is none."""
    found = _FOUND.get(name)
    if found is None:
        found = _FOUND[name] = _imported(name)
    return found


def _imported(name: str) -> Callable[..., Any] | str:
    broken = ""
    for module in _MODULES[name]:
        try:
            function: Callable[..., Any] = import_module(module).flash_attn_varlen_func
        except (ModuleNotFoundError, AttributeError):
            pass  # version 4 alone leaves a bare `flash_attn` folder, which is not version 2
        except Exception as error:  # undefined symbols after torch was exchanged, and worse
            broken = str(error).strip().partition("\n")[0] or type(error).__name__
        else:
            return function
    state = f"cannot be imported ({broken})" if broken else "is not installed"
    return f"{_MODULES[name][0]} {state}; {_INSTALL[name]}"


def _missing(name: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        found = _found(name)
        return found if isinstance(found, str) else None

    return missing


def _attend(name: str, open_end: int | None) -> Callable[[AttentionCall], Tensor]:
    """The call of one generation; ``open_end`` is its word for a window without end."""

    def attend(call: AttentionCall) -> Tensor:
        function = _found(name)
        if isinstance(function, str):
            raise ImportError(function)
        bounds, window = call.cu_seqlens, call.sliding_window
        longest = max_seqlen_of(bounds, call.max_seqlen)
        output = function(
            call.query,
            call.key,
            call.value,
            cu_seqlens_q=bounds,
            cu_seqlens_k=bounds,
            max_seqlen_q=longest,
            max_seqlen_k=longest,
            softmax_scale=call.scaling,
            causal=True,
            window_size=(open_end, open_end) if window is None else (window - 1, 0),
            softcap=call.softcap or 0.0,
        )
        # Version 4 and older builds of 3 give the log-sum-exp too.
        result: Tensor = output[0] if isinstance(output, tuple) else output
        return result

    return attend


def _fa2_capability(device: str, sm: tuple[int, int] | None) -> Capability | None:
    if device != "cuda" or sm is None or sm < (8, 0):
        return None
    return Capability(dtypes=HALF, head_dims=range(1, 257))  # it pads to a multiple of 8


def _fa3_capability(device: str, sm: tuple[int, int] | None) -> Capability | None:
    if device != "cuda" or sm is None or sm[0] != 9:
        return None
    return Capability(dtypes=HALF, head_dims=range(8, 257, 8))


def _fa4_capability(device: str, sm: tuple[int, int] | None) -> Capability | None:
    """As flash_attn/cute/interface.py checks them, less the shapes of special kernels."""
    if device != "cuda" or sm is None or sm[0] not in (9, 10, 11, 12):
        return None
    return Capability(
        dtypes=HALF,
        head_dims=range(8, 257 if sm[0] == 9 else 129, 8),
        # Its softcap is a score function, whose backward is missing on consumer Blackwell.
        softcap=sm[0] != 12,
    )


FA2 = AttentionBackend(
    name="fa2",
    kernel="flash-attn 2",
    missing=_missing("fa2"),
    capability=_fa2_capability,
    runs_on="a CUDA GPU of compute capability 8.0 or more",
    attend=_attend("fa2", -1),
)
FA3 = AttentionBackend(
    name="fa3",
    kernel="flash-attn 3",
    missing=_missing("fa3"),
    capability=_fa3_capability,
    runs_on="a Hopper GPU (compute capability 9.0)",
    attend=_attend("fa3", -1),
)
FA4 = AttentionBackend(
    name="fa4",
    kernel="flash-attn 4",
    missing=_missing("fa4"),
    capability=_fa4_capability,
    runs_on="a CUDA GPU of compute capability 9.0 or more",
    attend=_attend("fa4", None),
)
