"""Squared distances in few dimensions on the CPU, reduced as they are made: csrc/row_reduce.h."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from codeact import _C

# Above it a matrix product and a pass over its tile are faster. On one core of a Zen 3 server a
# pair takes 0.36 ns in 10 dimensions and 1.2 ns in 32, where both ways take as long.
FEW_DIMS = 32

# Terms left out of a sum are together below num_samples * exp(-cutoff) of it: 2e-11.
_CUTOFF_NATS = 25.0


def takes(points: Tensor, samples: Tensor) -> bool:
    """Whether these are for the functions below: finite, on the CPU, in 1 to FEW_DIMS dimensions.

    A square that overflows to infinity is for them too; a NaN is not.
    """
    return (
        points.is_cpu
        and points.dtype == torch.float32
        and 1 <= points.shape[1] <= FEW_DIMS
        and bool(points.isfinite().all())
        and bool(samples.isfinite().all())
    )


def square_lse(points: Tensor, samples: Tensor, scale: float) -> Tensor:
    """(num_points,) float64, ``log sum_j exp(-scale |points[i] - samples[j]|^2 / 2)``."""
    points, by_dim = points.contiguous(), _by_dimension(samples)
    maximum = torch.empty(len(points), dtype=torch.float32, device="cpu")
    total = torch.empty(len(points), dtype=torch.float64, device="cpu")
    _C.square_lse(
        points.data_ptr(),
        len(points),
        by_dim.data_ptr(),
        len(samples),
        by_dim.shape[1],
        points.shape[1],
        scale,
        math.log(len(samples)) + _CUTOFF_NATS,
        maximum.data_ptr(),
        total.data_ptr(),
        torch.get_num_threads(),
    )
    return total.log() + maximum


def square_nearest(
    points: Tensor, samples: Tensor, excluded: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Index of the nearest sample, of equal ones the lowest, -1 for none; its squared distance."""
    points, by_dim = points.contiguous(), _by_dimension(samples)
    excluded = None if excluded is None else excluded.contiguous()
    best = torch.empty(len(points), dtype=torch.float32, device="cpu")
    index = torch.empty(len(points), dtype=torch.int64, device="cpu")
    _C.square_max(
        points.data_ptr(),
        len(points),
        by_dim.data_ptr(),
        len(samples),
        by_dim.shape[1],
        points.shape[1],
        0 if excluded is None else excluded.data_ptr(),
        best.data_ptr(),
        index.data_ptr(),
        torch.get_num_threads(),
    )
    return index, -2 * best


def _by_dimension(samples: Tensor) -> Tensor:
    """(dim, num_samples rounded up to 64): the kernel takes neighbouring samples at once."""
    num_samples, dim = samples.shape
    laid_out = samples.new_zeros(dim, -(-num_samples // 64) * 64)
    laid_out[:, :num_samples] = samples.t()
    return laid_out
