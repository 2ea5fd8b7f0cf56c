"""How a streamed product is cut for a device: tile shapes, splits of the columns, TMA or pointers.

A program sweeps a split of the columns for one block of rows. Few row blocks in flight, each cut
into enough splits to fill the device, keep those rows in L2 while the columns stream past once for
all of them: at dim 4096 on an H100 24 blocks x 6 splits read 0.3 TB/s of columns, where 132 blocks
x 1 split would read their rows again for every tile, 2.9 TB/s.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton import knobs
from triton.tools.tensor_descriptor import TensorDescriptor

ALIGNMENT = 16  # bytes, of a vector load, a cp.async and a TMA descriptor


class Tile(NamedTuple):
    """Shape of a program's tile, and the warps and pipeline stages that work on it."""

    rows: int
    cols: int
    dim: int
    num_warps: int
    num_stages: int


class Device(NamedTuple):
    """What a schedule depends on."""

    capability: tuple[int, int]
    num_sms: int
    l2_bytes: int


class Plan(NamedTuple):
    """How one launch is cut."""

    tile: Tile
    num_splits: int
    num_blocks: int
    dim: int  # of the operands that the kernel reads, zeros added
    tma: bool

    @property
    def grid(self) -> tuple[int]:
        return (self.num_blocks * self.num_splits,)

    def aligned(self, tensor: Tensor) -> Tensor:
        """``tensor`` if the kernel can read it in pieces of 16 bytes, else such a copy of it."""
        granule = _granule(tensor, self.tma)
        if (
            tensor.shape[1] == self.dim
            and tensor.stride(1) == 1
            and tensor.stride(0) % granule == 0
            and (tensor.stride(0) > 0 or not self.tma)
            and tensor.data_ptr() % ALIGNMENT == 0
        ):
            return tensor
        copy = tensor.new_zeros(tensor.shape[0], self.dim)
        copy[:, : tensor.shape[1]] = tensor
        return copy

    def operand(self, tensor: Tensor, block: int) -> Any:
        """What the kernel gets for an aligned tensor: a descriptor of its blocks, or itself."""
        if not self.tma:
            return tensor
        return TensorDescriptor(
            tensor, list(tensor.shape), list(tensor.stride()), [block, self.tile.dim]
        )

    def options(self, dtype: torch.dtype) -> dict[str, Any]:
        """The keyword arguments that every streamed kernel takes."""
        return {
            "BLOCK_ROWS": self.tile.rows,
            "BLOCK_COLS": self.tile.cols,
            "BLOCK_DIM": self.tile.dim,
            "EVEN_DIM": self.dim % self.tile.dim == 0,
            "TMA": self.tma,
            "UPCAST": interprets() and dtype == torch.bfloat16,
            "num_warps": self.tile.num_warps,
            "num_stages": self.tile.num_stages,
            "enable_fp_fusion": True,  # Triton 3.10 changes the default, and with it the bits
        }


# By what compiles without a spilled register (tests/kernels/test_ahead_of_time.py), the largest
# first; 128 x 256 needs wgmma's or a larger register file than mma.sync leaves.
_WGMMA = Tile(128, 256, 64, num_warps=8, num_stages=3)  # 144 KiB of shared memory
_TCGEN05 = Tile(128, 128, 64, num_warps=8, num_stages=4)  # 128 KiB
_MMA_SYNC = Tile(128, 128, 64, num_warps=8, num_stages=4)  # 96 KiB, fits sm_86 and sm_120 too
# No tensor core multiplies float32 without rounding it first.
_FLOAT32 = Tile(128, 128, 16, num_warps=8, num_stages=3)
# Two accumulators and up to four operands: 128 x 256 would spill 2440 bytes.
_DUAL_WGMMA = Tile(128, 128, 64, num_warps=8, num_stages=3)  # 192 KiB
_DUAL_NARROW = Tile(128, 64, 64, num_warps=8, num_stages=3)  # 96 KiB
_DUAL_FLOAT32 = Tile(64, 64, 16, num_warps=8, num_stages=3)
_INTERPRETED = Tile(32, 64, 32, num_warps=1, num_stages=1)
# Small constants in the interpreter, so that small tests meet several blocks, splits and merges.
_INTERPRETER = Device((8, 0), num_sms=4, l2_bytes=2**15)


def lse_tile(element_size: int, capability: tuple[int, int]) -> Tile:
    """The tile of a kernel with one accumulator."""
    if element_size == 4:
        return _FLOAT32
    return {9: _WGMMA, 10: _TCGEN05}.get(capability[0], _MMA_SYNC)


def tangent_tile(element_size: int, capability: tuple[int, int]) -> Tile:
    """The tile of a kernel with an accumulator for the products and one for their tangents."""
    if element_size == 4:
        return _DUAL_FLOAT32
    return _DUAL_WGMMA if capability[0] == 9 else _DUAL_NARROW


def narrow_tangent_tile(element_size: int, capability: tuple[int, int]) -> Tile:
    """The same where a softcap meets a moving bias, which in the wider tile spills 160 bytes."""
    return _DUAL_FLOAT32 if element_size == 4 else _DUAL_NARROW


def interprets() -> bool:
    """Whether kernels run in Triton's interpreter."""
    return bool(knobs.runtime.interpret)


def plan(
    rows: Tensor,
    columns: Tensor,
    tile_of: Callable[[int, tuple[int, int]], Tile],
    *,
    num_splits: int | None = None,
    tma: bool | None = None,
) -> Plan:
    """The schedule of a product of (num_rows, dim) rows and (num_columns, dim) columns.

    Args:
        tile_of: the kernel's tile for an element size and a capability, like :func:`lse_tile`.
        num_splits, tma: for tests; chosen if None.
    """
    if interprets():
        device, tile = _INTERPRETER, _INTERPRETED
    else:
        device = device_of(rows.device.index)
        tile = tile_of(rows.element_size(), device.capability)
    if tma is None:
        # float32 is multiplied outside the tensor cores and gains nothing from descriptors.
        tma = device.capability >= (9, 0) and rows.element_size() == 2
    num_rows, dim = rows.shape
    tma = tma and rows.numel() > 0 and columns.numel() > 0  # a descriptor of nothing is refused
    num_blocks = triton.cdiv(num_rows, tile.rows)
    if num_splits is None:
        block_bytes = tile.rows * dim * rows.element_size()
        num_tiles = triton.cdiv(columns.shape[0], tile.cols)
        num_splits = best_num_splits(num_blocks, num_tiles, block_bytes, device)
    granule = _granule(rows, tma)
    return Plan(tile, num_splits, num_blocks, triton.cdiv(dim, granule) * granule, tma)


def best_num_splits(num_blocks: int, num_tiles: int, block_bytes: int, device: Device) -> int:
    """Splits of the columns that keep the row blocks in flight within half of the L2.

    Of the counts up to twice the least, the one whose waves of programs end soonest.
    """
    in_flight = max(1, device.l2_bytes // 2 // max(1, block_bytes))
    least = triton.cdiv(device.num_sms, min(in_flight, num_blocks))
    most = max(1, num_tiles)

    def time(num_splits: int) -> int:  # in tiles
        waves = triton.cdiv(num_blocks * num_splits, device.num_sms)
        return int(waves * triton.cdiv(num_tiles, num_splits))

    candidates = range(min(least, most), min(2 * least, most) + 1)
    return min(candidates, key=lambda num_splits: (time(num_splits), num_splits))


@functools.cache
def device_of(index: int) -> Device:
    properties = torch.cuda.get_device_properties(index)
    return Device(
        (properties.major, properties.minor),
        properties.multi_processor_count,
        properties.L2_cache_size,
    )


def _granule(tensor: Tensor, tma: bool) -> int:
    """What must divide ``dim`` and the distance between rows, in elements."""
    # Triton knows of a number only whether 16 divides it; unless it knows, pointers load element by
    # element, which needs more registers than there are.
    return ALIGNMENT // tensor.element_size() if tma else 16
