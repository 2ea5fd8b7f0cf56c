"""Which implementation of an operation runs, and how to say that one cannot."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.autograd import forward_ad

from codeact import _C

Backend = Literal["auto", "reference", "triton", "cuda"]


def has_triton() -> bool:
    """Whether Triton is installed (torch brings it on Linux, except in its CPU builds)."""
    return importlib.util.find_spec("triton") is not None


def triton_interprets() -> bool:
    """Whether Triton kernels run in NumPy, on any device: ``TRITON_INTERPRET=1`` was set."""
    if not has_triton():
        return False
    from triton import knobs

    return bool(knobs.runtime.interpret)


def resolve_backend(
    backend: Backend, tensor: Tensor, *, supported: Sequence[str] = ("triton", "cuda")
) -> Literal["reference", "triton", "cuda"]:
    """The implementation to run for ``tensor``.

    ``"auto"`` takes the first of ``supported`` that works on a CUDA tensor, and the reference
    elsewhere. Any other value is returned or refused, never replaced.

    Args:
        backend: What the caller of the operation asked for.
        tensor: The operation's main input; its device decides.
        supported: What the operation has beside its reference, the preferred one first.

    Raises:
        ValueError: The operation has no such backend.
        RuntimeError: The backend cannot run here; the text names the missing piece.
    """
    if backend == "auto":
        for name in supported if tensor.is_cuda else ():
            if _missing(name, tensor) is None:
                return _narrowed(name)
        return "reference"
    if backend != "reference" and backend not in supported:
        choices = ", ".join(["auto", "reference", *supported])
        raise ValueError(f"backend must be one of {choices}, got {backend!r}")
    missing = _missing(backend, tensor)
    if missing is not None:
        raise RuntimeError(f"backend {backend!r} {missing}")
    return _narrowed(backend)


def refuse_tangent(operation: str, tensor: Tensor) -> None:
    """Raise if ``tensor`` carries a forward-mode tangent: a raw launch would drop it silently."""
    if forward_ad.unpack_dual(tensor).tangent is not None:
        raise RuntimeError(
            f"{operation} has no forward-mode derivative in this backend; use backend='reference'"
        )


def _missing(backend: str, tensor: Tensor) -> str | None:
    """What keeps a backend from running on ``tensor``; None if nothing does."""
    if backend == "reference":
        return None
    if backend == "triton":
        if not has_triton():
            return "needs Triton: pip install triton"
        if not tensor.is_cuda and not triton_interprets():
            return f"needs a CUDA tensor or TRITON_INTERPRET=1, got a tensor on {tensor.device}"
        return None
    if not _C.built_with_cuda:
        return (
            "needs codeact built with CUDA, and this build found no nvcc: "
            "CMAKE_ARGS=-DCODEACT_CUDA=ON pip install ."
        )
    if not _C.cuda_usable():
        return "needs a CUDA device, and a driver at least as new as the CUDA it was built with"
    if not tensor.is_cuda:
        return f"needs a CUDA tensor, got a tensor on {tensor.device}"
    return None


def _narrowed(backend: str) -> Literal["reference", "triton", "cuda"]:
    if backend == "triton":
        return "triton"
    return "cuda" if backend == "cuda" else "reference"
