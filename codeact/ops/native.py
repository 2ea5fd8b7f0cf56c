"""What the native module can do on this machine, in words."""

from __future__ import annotations

from codeact import _C


def native_status() -> str:
    """One line: built with CUDA or not, and whether a driver and a device answer."""
    if not _C.built_with_cuda:
        return "built for the CPU only (no nvcc was found)"
    usable = "usable here" if _C.cuda_usable() else "no GPU or driver that it can use here"
    return f"built with CUDA; {usable}"
