"""Attention masks of packed sequences, computed from their boundaries alone."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

Int64Array = NDArray[np.int64]


def seq_idx(cu_seqlens: Tensor) -> Tensor:
    """Which sequence each token belongs to, (num_tokens,) int32: short convolutions ask for it.

    Args:
        cu_seqlens: (num_seqs + 1,) int32 on the CPU (one on a GPU is read back, which waits).
            Empty sequences are allowed; fixed shapes have them at the end.

    Raises:
        ValueError: no token, or boundaries that do not start at 0 or fall.
    """
    seqlens = np.diff(_boundaries(cu_seqlens))
    index = np.repeat(np.arange(len(seqlens), dtype=np.int32), seqlens)
    return torch.from_numpy(index).to(cu_seqlens.device)


def dense_mask(
    cu_seqlens: Tensor,
    *,
    sliding_window: int | None = None,
    dtype: torch.dtype = torch.bool,
    device: torch.device | str | None = None,
) -> Tensor:
    """Block-diagonal causal mask, num_tokens squared entries: 1 GiB of bool at 32,768 tokens.

    Transformers' ``sdpa`` takes the boolean form. Its ``eager`` adds the mask to the scores, where
    True would count as 1 and hide nothing: it needs a floating ``dtype``.

    Args:
        cu_seqlens: (num_seqs + 1,) int32 on the CPU (one on a GPU is read back, which waits).
        sliding_window: how many tokens back a token sees, itself included; None is all.
        dtype: ``torch.bool``, True where a query may look; or a floating type, 0 there and its
            smallest number elsewhere.
        device: where the mask goes; None is where ``cu_seqlens`` is.

    Returns:
        (1, 1, num_tokens, num_tokens) of ``dtype``.

    Raises:
        ValueError: as :func:`seq_idx`, a window below 1, or another ``dtype``.
    """
    if dtype is not torch.bool and not dtype.is_floating_point:
        raise ValueError(f"dtype must be torch.bool or a floating type, got {dtype}")
    device = cu_seqlens.device if device is None else device
    first = torch.from_numpy(_first_seen(cu_seqlens, sliding_window)).to(device)
    token = torch.arange(len(first), dtype=torch.int32, device=device)
    seen = ((token >= first[:, None]) & (token <= token[:, None]))[None, None]
    if dtype is torch.bool:
        return seen
    return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)


def block_mask(
    cu_seqlens: Tensor,
    *,
    block_size: int = 128,
    sliding_window: int | None = None,
    device: torch.device | str | None = None,
) -> PackedBlockMask:
    """The same mask for FlexAttention (arXiv:2412.05496): which blocks a kernel has to visit.

    ``create_block_mask`` evaluates a mask function at num_tokens squared positions; here the blocks
    follow from the boundaries. Query q sees the keys from ``first(q)``, the start of its sequence
    or window, to q. Since ``first`` never falls, a row of blocks touches every block from the one
    its first query looks back to up to its own, and of these the full ones are those that its last
    query sees whole and that end before its first. The same holds for columns, with the last query
    that sees a key. So the work is proportional to the blocks (the tables torch asks for have room
    for every column; only entries in use are written).

    Args:
        cu_seqlens: (num_seqs + 1,) int32 on the CPU (one on a GPU is read back, which waits).
        block_size: tokens along a block's side.
        sliding_window: how many tokens back a token sees, itself included; None is all.
        device: where the mask goes; None is where ``cu_seqlens`` is.

    Returns:
        Shape (1, 1, num_tokens, num_tokens), with the partial and full blocks that
        ``create_block_mask`` finds.

    Raises:
        ValueError: as :func:`seq_idx`, or a window or block size below 1.
    """
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    first = _first_seen(cu_seqlens, sliding_window)
    mask = PackedBlockMask(
        (len(first), len(first)),
        *_row_tables(first, block_size),
        *_column_tables(first, block_size),
        BLOCK_SIZE=(block_size, block_size),
        mask_mod=partial(_sees, torch.from_numpy(first)),
    )
    return mask.to(cu_seqlens.device if device is None else device)


class PackedBlockMask(BlockMask):
    """A ``BlockMask`` that can be pickled, and that moves whole from device to device.

    torch's own ``to`` leaves behind the tensor that ``mask_mod`` reads.
    """

    def to(self, device: torch.device | str) -> PackedBlockMask:
        """The same mask on another device."""
        first: Tensor = self.mask_mod.args[0]  # type: ignore[attr-defined]
        moved = super().to(device)
        moved.__class__ = PackedBlockMask
        moved.mask_mod = partial(_sees, first.to(device))
        return moved  # type: ignore[return-value]


def _sees(first: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return (key >= first[query]) & (key <= query)


def _boundaries(cu_seqlens: Tensor) -> Int64Array:
    """``cu_seqlens`` as checked NumPy integers."""
    if cu_seqlens.ndim != 1 or cu_seqlens.is_floating_point():
        raise ValueError(
            f"cu_seqlens must be a row of integers, got {cu_seqlens.dtype} of shape "
            f"{tuple(cu_seqlens.shape)}"
        )
    bounds = cu_seqlens.cpu().numpy().astype(np.int64)
    if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] < 1 or (np.diff(bounds) < 0).any():
        raise ValueError(
            f"cu_seqlens must rise from 0 to the number of tokens, got {bounds.tolist()}"
        )
    return bounds


def _first_seen(cu_seqlens: Tensor, sliding_window: int | None) -> NDArray[np.int32]:
    """(num_tokens,) the first key each query sees; it never falls."""
    bounds = _boundaries(cu_seqlens)
    first = np.repeat(bounds[:-1], np.diff(bounds))
    if sliding_window is not None:
        if sliding_window < 1:
            raise ValueError(f"sliding_window must be at least 1 or None, got {sliding_window}")
        np.maximum(first, np.arange(len(first)) - (sliding_window - 1), out=first)
    return first.astype(np.int32)


def _row_tables(first: NDArray[np.int32], size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each block of queries its partial and its full blocks of keys."""
    num_tokens = len(first)
    own = np.arange(-(-num_tokens // size))
    last_query = np.minimum((own + 1) * size, num_tokens) - 1
    touched = first[own * size].astype(np.int64) // size
    full_from = -(-first[last_query].astype(np.int64) // size)
    full_to = (own * size + 1) // size  # ends (exclusive) before the first query; own if size is 1
    full_to[last_query + 1 < (own + 1) * size] = 0  # a block that sticks out is never full
    return _tables(touched, own + 1, full_from, full_to)


def _column_tables(first: NDArray[np.int32], size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each block of keys its partial and its full blocks of queries."""
    num_tokens = len(first)
    own = np.arange(-(-num_tokens // size))
    last_key = np.minimum((own + 1) * size, num_tokens) - 1
    # The queries that see key k are those from k to the last one whose first key is at most k.
    ends = np.searchsorted(first, np.stack([own * size, last_key]), side="right")
    touched_end = -(-ends[1] // size)
    full_from = -(-((own + 1) * size - 1) // size)  # the first block that starts at the last key
    return _tables(own, touched_end, full_from, ends[0] // size)


def _tables(
    begin: Int64Array, end: Int64Array, full_begin: Int64Array, full_end: Int64Array
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Counts and indices of the blocks in [begin, end) that are not full, and of the full ones."""
    num_full = np.maximum(full_end - full_begin, 0)
    split = np.where(num_full > 0, full_begin, end)  # without full blocks, one run of partial ones
    rest = np.where(num_full > 0, full_end, end)
    shape = (len(begin), len(begin))
    partial_blocks, full_blocks = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    _write_runs(partial_blocks, begin, split - begin, np.zeros_like(begin))
    _write_runs(partial_blocks, rest, end - rest, split - begin)
    _write_runs(full_blocks, full_begin, num_full, np.zeros_like(begin))
    counts = (split - begin) + (end - rest)
    return (
        torch.from_numpy(counts.astype(np.int32))[None, None],
        torch.from_numpy(partial_blocks)[None, None],
        torch.from_numpy(num_full.astype(np.int32))[None, None],
        torch.from_numpy(full_blocks)[None, None],
    )


def _write_runs(
    table: NDArray[np.int32], start: Int64Array, length: Int64Array, column: Int64Array
) -> None:
    """Write ``start, start + 1, ...`` of each row's ``length`` from its ``column`` on."""
    row = np.repeat(np.arange(len(table)), length)
    step = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
    table[row, column[row] + step] = start[row] + step
