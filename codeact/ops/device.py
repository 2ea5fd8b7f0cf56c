"""Which device a name stands for."""

from __future__ import annotations

import re

import torch

from codeact.errors import InputError


def resolve_device(device: str = "auto") -> torch.device:
    """``"auto"`` is the GPU when there is one.

    Raises:
        InputError: another name than auto, cpu and cuda (or cuda:1), ``"cuda"`` on a machine
            without a usable GPU, or an index that no GPU has.
    """
    named = re.fullmatch(r"auto|cpu|cuda(?::(?P<index>[0-9]+))?", str(device))
    if named is None:
        raise InputError(f"device must be auto, cpu or cuda, got {device!r}")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device != "cpu" and not torch.cuda.is_available():
        raise InputError(f"device is {device!r}, but PyTorch finds no usable GPU (see codeact env)")
    if int(named["index"] or 0) >= max(1, torch.cuda.device_count()):
        raise InputError(
            f"device must be one of {torch.cuda.device_count()} GPUs, counted from cuda:0, "
            f"got {device!r}"
        )
    return torch.device(device)
