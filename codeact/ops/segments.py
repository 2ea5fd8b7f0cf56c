"""Sums and means over the segments of a flat stream: one number a sequence from one a token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from codeact.ops._backend import Backend, resolve_backend
from codeact.ops._derivatives import eager_only


@eager_only
def segment_sums(values: Tensor, offsets: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Sum of each segment ``values[offsets[k]:offsets[k + 1]]``, in float64.

    A float32 sum of a thousand token losses has lost three of their digits; in float64 the order
    of the sequences in a batch leaves no trace. Differentiable in both modes.

    Args:
        values: (num_values,) floating point. Those outside of all segments do not count.
        offsets: (num_segments + 1,) int32 or int64, on the same device, rising, at most
            ``num_values``; not read on the host, since that would wait for the device.
        backend: ``"auto"`` is Triton on CUDA tensors, ``"reference"`` elsewhere.

    Returns:
        (num_segments,) float64; 0 for an empty segment.

    Raises:
        ValueError: A shape, dtype or device differs from these.
        RuntimeError: An explicit ``backend`` cannot run here.
    """
    _check(values, offsets)
    if resolve_backend(backend, values, supported=("triton",)) == "triton":
        sums: Tensor = _TritonSums.apply(values, offsets)  # type: ignore[no-untyped-call]
        return sums
    return segment_sums_reference(values, offsets)


def segment_means(values: Tensor, offsets: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Mean of each segment, in float64; NaN for an empty one. Arguments of :func:`segment_sums`."""
    return segment_sums(values, offsets, backend=backend) / offsets.diff()


def segment_sums_reference(values: Tensor, offsets: Tensor) -> Tensor:
    """The definition of :func:`segment_sums` in plain PyTorch."""
    num_segments = len(offsets) - 1
    sums = values.new_zeros(num_segments + 1, dtype=torch.float64)
    return sums.index_add(0, _owners(len(values), offsets), values.double())[:num_segments]


def _owners(num_values: int, offsets: Tensor) -> Tensor:
    """(num_values,) int64: the segment of each value, num_segments for those in none."""
    place = torch.arange(num_values, dtype=offsets.dtype, device=offsets.device)
    owners = torch.searchsorted(offsets, place, right=True) - 1
    return torch.where(owners < 0, len(offsets) - 1, owners)


class _TritonSums(torch.autograd.Function):
    """The sums are linear: the tangent is the sums of the tangent, the gradient a gather."""

    @staticmethod
    def forward(values: Tensor, offsets: Tensor) -> Tensor:
        from codeact.kernels.segment_sums import segment_sums as launch  # Triton is optional

        sums: Tensor = launch(values.contiguous(), offsets.contiguous())
        return sums

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        values, offsets = inputs
        ctx.num_values, ctx.dtype = len(values), values.dtype
        ctx.save_for_backward(offsets)
        ctx.save_for_forward(offsets)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (offsets,) = ctx.saved_tensors
        padded = torch.nn.functional.pad(gradients[0], (0, 1))
        return padded[_owners(ctx.num_values, offsets)].to(ctx.dtype), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        (offsets,) = ctx.saved_tensors
        moved: Tensor = _TritonSums.apply(tangents[0], offsets)  # type: ignore[no-untyped-call]
        return moved


def _check(values: Tensor, offsets: Tensor) -> None:
    if values.ndim != 1 or offsets.ndim != 1 or len(offsets) == 0:
        raise ValueError(
            "segment_sums expects values (num_values,) and offsets (num_segments + 1,), "
            f"got {tuple(values.shape)} and {tuple(offsets.shape)}"
        )
    if not values.is_floating_point():
        raise ValueError(f"values must be floating point, got {values.dtype}")
    if offsets.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"offsets must be int32 or int64, got {offsets.dtype}")
    if offsets.device != values.device:
        raise ValueError(f"offsets must be on {values.device} like values, got {offsets.device}")
