"""Which implementation of an operation runs, and how to say that one cannot."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from codeact import _C

Backend = Literal["auto", "reference", "cpu", "triton", "cuda"]


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
) -> Literal["reference", "cpu", "triton", "cuda"]:
    """The implementation to run for ``tensor``.

    ``"auto"`` takes, of ``supported``, the first that works on a CUDA tensor, and ``"cpu"`` on a
    CPU tensor; the reference where there is none. Any other value is returned or refused, never
    replaced.

    Args:
        backend: What the caller of the operation asked for.
        tensor: The operation's main input; its device decides.
        supported: What the operation has beside its reference, the preferred one first.

    Raises:
        ValueError: The operation has no such backend.
        RuntimeError: The backend cannot run here; the text names the missing piece.
    """
    if backend == "auto":
        for name in supported:
            # Triton's interpreter takes CPU tensors too, which is for tests alone.
            if (tensor.is_cuda or name == "cpu") and _missing(name, tensor) is None:
                return _narrowed(name)
        return "reference"
    if backend != "reference" and backend not in supported:
        choices = ", ".join(["auto", "reference", *supported])
        raise ValueError(f"backend must be one of {choices}, got {backend!r}")
    missing = _missing(backend, tensor)
    if missing is not None:
        raise RuntimeError(f"backend {backend!r} {missing}")
    return _narrowed(backend)


def _missing(backend: str, tensor: Tensor) -> str | None:
    """What keeps a backend from running on ``tensor``; None if nothing does."""
    if backend == "reference":
        return None
    if backend == "cpu":
        return None if tensor.is_cpu else f"needs a CPU tensor, got a tensor on {tensor.device}"
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


def _narrowed(backend: str) -> Literal["reference", "cpu", "triton", "cuda"]:
    if backend == "cpu":
        return "cpu"
    if backend == "triton":
        return "triton"
    return "cuda" if backend == "cuda" else "reference"
