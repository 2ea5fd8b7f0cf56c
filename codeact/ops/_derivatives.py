"""Guards for operations written by hand: a derivative that would be lost is an error instead."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

_P = ParamSpec("_P")
_R = TypeVar("_R")


def refuse_derivatives(operation: str, *tensors: Tensor | None) -> None:
    """Raise if autograd would record ``operation`` on ``tensors``, or a tangent rides on one."""
    given = [tensor for tensor in tensors if tensor is not None]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        raise RuntimeError(f"{operation} has no derivative; call it under torch.no_grad()")
    if any(carries_tangent(tensor) for tensor in given):
        raise RuntimeError(f"{operation} has no derivative; detach its inputs")


def carries_tangent(tensor: Tensor) -> bool:
    """Whether ``tensor`` is a dual number of any level, or inside a torch.func transform."""
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return True
    return forward_ad.unpack_dual(tensor).tangent is not None


def eager_only(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Keep torch.compile out of ``function``: a graph break, and plain Python inside.

    Dynamo inlines an autograd.Function and drops its ``jvp``: the tangent is then a silent zero
    (pytorch#192985). ``torch.compiler.disable`` as a decorator would do the same, but it loads
    Dynamo, which takes 1.7 s that only those who compile should pay.
    """

    @functools.wraps(function)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        # A frame that Dynamo gave up runs as Python, but the functions it calls are tried again;
        # hence the second condition. The first is all that Dynamo itself gets to see.
        if torch.compiler.is_dynamo_compiling() or "torch._dynamo" in sys.modules:
            found: _R = torch.compiler.disable(function)(*args, **kwargs)
            return found
        return function(*args, **kwargs)

    return guarded
