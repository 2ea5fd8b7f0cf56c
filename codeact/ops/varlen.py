"""One flat stream of tokens: the batch every pass of a model over data takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codeact.ops.gather import pack_layout

IGNORE_INDEX = -100
"""The label of a position that carries no loss (PyTorch's and transformers' value)."""


@dataclass(frozen=True)
class PackedBatch:
    """Several sequences laid end to end, nothing padded, none seeing another.

    ``rows`` and ``targets`` say where a loss stands: hidden state ``rows[i]`` predicts token
    ``targets[i]``. They are fixed on the CPU when the batch is built, so that no pass over it
    has to wait for the device.

    Attributes:
        input_ids: (num_tokens,) int64.
        position_ids: (num_tokens,) int64, restarting at 0 in each sequence.
        cu_seqlens: (num_seqs + 1,) int32, running sum of the lengths from 0.
        max_seqlen: longest sequence.
        rows: (num_rows,) int64, positions whose next token carries a loss.
        targets: (num_rows,) int64, that next token.
        cu_rows: (num_seqs + 1,) int64 on the CPU; the rows of sequence k are
            ``rows[cu_rows[k]:cu_rows[k + 1]]``.
    """

    input_ids: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    rows: Tensor
    targets: Tensor
    cu_rows: NDArray[np.int64]

    @property
    def num_tokens(self) -> int:
        """Tokens in the stream."""
        return self.input_ids.numel()

    @property
    def num_seqs(self) -> int:
        """Sequences in the stream."""
        return self.cu_seqlens.numel() - 1

    @property
    def labels(self) -> Tensor:
        """(num_tokens,) int64: ``input_ids`` where a loss stands, ``IGNORE_INDEX`` elsewhere."""
        labels = torch.full_like(self.input_ids, IGNORE_INDEX)
        labels[self.rows + 1] = self.targets
        return labels

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on another device; copies to a GPU do not wait if the source is pinned."""
        to_gpu = torch.device(device).type == "cuda"
        moved: dict[str, Any] = {
            field.name: value.to(device, non_blocking=to_gpu)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)

    def model_inputs(self) -> dict[str, Any]:
        """Keyword arguments for a transformers model, see :func:`model_inputs`."""
        seqlens = self.cu_seqlens.diff()
        seq_idx = torch.repeat_interleave(
            torch.arange(self.num_seqs, dtype=torch.int32, device=seqlens.device),
            seqlens,
            output_size=self.num_tokens,
        )
        return model_inputs(
            self.input_ids, self.position_ids, seq_idx, self.cu_seqlens, self.max_seqlen
        )


def model_inputs(
    input_ids: Tensor, position_ids: Tensor, seq_idx: Tensor, cu_seqlens: Tensor, max_seqlen: int
) -> dict[str, Any]:
    """A flat stream as one row for a transformers model, isolated by every backend.

    ``attention_mask`` is absent because its presence switches off the detection of packed
    sequences, and ``use_cache`` is False because a cache does the same.
    """
    return {
        "input_ids": input_ids[None],
        "position_ids": position_ids[None],
        "cu_seq_lens_q": cu_seqlens,
        "cu_seq_lens_k": cu_seqlens,
        "max_length_q": max_seqlen,
        "max_length_k": max_seqlen,
        "seq_idx": seq_idx[None],
        "use_cache": False,
    }


def pack_sequences(
    input_ids: Sequence[NDArray[np.integer[Any]]], labels: Sequence[NDArray[np.integer[Any]]]
) -> PackedBatch:
    """Lay sequences end to end.

    Args:
        input_ids: one (seqlen,) integer array a sequence; none may be empty.
        labels: arrays of the same lengths, aligned with ``input_ids`` and unshifted;
            ``IGNORE_INDEX`` where a token carries no loss. The first token of a sequence never
            carries one: nothing stands before it to predict it.

    Raises:
        ValueError: no sequence, an empty one, lengths that differ, or values that are no integers.
    """
    return pack_flat(*lay_flat(input_ids, labels))


def lay_flat(
    input_ids: Sequence[NDArray[np.integer[Any]]], labels: Sequence[NDArray[np.integer[Any]]]
) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
    """Sequences as :func:`pack_sequences` takes them, as :func:`pack_flat` does."""
    seqlens = np.array([len(ids) for ids in input_ids], dtype=np.int64)
    if [len(row) for row in labels] != seqlens.tolist():
        raise ValueError("pack_sequences needs labels as long as input_ids, sequence by sequence")
    if len(seqlens) == 0:
        raise ValueError("pack_sequences needs non-empty sequences, got none")
    flat = [np.concatenate(rows) for rows in (input_ids, labels)]
    for name, values in zip(("input_ids", "labels"), flat, strict=True):
        # An empty list is a row of floats; that it is empty is said by who lays the batch out.
        if not np.issubdtype(values.dtype, np.integer) and seqlens.all():
            raise ValueError(f"pack_sequences needs integers, got {name} of {values.dtype}")
    flat_ids, flat_labels = (torch.from_numpy(values.astype(np.int64)) for values in flat)
    return flat_ids, flat_labels, seqlens


def pack_flat(input_ids: Tensor, labels: Tensor, seqlens: NDArray[np.int64]) -> PackedBatch:
    """The batch of sequences that lie end to end already.

    Args:
        input_ids: (num_tokens,) int64 on the CPU.
        labels: (num_tokens,) int64, unshifted. The first of each sequence is set to
            ``IGNORE_INDEX``, in place.
        seqlens: (num_seqs,) lengths, at least 1, that sum to num_tokens.

    Raises:
        ValueError: no sequence or an empty one, or lengths with another sum.
    """
    starts = mask_first(labels, seqlens)
    layout = pack_layout(seqlens)
    flat_labels = labels.numpy()
    carries_loss = np.flatnonzero(flat_labels != IGNORE_INDEX)
    bounds = np.append(starts, len(flat_labels))
    return PackedBatch(
        input_ids=input_ids,
        position_ids=layout.position_ids,
        cu_seqlens=layout.cu_seqlens,
        max_seqlen=int(seqlens.max()),
        rows=torch.from_numpy(carries_loss - 1),
        targets=torch.from_numpy(flat_labels[carries_loss]),
        cu_rows=np.searchsorted(carries_loss, bounds),
    )


def mask_first(labels: Tensor, seqlens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Set the first label of each sequence to ``IGNORE_INDEX`` in place; returns the starts.

    Raises:
        ValueError: no sequence or an empty one, or lengths that do not sum to the labels.
    """
    ends = np.cumsum(seqlens)
    if len(seqlens) == 0 or (seqlens < 1).any() or ends[-1] != labels.numel():
        raise ValueError(
            f"{labels.numel()} tokens need non-empty sequences that sum to them, "
            f"got lengths {seqlens.tolist()}"
        )
    starts = ends - seqlens
    labels.numpy()[starts] = IGNORE_INDEX
    return starts
