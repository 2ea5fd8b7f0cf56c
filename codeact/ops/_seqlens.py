"""Lengths and capacities as the native packers take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

Seqlens = npt.NDArray[Any] | Tensor | Sequence[int]

MAX_INT32 = np.iinfo(np.int32).max


def checked_int(name: str, value: int, *, least: int = 1, most: int = MAX_INT32) -> int:
    """``value`` as a Python int, if it is an integer from ``least`` to ``most``."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_integer or not least <= value <= most:
        raise ValueError(f"{name} must be an integer from {least} to {most}, got {value!r}")
    return int(value)


def as_int32(
    values: Seqlens, *, name: str = "seqlens", too_large: str = "is above 2**31 - 1"
) -> npt.NDArray[np.int32]:
    """``values`` as contiguous int32; what int32 cannot hold is refused here."""
    if isinstance(values, Tensor):
        if values.dtype.is_floating_point or values.dtype.is_complex:
            raise ValueError(f"{name} must be integers, got {values.dtype}")
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if array.size == 0 and not isinstance(values, np.ndarray):
        array = array.astype(np.int32)  # an empty list has no dtype of its own
    if array.ndim != 1:
        raise ValueError(f"{name} must be 1-D, got {array.ndim}-D")
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be integers, got {array.dtype}")
    if array.dtype.itemsize >= 4 and array.dtype != np.int32:
        outside = (array < 0) | (array > MAX_INT32)
        if outside.any():
            index = int(outside.argmax())
            rule = "is negative" if array[index] < 0 else too_large
            raise ValueError(f"{name}[{index}] = {array[index]} {rule}")
    return np.require(array, dtype=np.int32, requirements=["C", "A"])


def lengths_for(seqlens: Seqlens, capacity: int) -> npt.NDArray[np.int32]:
    """Lengths as int32; that they fit a bin is checked natively, but for those beyond int32."""
    return as_int32(seqlens, too_large=f"does not fit a bin of {capacity} tokens")
