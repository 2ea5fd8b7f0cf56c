"""How fast a device multiplies matrices at best: what utilisation is a share of."""

from __future__ import annotations

import re
import time
from functools import cache
from typing import NamedTuple

import torch

# Dense peaks by the vendor's data sheets, in 1e12 FLOP/s: bfloat16 tensor cores (with float32
# accumulation), TF32 tensor cores, float32. None: the GPU has no such unit. Names are those of
# torch.cuda.get_device_name; boards of one chip differ in clock and power, hence in peak.
_PEAKS: tuple[tuple[str, float | None, float | None, float], ...] = (
    (r"\bB200\b", 2250.0, 1125.0, 75.0),
    (r"\bH200\b", 989.4, 494.7, 66.9),
    (r"\bGH200\b", 989.4, 494.7, 66.9),
    (r"\bH100 PCIe\b", 756.0, 378.0, 51.2),
    (r"\bH100 NVL\b", 835.5, 417.5, 60.0),
    (r"\bH100( SXM\d?| \d+GB HBM3)?\b", 989.4, 494.7, 66.9),
    (r"\bA100\b", 312.0, 156.0, 19.5),
    (r"\bL40S\b", 362.05, 183.0, 91.6),
    (r"\bL4\b", 121.0, 60.0, 30.3),
    (r"\bA10G\b", 70.0, 35.0, 31.5),
    (r"\bA10\b", 125.0, 62.5, 31.2),
    (r"\bRTX 4090$", 165.2, 82.6, 82.6),
    (r"\bRTX 3090$", 71.0, 35.6, 35.6),
    (r"\bV100-PCIE\b", None, None, 14.0),
    (r"\bV100S-PCIE\b", None, None, 16.4),
    (r"\bV100\b", None, None, 15.7),
    (r"\bTesla T4\b", None, None, 8.1),
)
_SECONDS = 0.3
_SIZE = {"cpu": 1024, "cuda": 8192}


class PeakFlops(NamedTuple):
    """A device's peak in FLOP/s, and in words what it is the peak of."""

    flops: float
    source: str


def peak_flops(device: torch.device, dtype: torch.dtype) -> PeakFlops:
    """The peak of dense matrix products whose operands are ``dtype``.

    From the vendor's table where the GPU is known. On a CPU, an unknown GPU or a slice of one
    (MIG) it is what a bare product of square matrices reaches here, timed once in a process for
    0.3 s; a training cannot do better, and words should say that it is that.

    Args:
        device: that trains.
        dtype: that the products run in: bfloat16 under autocast. float32 on a GPU counts as TF32
            where PyTorch is allowed to use it.
    """
    if device.type == "cuda":
        named = _from_table(torch.cuda.get_device_name(device), dtype)
        if named is not None:
            return named
    return PeakFlops(_timed_product(device, dtype), "a bare matrix product")


def _from_table(name: str, dtype: torch.dtype) -> PeakFlops | None:
    """None where neither the name nor the kind of number is known."""
    if "MIG" in name:
        return None
    kind = {torch.bfloat16: "bfloat16", torch.float32: "float32"}.get(dtype)
    if kind == "float32" and torch.get_float32_matmul_precision() != "highest":
        kind = "TF32"
    for pattern, bfloat16, tf32, float32 in _PEAKS:
        if re.search(pattern, name):
            # TF32 is a permission: a GPU without such units computes float32.
            peaks = {"bfloat16": bfloat16, "TF32": tf32 or float32, "float32": float32}
            peak = peaks.get(kind or "")
            return None if peak is None else PeakFlops(peak * 1e12, f"{name}, dense {kind}")
    return None


@cache
def _timed_product(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of the products that fit into 0.3 s, at least three."""
    size = _SIZE.get(device.type, 1024)
    left, right = (torch.full((size, size), 0.5, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(left, right, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return 2.0 * size**3 / min(times)
