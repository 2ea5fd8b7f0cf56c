"""From tokenised examples to the batch that a transformers model takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from codeact.ops.varlen import PackedBatch, pack_sequences
from codeact.packing.plan import BinPlan


class TokenStore(Protocol):
    """What holds tokenised examples: ``store[i]`` has int32 ``input_ids`` and ``labels``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class PackedDataset(Dataset[dict[str, NDArray[np.int32]]]):
    """Tokenised examples as a map-style dataset, for a :class:`PackedBatchSampler`.

    Item i is ``{"input_ids": (seqlen,) int32, "labels": (seqlen,) int32}``, labels unshifted.
    """

    def __init__(self, store: TokenStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> dict[str, NDArray[np.int32]]:
        example = self.store[index]
        return {"input_ids": example.input_ids, "labels": example.labels}


class PackedBatchSampler(Sampler[list[int]]):
    """The bins of a plan as batches of example indices, repacked every epoch.

    ``set_epoch`` chooses the epoch; trainers that do not call it get the next epoch at each pass.
    Calling it twice with the same epoch changes nothing.
    """

    def __init__(self, plan: BinPlan) -> None:
        self.plan = plan
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass yield the bins of ``epoch``."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self.plan.num_bins

    def __iter__(self) -> Iterator[list[int]]:
        bins = self.plan.epoch(self._epoch)
        self._epoch += 1
        return iter([indices.tolist() for indices in bins])


class PackedCollator:
    """Lays the examples of a bin end to end.

    Returns the keyword arguments of a transformers model, with ``labels``: int64 ``input_ids``,
    ``labels`` and ``position_ids`` (1, num_tokens), int32 ``cu_seq_lens_q`` and ``cu_seq_lens_k``
    (num_seqs + 1,), Python ints ``max_length_q`` and ``max_length_k``, int32 ``seq_idx``
    (1, num_tokens) and ``use_cache`` False; never an ``attention_mask``. The first label of every
    example is ``IGNORE_INDEX``, so that no example is asked to predict the next one.
    """

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = self.pack(features)
        return {**batch.model_inputs(), "labels": batch.labels[None]}

    def pack(self, features: Sequence[Mapping[str, Any]]) -> PackedBatch:
        """The same batch as a :class:`PackedBatch`."""
        return pack_sequences(
            [np.asarray(feature["input_ids"]) for feature in features],
            [np.asarray(feature["labels"]) for feature in features],
        )
