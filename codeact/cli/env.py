"""``codeact env``: what works on this machine, and why the rest does not."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator

from codeact.cli.env_piece import Piece

_REQUIRED = (
    "torch", "transformers", "accelerate", "datasets", "numpy", "pyarrow", "scikit-learn",
    "hdbscan",
)  # fmt: skip
_OPTIONAL = {
    "triton": "GPU kernels of codeact; pip install triton",
    "gguf": "reads the model of codeact demo; pip install 'codeact[demo]'",
    "trl": "packing inside TRL's trainers; pip install 'codeact[train]'",
    "peft": "fine-tuning of adapters; pip install 'codeact[train]'",
    "evalplus": "HumanEval+ and MBPP+; pip install 'codeact[eval]'",
}
_TOOLS = {
    "c++": "compiles codeact._C from source; apt-get install g++",
    "nvcc": "compiles the CUDA kernels of codeact._C; install the CUDA toolkit, then codeact again",
    "valgrind": "counts instructions, to order programs that time cannot; apt-get install valgrind",
}


def env() -> None:
    """Say what works on this machine.

    Packages, native module, GPU, attention over packed sequences, system tools, the sandbox with
    each of its walls, compilers; for each missing piece, what it is for and how to get it.
    """
    from codeact.cli.env_sandbox import languages, walls

    for pieces in (_machine(), _packages(), _compute(), _tools(), walls(), languages()):
        for piece in pieces:
            mark = "–" if piece.missing else "✓"
            hint = f": {piece.missing}" if piece.missing else ""
            print(f"{mark} {piece.name:<17} {piece.state}{hint}")


def _machine() -> Iterator[Piece]:
    import codeact

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    yield Piece("codeact", codeact.__version__)
    yield Piece("python", platform.python_version())
    yield Piece(
        "machine", f"{platform.system()} {platform.machine()}, {cores} cores, {memory:.1f} GiB"
    )


def _packages() -> Iterator[Piece]:
    from importlib import metadata

    wanted = dict.fromkeys(_REQUIRED, "codeact needs it; pip install codeact")
    for package, purpose in (wanted | _OPTIONAL).items():
        try:
            yield Piece(package, metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Piece(package, "not installed", purpose)


def _compute() -> Iterator[Piece]:
    try:
        from codeact.ops.native import native_status

        yield Piece("codeact._C", native_status())
    except ImportError as error:
        yield Piece(
            "codeact._C",
            f"not built ({error})",
            "packing needs it; pip install . in the sources, with a C++ compiler",
        )
    has_gpu = False
    if importlib.util.find_spec("torch") is not None:
        import torch

        has_gpu = torch.cuda.is_available()
    if has_gpu:
        major, minor = torch.cuda.get_device_capability()
        gib = torch.cuda.get_device_properties(0).total_memory / 2**30
        name = torch.cuda.get_device_name()
        yield Piece("gpu", f"{name}, {gib:.0f} GiB, sm_{major}{minor}")
    else:
        yield Piece(
            "gpu",
            "none that PyTorch can use",
            "everything runs on the CPU; a driver and a CUDA build of PyTorch (pytorch.org)",
        )
    yield from _attention(has_gpu)


def _attention(has_gpu: bool) -> Iterator[Piece]:
    """The kernel that packed sequences get by default, and all there are."""
    try:
        from codeact.models import attention_backends
    except ImportError as error:
        remedy = "see the lines above; a missing piece keeps codeact.models from loading"
        yield Piece("packed attention", f"unknown ({error})", remedy)
        return
    states = attention_backends()
    preferred = next(state.name for state in states if state.available)
    in_float32 = "; in float32 per_sequence" if has_gpu else ""
    yield Piece("packed attention", f"{preferred}{in_float32}")
    for name, available, reason in states:
        if available:
            yield Piece(name, reason)
        else:
            use = "fast attention over packs on a GPU"
            yield Piece(name, "not available", f"{use}; {reason}")


def _tools() -> Iterator[Piece]:
    for tool, purpose in _TOOLS.items():
        path = shutil.which(tool)
        yield Piece(tool, path) if path else Piece(tool, "not found", purpose)
