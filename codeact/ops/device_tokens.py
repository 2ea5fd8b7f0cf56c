"""Tokens that live on the device, and batches gathered there."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from codeact import _C
from codeact.ops._backend import Backend, resolve_backend
from codeact.ops._seqlens import MAX_INT32
from codeact.ops.varlen import IGNORE_INDEX, PackedBatch


class TokenArrays(Protocol):
    """Flat arrays of integers; example k is ``[offsets[k], offsets[k + 1])`` of both.

    ``codeact.data.TokenizedExamples`` and ``codeact.packing.FlatTokens`` are such stores.
    """

    @property
    def input_ids(self) -> NDArray[np.integer[Any]]: ...
    @property
    def labels(self) -> NDArray[np.integer[Any]]: ...
    @property
    def offsets(self) -> NDArray[np.int64]: ...


class DeviceTokens:
    """A token store copied to a device once; 8 bytes a token there.

    Batches are then gathered where they are used: no worker, no collation, and one small copy from
    the host instead of the batch.

    Attributes:
        input_ids: (total,) int32 on the device.
        labels: (total,) int32 on the device, unshifted.
        starts: (num_seqs,) int64 on the CPU, the first token of each sequence.
        stops: (num_seqs,) int64 on the CPU, the token after its last.
        num_scored: (num_seqs,) int64 on the CPU: labels that are not ``IGNORE_INDEX``, the first
            of each sequence left out.
    """

    def __init__(
        self,
        store: TokenArrays,
        *,
        device: torch.device | str,
        spans: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    ) -> None:
        """Copies the store, through as much memory on the host.

        Args:
            store: flat arrays.
            device: where they go.
            spans: ``(starts, stops)`` of the sequences in the arrays, (num_seqs,) each, for a plan
                that cuts or splits examples. None: the examples.

        Raises:
            ValueError: offsets that fall, sequences that leave the arrays, arrays of different
                lengths, or values that int32 does not hold.
        """
        input_ids, labels = (
            _as_int32("input_ids", store.input_ids),
            _as_int32("labels", store.labels),
        )
        if len(input_ids) != len(labels):
            raise ValueError(
                f"labels must be as long as input_ids ({len(input_ids)} tokens), got {len(labels)}"
            )
        bounds = _examples(store.offsets, len(labels)) if spans is None else spans
        self.starts, self.stops = _checked_bounds(*bounds, len(labels))
        self.num_scored = _num_scored(labels, self.starts, self.stops)
        self.input_ids = torch.from_numpy(input_ids).to(device)
        self.labels = torch.from_numpy(labels).to(device)

    def __len__(self) -> int:
        return len(self.starts)

    def gather(self, sequences: ArrayLike, *, backend: Backend = "auto") -> PackedBatch:
        """The batch of some sequences, in the given order, on the device.

        Equal to :func:`~codeact.ops.pack_sequences` of them. Its sizes are known on the
        host, so nothing waits for the device; with ``"cuda"`` it is one copy of
        ``24 len(sequences)`` bytes and one launch.

        Args:
            sequences: their numbers, of at least one token each.
            backend: ``"auto"`` is CUDA on CUDA tensors, ``"reference"`` elsewhere.

        Raises:
            ValueError: no sequence, a number out of range, an empty sequence, or more than
                2**31 - 1 tokens.
        """
        layout = self._layout(sequences)
        if resolve_backend(backend, self.input_ids, supported=("cuda",)) == "cuda":
            return _gather_cuda(self.input_ids, self.labels, layout)
        return gather_pack_reference(self.input_ids, self.labels, layout)

    def _layout(self, sequences: ArrayLike) -> GatherLayout:
        seqs = np.asarray(sequences)
        if seqs.ndim != 1 or not np.issubdtype(seqs.dtype, np.integer) or len(seqs) == 0:
            raise ValueError(
                "sequences must be a non-empty row of integers, "
                f"got {seqs.dtype} of shape {seqs.shape}"
            )
        if seqs.min() < 0 or seqs.max() >= len(self):
            raise ValueError(
                f"sequences must lie in [0, {len(self)}), got {seqs.min()} to {seqs.max()}"
            )
        starts = self.starts[seqs]
        seqlens = self.stops[seqs] - starts
        if seqlens.min() == 0:
            raise ValueError(f"sequence {seqs[seqlens.argmin()]} has no token")
        cu_tokens, cu_rows = _running_sum(seqlens), _running_sum(self.num_scored[seqs])
        if cu_tokens[-1] > MAX_INT32:
            raise ValueError(f"sequences hold {cu_tokens[-1]} tokens, more than {MAX_INT32}")
        return GatherLayout(starts, cu_tokens, cu_rows, int(seqlens.max()))


class GatherLayout(NamedTuple):
    """Which tokens of a store make a batch, and where they go; all on the CPU.

    Attributes:
        starts: (num_seqs,) int64, first token of each sequence in the store.
        cu_tokens: (num_seqs + 1,) int64, running sum of the lengths from 0.
        cu_rows: (num_seqs + 1,) int64, running sum of the scored tokens from 0.
        max_seqlen: the longest length.
    """

    starts: NDArray[np.int64]
    cu_tokens: NDArray[np.int64]
    cu_rows: NDArray[np.int64]
    max_seqlen: int


def gather_pack_reference(input_ids: Tensor, labels: Tensor, layout: GatherLayout) -> PackedBatch:
    """The definition of :meth:`DeviceTokens.gather`; waits for the device to count the rows."""
    device = input_ids.device
    starts, cu_tokens = (
        torch.from_numpy(bounds).to(device) for bounds in (layout.starts, layout.cu_tokens)
    )
    seq = torch.repeat_interleave(cu_tokens.diff())
    token = torch.arange(len(seq), device=device)
    position_ids = token - cu_tokens[seq]
    source = starts[seq] + position_ids
    batch_labels = labels[source].long()
    (scored,) = torch.where((batch_labels != IGNORE_INDEX) & (position_ids > 0))
    return PackedBatch(
        input_ids=input_ids[source].long(),
        position_ids=position_ids,
        cu_seqlens=cu_tokens.int(),
        max_seqlen=layout.max_seqlen,
        rows=scored - 1,
        targets=batch_labels[scored],
        cu_rows=layout.cu_rows,
    )


def _gather_cuda(input_ids: Tensor, labels: Tensor, layout: GatherLayout) -> PackedBatch:
    num_seqs = len(layout.starts)
    bounds = layout[:3]
    # Pinned by PyTorch's caching allocator, which reuses the block only after the copy is done.
    host = torch.empty(sum(map(len, bounds)), dtype=torch.int64, pin_memory=True)
    np.concatenate(bounds, out=host.numpy())
    with torch.cuda.device(input_ids.device):
        on_device = host.to(input_ids.device, non_blocking=True)
        starts, cu_tokens, cu_rows = on_device.split([*map(len, bounds)])
        num_tokens, num_rows = int(layout.cu_tokens[-1]), int(layout.cu_rows[-1])
        ids, position_ids = (on_device.new_empty(num_tokens) for _ in range(2))
        rows, targets = (on_device.new_empty(num_rows) for _ in range(2))
        cu_seqlens = on_device.new_empty(num_seqs + 1, dtype=torch.int32)
        _C.gather_pack(
            input_ids.data_ptr(),
            labels.data_ptr(),
            starts.data_ptr(),
            cu_tokens.data_ptr(),
            cu_rows.data_ptr(),
            num_seqs,
            IGNORE_INDEX,
            ids.data_ptr(),
            position_ids.data_ptr(),
            cu_seqlens.data_ptr(),
            rows.data_ptr(),
            targets.data_ptr(),
            torch.cuda.current_stream().cuda_stream,
        )
    return PackedBatch(
        ids, position_ids, cu_seqlens, layout.max_seqlen, rows, targets, layout.cu_rows
    )


def _running_sum(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])


def _as_int32(name: str, values: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """A copy, so that the tensor made of it is writable even if `values` is a read-only file."""
    values = np.asarray(values)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(
            f"{name} must be a row of integers, got {values.dtype} of shape {values.shape}"
        )
    limits = np.iinfo(np.int32)
    if not np.can_cast(values.dtype, np.int32) and len(values):
        least, most = int(values.min()), int(values.max())
        if least < limits.min or most > limits.max:
            raise ValueError(f"{name} must fit int32, got values from {least} to {most}")
    return np.array(values, dtype=np.int32)


def _examples(
    offsets: NDArray[np.int64], num_tokens: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and stops from checked offsets."""
    bounds: NDArray[np.int64] = np.array(offsets, dtype=np.int64)
    is_row = bounds.ndim == 1 and len(bounds) > 0
    if not is_row or bounds[0] < 0 or bounds[-1] > num_tokens or (np.diff(bounds) < 0).any():
        raise ValueError(f"offsets must rise within [0, {num_tokens}] and name at least one place")
    return bounds[:-1], bounds[1:]


def _checked_bounds(
    starts: NDArray[np.int64], stops: NDArray[np.int64], num_tokens: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    starts, stops = (np.array(bounds, dtype=np.int64) for bounds in (starts, stops))
    if starts.ndim != 1 or starts.shape != stops.shape:
        raise ValueError(
            f"spans must be two rows of one length, got shapes {starts.shape} and {stops.shape}"
        )
    outside = (starts < 0) | (stops < starts) | (stops > num_tokens)
    if outside.any():
        seq = int(outside.argmax())
        raise ValueError(
            f"span {seq} = [{starts[seq]}, {stops[seq]}) does not lie in {num_tokens} tokens"
        )
    return starts, stops


def _num_scored(
    labels: NDArray[np.int32], starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Labels of each sequence that carry a loss."""
    scored = np.zeros(len(labels) + 1, dtype=np.bool_)  # one more, so that a stop is a place too
    np.not_equal(labels, IGNORE_INDEX, out=scored[:-1])
    seconds = np.minimum(starts + 1, stops)
    # Of two places that follow each other reduceat sums what lies between: here, every other time,
    # a sequence without its first token. Where nothing does, it gives what stands there.
    places = np.stack([seconds, stops], axis=1).reshape(-1)
    num_scored = np.add.reduceat(scored, places, dtype=np.int64)[::2]
    num_scored[seconds == stops] = 0
    return num_scored
