"""Matrix products whose sums are float32 whatever their factors are."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# A half-precision factor is widened this many bytes at a time on a CPU: its own products of half
# precision are emulated, 20 to 50 times slower where there is no AMX.
_WIDENED_BYTES = 16 << 20


@contextlib.contextmanager
def exact_products(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Products of factors of ``dtype`` as they are: no autocast, no TF32 for float32 on CUDA."""
    at_risk = device.type == "cuda" and dtype == torch.float32
    with (
        torch.autocast(device.type, enabled=False),
        _NO_TF32 if at_risk else contextlib.nullcontext(),
    ):
        yield


class _NoTf32:
    """No TF32 while any thread is inside: PyTorch's switch is one for the whole process.

    Were each thread to put back what it found, one that leaves would round what another still
    computes, and one that entered second would leave TF32 off for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0
        self._before: Any = None

    def __enter__(self) -> None:
        settings = torch.backends.cuda.matmul
        with self._lock:
            self._num_inside += 1
            # From torch 2.9 on; allow_tf32 cannot even be read after a caller has set the new one.
            if hasattr(settings, "fp32_precision"):
                if settings.fp32_precision == "tf32":
                    self._before, settings.fp32_precision = "tf32", "ieee"
            elif settings.allow_tf32:
                self._before, settings.allow_tf32 = True, False

    def __exit__(self, *_: object) -> None:
        settings = torch.backends.cuda.matmul
        with self._lock:
            self._num_inside -= 1
            if self._num_inside or self._before is None:
                return
            name = "fp32_precision" if hasattr(settings, "fp32_precision") else "allow_tf32"
            setattr(settings, name, self._before)
            self._before = None


_NO_TF32 = _NoTf32()


def add_product(
    total: Tensor, a: Tensor, b: Tensor, *, alpha: float = 1.0, keep: bool = True
) -> None:
    """``total += alpha * a @ b`` in place; without ``keep`` whatever ``total`` held is dropped."""
    beta = 1.0 if keep else 0.0  # with 0 even a NaN of uninitialised memory is dropped
    if a.dtype == total.dtype:
        torch.addmm(total, a, b, beta=beta, alpha=alpha, out=total)
    else:  # tensor cores sum in float32; this keeps the sum instead of rounding it
        torch.addmm(total, a, b, beta=beta, alpha=alpha, out_dtype=total.dtype, out=total)


def wide_blocks(matrix: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """The rows of ``matrix`` as ``dtype``: all at once where that is no copy, else in blocks.

    Blocks share their memory: each holds until the next is asked for.
    """
    num_rows, dim = matrix.shape
    if matrix.dtype == dtype:
        yield slice(0, num_rows), matrix
        return
    block_rows = max(1, _WIDENED_BYTES // (max(1, dim) * dtype.itemsize))
    block = matrix.new_empty((min(block_rows, num_rows), dim), dtype=dtype)
    for start in range(0, num_rows, block_rows):
        rows = slice(start, min(start + block_rows, num_rows))
        yield rows, block[: rows.stop - start].copy_(matrix[rows])
