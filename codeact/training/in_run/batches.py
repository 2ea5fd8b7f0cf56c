"""The sequences inside training batches: who they are, a batch without some, sums for each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from codeact.errors import InputError
from codeact.models import ScoredSequence
from codeact.ops.gather import pack_layout
from codeact.ops.varlen import IGNORE_INDEX

if TYPE_CHECKING:
    from codeact.data import TokenizedExamples

Batch = Mapping[str, Any]

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("sequence_hash", pa.string()),
        ("num_response_tokens", pa.int64()),
        ("num_measured", pa.int64()),
        ("num_trained", pa.int64()),
        ("influence", pa.float64()),
        ("contribution", pa.float64()),
    ]
)
_BOUNDARIES = ("cu_seq_lens_q", "cu_seq_lens_k")
_LONGEST = ("max_length_q", "max_length_k")


class TrainSequence(NamedTuple):
    """One sequence of a batch.

    Attributes:
        tokens: its tokens without padding, and their labels.
        num_scored: labels that carry a loss.
        weight: of the loss of each of them in the training loss; 1 without ``loss_weights``.
    """

    tokens: ScoredSequence
    num_scored: int
    weight: float


def sequence_hash(input_ids: NDArray[np.int32], labels: NDArray[np.int32]) -> str:
    """16 hexadecimal digits of BLAKE2b over tokens and labels: what a batch knows a row by.

    The first label does not count: it is the target of no position, and collators mask it.
    """
    if len(labels):
        labels = np.concatenate([[IGNORE_INDEX], labels[1:]])
    flat = np.concatenate([input_ids, labels]).astype("<i4")
    return hashlib.blake2b(flat.tobytes(), digest_size=8).hexdigest()


def sequence_ids(examples: TokenizedExamples) -> dict[str, str]:
    """The id of each tokenised example by :func:`sequence_hash`; of equal rows the first one's."""
    ids: dict[str, str] = {}
    for name, row in zip(examples.ids, examples, strict=True):
        ids.setdefault(sequence_hash(row.input_ids, row.labels), name)
    return ids


class InRunStep(NamedTuple):
    """One measured optimizer step.

    Attributes:
        step: steps taken before it.
        learning_rate: its rate.
        validation_loss: of the validation sequences drawn for it, before it, in nats.
        num_sequences: sequences with a scored token.
        num_kept: those trained on.
        num_harmful: those whose influence is below 0.
    """

    step: int
    learning_rate: float
    validation_loss: float
    num_sequences: int
    num_kept: int
    num_harmful: int


@dataclass(slots=True)
class SequenceSums:
    """What a run has summed up for one sequence, see :class:`InRunInfluence`."""

    num_response_tokens: int
    num_measured: int = 0
    num_trained: int = 0
    influence: float = 0.0
    contribution: float = 0.0


class InRunSums(dict[str, SequenceSums]):
    """The sums of each sequence by its hash, and as a table."""

    def add(self, key: str, num_scored: int, influence: float, share: float) -> None:
        """One measured step; ``share`` of the step's loss, 0 where it did not train on it.

        ``influence`` is of the mean loss, and so is the contribution times the share.
        """
        sums = self.setdefault(key, SequenceSums(num_scored))
        sums.num_measured += 1
        sums.num_trained += int(share > 0)
        sums.influence += influence
        sums.contribution += influence * share

    def table(self, ids: Mapping[str, str]) -> pa.Table:
        """One row a sequence, with its name in ``ids`` or else its hash."""
        rows = [
            {"id": ids.get(key, key), "sequence_hash": key, **asdict(sums)}
            for key, sums in self.items()
        ]
        return pa.Table.from_pylist(rows, schema=_SCHEMA)

    @classmethod
    def read(cls, path: Path) -> InRunSums:
        """As :meth:`table` was written."""
        sums = cls()
        for row in pq.read_table(path, columns=_SCHEMA.names[1:]).to_pylist():
            key = row.pop("sequence_hash")
            sums[key] = SequenceSums(**row)
        return sums


def sequences_of(batch: Batch) -> list[TrainSequence]:
    """The sequences of a batch in their order.

    A batch is packed if it has ``cu_seq_lens_q``, or one row whose ``position_ids`` start anew;
    otherwise each row is a sequence, without what ``attention_mask`` masks.

    Raises:
        InputError: no ``labels``, or weights that differ inside a sequence.
    """
    if "labels" not in batch:
        raise InputError(f"in-run influence needs batches with labels, got {sorted(batch)}")
    input_ids, labels = _host(batch["input_ids"]), _host(batch["labels"])
    bounds = _bounds(batch)
    if bounds is None:
        mask = _row_mask(batch)
        return [
            _sequence(ids[real], row[real], None)
            for ids, row, real in zip(input_ids, labels, mask, strict=True)
        ]
    weights = _host(batch["loss_weights"])[0] if "loss_weights" in batch else None
    return [
        _sequence(input_ids[0, a:b], labels[0, a:b], None if weights is None else weights[a:b])
        for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]


def keep_sequences(batch: Batch, kept: NDArray[np.bool_]) -> Batch:
    """The batch without the loss of the sequences that are not ``kept``, and without their tokens.

    The tokens stay where the batch cannot be cut: a dense mask, a fixed shape, a key that this
    module does not know; the labels are then ``IGNORE_INDEX``. A batch of which nothing is kept
    keeps the tokens of its shortest sequence, because a trainer counts batches.

    Args:
        batch: see :func:`sequences_of`.
        kept: (num_seqs,) bool.

    Returns:
        ``batch`` itself if all are kept, else another dict; tensors of ``batch`` do not change.
    """
    if kept.all():
        return batch
    bounds = _bounds(batch)
    lengths = _row_mask(batch).sum(axis=1) if bounds is None else np.diff(bounds)
    present = kept
    if not kept.any():
        present = np.arange(len(kept)) == lengths.argmin()
    masked = _masked(batch, bounds, kept)
    if bounds is None:
        return _some_rows(masked, present)
    return _some_spans(masked, lengths, present)


def _sequence(
    input_ids: NDArray[Any], labels: NDArray[Any], weights: NDArray[Any] | None
) -> TrainSequence:
    labels = labels.astype(np.int32)
    labels[:1] = IGNORE_INDEX
    scored = labels != IGNORE_INDEX
    weight = 1.0
    if weights is not None and scored.any():
        weight = float(weights[scored][0])
        if (weights[scored] != weights[scored][0]).any():
            raise InputError("in-run influence needs one weight a sequence, loss_weights has more")
    tokens = ScoredSequence(input_ids.astype(np.int32), labels)
    return TrainSequence(tokens, tokens.num_scored, weight)


def _bounds(batch: Batch) -> NDArray[np.int64] | None:
    """Where the sequences of a packed batch start, and the end; None of a padded one."""
    if "cu_seq_lens_q" in batch:
        # A fixed shape has empty sequences at the end.
        return np.unique(_host(batch["cu_seq_lens_q"])).astype(np.int64)
    positions = batch.get("position_ids")
    if positions is None or len(batch["input_ids"]) != 1:
        return None
    starts = np.flatnonzero(_host(positions)[0] == 0)
    # Padding on the left counts no position 0: it is then a sequence of its own, without a loss.
    return np.unique(np.concatenate([[0], starts, [batch["input_ids"].shape[1]]]))


def _row_mask(batch: Batch) -> NDArray[np.bool_]:
    """(batch_size, seqlen) which tokens of a padded batch are real."""
    mask = batch.get("attention_mask")
    if isinstance(mask, Tensor) and mask.shape == batch["input_ids"].shape:
        return _host(mask).astype(bool)
    return np.ones(tuple(batch["input_ids"].shape), dtype=bool)


def _masked(batch: Batch, bounds: NDArray[np.int64] | None, kept: NDArray[np.bool_]) -> Batch:
    labels: Tensor = batch["labels"]
    if bounds is None:
        off = np.broadcast_to(~kept[:, None], tuple(labels.shape)).copy()
    else:
        off = np.repeat(~kept, np.diff(bounds))[None]
    lost = torch.from_numpy(off).to(labels.device)
    changed = dict(batch, labels=labels.masked_fill(lost, IGNORE_INDEX))
    if "loss_weights" in batch:
        changed["loss_weights"] = batch["loss_weights"].masked_fill(lost, 0.0)
    return changed


def _some_rows(batch: Batch, present: NDArray[np.bool_]) -> Batch:
    size = len(present)
    if not all(isinstance(x, Tensor) and x.shape[:1] == (size,) for x in batch.values()):
        return batch
    rows = torch.from_numpy(np.flatnonzero(present))
    return {name: value[rows.to(value.device)] for name, value in batch.items()}


def _some_spans(batch: Batch, seqlens: NDArray[np.int64], present: NDArray[np.bool_]) -> Batch:
    shape = tuple(batch["input_ids"].shape)
    for name, value in batch.items():
        is_layout = name in _BOUNDARIES and value.numel() == len(seqlens) + 1
        if isinstance(value, Tensor) and value.shape != shape and not is_layout:
            return batch
    tokens = torch.from_numpy(np.flatnonzero(np.repeat(present, seqlens)))
    _, seq_idx, cu_seqlens = pack_layout(seqlens[present])
    cut: dict[str, Any] = {}
    for name, value in batch.items():
        if name in _BOUNDARIES:
            cut[name] = cu_seqlens.to(value.device)
        elif name in _LONGEST:
            cut[name] = int(seqlens[present].max())
        elif isinstance(value, Tensor):
            cut[name] = value[:, tokens.to(value.device)]
        else:
            cut[name] = value
    if "seq_idx" in batch:
        cut["seq_idx"] = seq_idx.reshape(1, -1).to(batch["seq_idx"].device)
    return cut


def _host(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy()
