"""Matrix products whose sums are float32 whatever their factors are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

# A half-precision factor is widened this many bytes at a time on a CPU: its own products of half
# precision are emulated, 20 to 50 times slower where there is no AMX.
_WIDENED_BYTES = 16 << 20


@contextlib.contextmanager
def exact_products(like: Tensor) -> Iterator[None]:
    """Products in the dtype of their factors: no autocast, and no TF32 for float32 on CUDA."""
    with torch.autocast(like.device.type, enabled=False):
        if not like.is_cuda or like.dtype != torch.float32:
            yield
            return
        settings = torch.backends.cuda.matmul
        # From torch 2.9 on; allow_tf32 cannot even be read after a caller has set the new one.
        name, exact = (
            ("fp32_precision", "ieee")
            if hasattr(settings, "fp32_precision")
            else ("allow_tf32", False)
        )
        before = getattr(settings, name)
        setattr(settings, name, exact)
        try:
            yield
        finally:
            setattr(settings, name, before)


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
