"""What an attention kernel for packed sequences can do, and what a call asks of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)


class AttentionCall(NamedTuple):
    """Causal attention of sequences laid end to end; shapes as in :func:`varlen_attention`."""

    query: Tensor
    key: Tensor
    value: Tensor
    cu_seqlens: Tensor
    max_seqlen: int | None
    scaling: float | None
    sliding_window: int | None
    softcap: float | None


class Need(NamedTuple):
    """What decides which kernels can serve a call; hashable, so that a choice is remembered."""

    device: str
    sm: tuple[int, int] | None  # compute capability of the GPU
    dtype: torch.dtype
    head_dim: int
    value_head_dim: int
    sliding_window: int | None
    softcap: float | None
    backward: bool
    transform: bool  # inside torch.func


def need_of(call: AttentionCall, *, transform: bool) -> Need:
    """What ``call`` asks for."""
    query, _, value = inputs = call[:3]
    return Need(
        device=query.device.type,
        sm=torch.cuda.get_device_capability(query.device) if query.is_cuda else None,
        dtype=query.dtype,
        head_dim=query.shape[-1],
        value_head_dim=value.shape[-1],
        sliding_window=call.sliding_window,
        softcap=call.softcap,
        backward=torch.is_grad_enabled() and any(x.requires_grad for x in inputs),
        transform=transform,
    )


@dataclass(frozen=True)
class Capability:
    """What a kernel can do on one kind of device. Every kernel here groups its queries (GQA)."""

    dtypes: tuple[torch.dtype, ...]
    head_dims: range | None = None  # None is any
    other_value_head_dim: bool = False
    sliding_window: bool = True
    softcap: bool = True
    backward: bool = True
    transform: bool = False

    def refusal(self, need: Need) -> str | None:
        """The first thing asked for that is not there; None if all is."""
        if need.dtype not in self.dtypes:
            names = ", ".join(str(dtype).removeprefix("torch.") for dtype in self.dtypes)
            return f"takes {names}, not {str(need.dtype).removeprefix('torch.')}"
        if self.head_dims is not None and need.head_dim not in self.head_dims:
            dims = self.head_dims
            step = f" in steps of {dims.step}" if dims.step > 1 else ""
            return f"takes a head_dim of {dims[0]} to {dims[-1]}{step}, not {need.head_dim}"
        if need.value_head_dim != need.head_dim and not self.other_value_head_dim:
            return f"takes values as wide as keys, not {need.value_head_dim} beside {need.head_dim}"
        if need.sliding_window is not None and not self.sliding_window:
            return f"has no sliding window (here {need.sliding_window})"
        if need.softcap is not None and not self.softcap:
            return f"has no softcap (here {need.softcap:g})"
        if need.backward and not self.backward:
            return f"has no backward pass on {_device_name(need)}"
        if need.transform and not self.transform:
            return "does not work inside torch.func transforms"
        return None


@dataclass(frozen=True)
class AttentionBackend:
    """One kernel behind the common call.

    Attributes:
        name: what ``attn_backend`` and ``"codeact_<name>"`` call it.
        kernel: what it is, in words.
        missing: what has to be installed, with the command; None if nothing has.
        capability: of a device type and compute capability; None where the kernel does not run.
        runs_on: the devices, in words, for the message where it does not.
        attend: the kernel; returns (num_tokens, num_heads, value_head_dim).
    """

    name: str
    kernel: str
    missing: Callable[[], str | None]
    capability: Callable[[str, tuple[int, int] | None], Capability | None]
    runs_on: str
    attend: Callable[[AttentionCall], Tensor]

    def refusal(self, need: Need) -> str | None:
        """Why the kernel cannot serve ``need``, were it installed; None if it can."""
        capability = self.capability(need.device, need.sm)
        if capability is None:
            return f"needs {self.runs_on}, not {_device_name(need)}"
        return capability.refusal(need)


def _device_name(need: Need) -> str:
    return need.device if need.sm is None else f"{need.device} of sm_{need.sm[0]}{need.sm[1]}"
