"""From the spans of a bin to the batch that a transformers model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from codeact.errors import InputError
from codeact.ops.gather import PackLayout, gather_tokens, pack_layout
from codeact.ops.varlen import (
    IGNORE_INDEX,
    PackedBatch,
    lay_flat,
    mask_first,
    model_inputs,
    pack_flat,
)
from codeact.packing.checks import check_number, checked_weights
from codeact.packing.dataset import SpanFeatures
from codeact.packing.layer_masks import Mask, Windows, attention_masks

LossNorm = Literal["token", "sample"]


class _Flat(NamedTuple):
    """Sequences end to end, the last one padding where a fixed shape has room."""

    input_ids: Tensor
    labels: Tensor
    seqlens: NDArray[np.int64]
    weights: NDArray[np.float64] | None  # of each sequence, except the padding
    num_scored: NDArray[np.int64] | None  # of the example each is part of


class PackedCollator:
    """Lays the spans of a bin end to end.

    A batch is the keyword arguments of a transformers model: int64 ``input_ids``, ``labels`` and
    ``position_ids`` (1, num_tokens), int32 ``cu_seq_lens_q`` and ``cu_seq_lens_k`` (num_seqs + 1,),
    Python ints ``max_length_q`` and ``max_length_k``, int32 ``seq_idx`` (1, num_tokens) and
    ``use_cache`` False. The first label of every span is ``IGNORE_INDEX``, so that no span is asked
    to predict the next one.

    Features are what :class:`PackedDataset` yields, or dicts of any dataset with ``input_ids`` and
    ``labels``, optionally ``weight``, and ``seq_lengths`` where a row holds several sequences.

    Args:
        loss_norm: ``"token"`` counts every scored token alike. ``"sample"`` counts every example
            alike, however many scored tokens it has, and adds ``loss_weights`` (1, num_tokens)
            float32: the weight of the loss at each label, 0 where there is none. They are 1 over
            the scored tokens of the example (a training loss is then the weighted sum over the sum
            of the weights). A feature's ``weight`` multiplies them under either norm.
        fixed_shape: ``(num_tokens, num_seqs)`` of every batch, for ``torch.compile`` and CUDA
            graphs. One more sequence of zeros without labels fills the tokens up, empty sequences
            fill ``cu_seq_lens_q`` up, and ``max_length_q`` is rounded up to a power of two. Bins of
            every epoch fit ``(plan.capacity, plan.max_num_seqs + 1)``.
        mask: adds an ``attention_mask`` for an attention that reads no boundaries: ``"dense"`` a
            boolean one (transformers' ``sdpa``), ``"additive"`` a float32 one (``eager``, which
            would add a boolean one to the scores and hide nothing), ``"flex"`` a ``BlockMask``
            (``flex_attention``). None is right for ``attn_implementation="codeact"`` and for
            FlashAttention, and also isolates in the others as long as ``use_cache`` stays False.
        sliding_window: of the model's layers, for ``mask``: tokens seen back, None for all, or a
            dict of these by layer type for a model that mixes them, see :func:`layer_windows`.
        pin_memory: put the tensors of tokens in pinned memory. In the process that trains only;
            with worker processes let the loader pin.

    Raises:
        InputError: an option is not one of these; a batch is empty, has an empty span, or does not
            fit ``fixed_shape``.
        RuntimeError: pinned memory without CUDA, or in a worker process.
    """

    def __init__(
        self,
        *,
        loss_norm: LossNorm = "token",
        fixed_shape: tuple[int, int] | None = None,
        mask: Mask | None = None,
        sliding_window: Windows = None,
        pin_memory: bool = False,
    ) -> None:
        if loss_norm not in get_args(LossNorm):
            raise InputError(f"loss_norm must be token or sample, got {loss_norm!r}")
        if mask is not None and mask not in get_args(Mask):
            raise InputError(f"mask must be dense, additive, flex or None, got {mask!r}")
        if fixed_shape is not None:
            if len(fixed_shape) != 2:
                raise InputError(f"fixed_shape must be (num_tokens, num_seqs), got {fixed_shape}")
            for name, size in zip(("num_tokens", "num_seqs"), fixed_shape, strict=True):
                check_number(f"{name} of fixed_shape", size, 1, 2**31 - 1)
        if pin_memory and not torch.cuda.is_available():
            raise RuntimeError("pin_memory needs CUDA, and there is none here")
        self.loss_norm, self.fixed_shape, self.mask = loss_norm, fixed_shape, mask
        self.sliding_window, self.pin_memory = sliding_window, pin_memory

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        flat = self._flat(features)
        mask_first(flat.labels, flat.seqlens)
        position_ids, seq_idx, _ = layout = self._layout(flat.seqlens)
        cu_seqlens, max_seqlen = self._boundaries(layout.cu_seqlens, flat.seqlens)
        batch = model_inputs(flat.input_ids, position_ids, seq_idx, cu_seqlens, max_seqlen)
        batch["labels"] = flat.labels[None]
        if self.loss_norm == "sample" or flat.weights is not None:
            batch["loss_weights"] = self._loss_weights(flat)[None]
        if self.mask is not None:
            batch["attention_mask"] = attention_masks(cu_seqlens, self.mask, self.sliding_window)
        return batch

    def pack(self, features: Sequence[Mapping[str, Any]]) -> PackedBatch:
        """The same batch as a :class:`PackedBatch`, which has neither weights nor a mask."""
        flat = self._flat(features)
        batch = pack_flat(flat.input_ids, flat.labels, flat.seqlens)
        cu_seqlens, max_seqlen = self._boundaries(batch.cu_seqlens, flat.seqlens)
        num_empty = len(cu_seqlens) - len(batch.cu_rows)
        cu_rows = np.pad(batch.cu_rows, (0, num_empty), mode="edge")
        return replace(batch, cu_seqlens=cu_seqlens, max_seqlen=max_seqlen, cu_rows=cu_rows)

    def _flat(self, features: Sequence[Mapping[str, Any]]) -> _Flat:
        if len(features) == 0:
            raise InputError("a batch needs at least one span, got none")
        if isinstance(features, SpanFeatures):
            seqlens = features.stops - features.starts
            extra: dict[str, NDArray[Any]] = features.extra
        else:
            rows = [
                [np.asarray(feature[column]) for feature in features]
                for column in ("input_ids", "labels")
            ]
            flat_ids, flat_labels, seqlens = lay_flat(*rows)
            seqlens, extra = _rest_of(features, seqlens)
        total = int(seqlens.sum())
        shape = self._checked_shape(total, len(seqlens))
        input_ids, labels = self._empty(shape, torch.int64), self._empty(shape, torch.int64)
        if isinstance(features, SpanFeatures):
            store, starts, stops = features.store, features.starts, features.stops
            gather_tokens(store.input_ids, starts, stops, out=input_ids[:total])
            gather_tokens(store.labels, starts, stops, out=labels[:total])
        else:
            input_ids[:total], labels[:total] = flat_ids, flat_labels
        if shape > total:
            input_ids[total:], labels[total:] = 0, IGNORE_INDEX
            seqlens = np.append(seqlens, shape - total)
        return _Flat(input_ids, labels, seqlens, extra.get("weight"), extra.get("num_scored"))

    def _checked_shape(self, num_tokens: int, num_seqs: int) -> int:
        """Tokens of the batch; what does not fit the fixed shape is refused."""
        if self.fixed_shape is None:
            return num_tokens
        most_tokens, most_seqs = self.fixed_shape
        if num_tokens > most_tokens:
            raise InputError(
                f"a bin of {num_tokens} tokens does not fit fixed_shape = {self.fixed_shape}"
            )
        padding = int(num_tokens < most_tokens)
        if num_seqs + padding > most_seqs:
            raise InputError(
                f"a bin of {num_seqs} spans{' and one of padding' if padding else ''} does not fit "
                f"fixed_shape = {self.fixed_shape}"
            )
        return most_tokens

    def _empty(self, size: int, dtype: torch.dtype) -> Tensor:
        if self.pin_memory and get_worker_info() is not None:
            raise RuntimeError(
                "pin_memory works in the process that trains; with num_workers > 0 set it on the "
                "DataLoader instead"
            )
        return torch.empty(size, dtype=dtype, pin_memory=self.pin_memory)

    def _layout(self, seqlens: NDArray[np.int64]) -> PackLayout:
        if not self.pin_memory:
            return pack_layout(seqlens)
        total = int(seqlens.sum())
        position_ids, seq_idx = self._empty(total, torch.int64), self._empty(total, torch.int32)
        cu_seqlens = self._empty(len(seqlens) + 1, torch.int32)
        return pack_layout(seqlens, out=PackLayout(position_ids, seq_idx, cu_seqlens))

    def _boundaries(self, cu_seqlens: Tensor, seqlens: NDArray[np.int64]) -> tuple[Tensor, int]:
        """``cu_seqlens`` and the longest sequence, as a fixed shape has them."""
        longest = int(seqlens.max())
        if self.fixed_shape is None:
            return cu_seqlens, longest
        num_tokens, num_seqs = self.fixed_shape
        padded = self._empty(num_seqs + 1, torch.int32).fill_(num_tokens)
        padded[: len(cu_seqlens)] = cu_seqlens
        return padded, min(1 << (longest - 1).bit_length(), num_tokens)

    def _loss_weights(self, flat: _Flat) -> Tensor:
        """(num_tokens,) float32; the first labels are masked already."""
        scored = flat.labels.numpy() != IGNORE_INDEX
        by_seq = np.ones(len(flat.seqlens))
        if flat.weights is not None:
            by_seq[: len(flat.weights)] = flat.weights
        if self.loss_norm == "sample":
            parts = np.split(scored, np.cumsum(flat.seqlens)[:-1])
            counts = np.array([np.count_nonzero(part) for part in parts])
            if flat.num_scored is not None:
                counts[: len(flat.num_scored)] = flat.num_scored
            by_seq /= np.maximum(counts, 1)  # without a scored label there is nothing to weigh
        return torch.from_numpy(np.repeat(by_seq.astype(np.float32), flat.seqlens) * scored)


def _rest_of(
    features: Sequence[Mapping[str, Any]], seqlens: NDArray[np.int64]
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Lengths of the sequences in dicts of these lengths, and what is said of each sequence."""
    parts = [
        np.asarray(feature.get("seq_lengths", [seqlen]), dtype=np.int64)
        for feature, seqlen in zip(features, seqlens, strict=True)
    ]
    totals = [int(part.sum()) for part in parts]
    if totals != seqlens.tolist():
        raise InputError(
            f"seq_lengths must sum to the lengths of input_ids, got {totals} for {seqlens.tolist()}"
        )
    counts = [len(part) for part in parts]
    columns = {}
    if any("weight" in feature for feature in features):
        weights = [feature.get("weight", 1.0) for feature in features]
        columns["weight"] = np.repeat(checked_weights(weights, len(features)), counts)
    if all("num_scored" in feature for feature in features):
        columns["num_scored"] = np.repeat([int(f["num_scored"]) for f in features], counts)
    return np.concatenate(parts), columns
