"""Where an estimator computes."""

from __future__ import annotations

import torch

from codeact.errors import InputError


def resolve_device(device: str) -> torch.device:
    """``"auto"`` is the GPU if torch sees one, else the CPU; other names are torch's own.

    Raises:
        InputError: Torch knows no such device, or it is a GPU that is not there.
    """
    has_gpu = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda" if has_gpu else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise InputError(f"device must be auto, cpu or cuda, got {device!r}") from None
    if chosen.type == "cuda" and not has_gpu:
        raise InputError(f"device must be one that torch sees, got {device!r} without a GPU")
    return chosen
