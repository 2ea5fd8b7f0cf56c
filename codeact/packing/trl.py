"""Bins as rows of a Hugging Face dataset, the form that TRL trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from codeact.ops.gather import gather_tokens
from codeact.ops.varlen import lay_flat, mask_first
from codeact.packing.dataset import PackedDataset, SpanFeatures
from codeact.packing.store import TokenStore

if TYPE_CHECKING:
    import datasets

    from codeact.packing.bins import Bins
    from codeact.packing.plan import BinPlan


def to_trl(
    store: TokenStore, plan: BinPlan, *, epoch: int = 0, lazy: bool = False
) -> datasets.Dataset:
    """The bins of one epoch as rows for ``trl.SFTTrainer``, which keeps them apart by itself.

    Columns are ``input_ids`` and ``labels``, the bin's tokens and their labels (the first of each
    example is ``IGNORE_INDEX``), and ``seq_lengths``, the lengths of its examples. Train with
    ``SFTConfig(packing=False, padding_free=True, max_length=None, per_device_train_batch_size=1,
    dataset_kwargs={"skip_prepare_dataset": True})``.

    Rows are in the order of the plan. TRL shuffles them unless ``shuffle_dataset=False`` and its
    sampler is sequential, so ranks of a step do not get bins of like cost, and every epoch has the
    same bins; ``PackedTrainerMixin`` has neither limit.

    Args:
        store: what the plan was made for.
        plan: the bins.
        epoch: whose bins.
        lazy: keep the tokens in the store and gather them when a row is asked for. It needs
            ``remove_unused_columns=False``.

    Returns:
        ``plan.num_bins`` rows.

    Raises:
        InputError: the plan was made for other lengths.
    """
    import datasets
    import pyarrow as pa

    rows = _Rows(PackedDataset(store, plan), plan.epoch(epoch))
    if lazy:
        numbers = datasets.Dataset.from_dict({"bin_index": range(plan.num_bins)})
        return numbers.with_transform(rows)
    bins = rows.bins
    input_ids, labels, seqlens = rows.gather(bins.compact().order)
    columns = {
        "input_ids": _list_column(input_ids.numpy(), bins.num_tokens),
        "labels": _list_column(labels.numpy(), bins.num_tokens),
        "seq_lengths": _list_column(seqlens, bins.num_spans),
    }
    return datasets.Dataset(pa.table(columns))


class _Rows:
    """Gathers bins by number; as a transform it can be pickled for worker processes."""

    def __init__(self, dataset: PackedDataset, bins: Bins) -> None:
        self.dataset, self.bins = dataset, bins

    def __call__(self, batch: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
        rows = [self.gather(self.bins[index]) for index in batch["bin_index"]]
        return {
            # Arrays: of tensors TRL's collator makes tensors too, but with a warning.
            "input_ids": [input_ids.numpy() for input_ids, _, _ in rows],
            "labels": [labels.numpy() for _, labels, _ in rows],
            "seq_lengths": [seqlens.tolist() for _, _, seqlens in rows],
        }

    def gather(self, spans: NDArray[np.int32]) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
        """Tokens, labels and lengths of spans, end to end."""
        features = self.dataset.__getitems__(spans)
        if isinstance(features, SpanFeatures):
            store, bounds = features.store, (features.starts, features.stops)
            input_ids = gather_tokens(store.input_ids, *bounds)
            labels, seqlens = gather_tokens(store.labels, *bounds), bounds[1] - bounds[0]
        else:
            rows = [[np.asarray(row[key]) for row in features] for key in ("input_ids", "labels")]
            input_ids, labels, seqlens = lay_flat(*rows)
        mask_first(labels, seqlens)
        return input_ids, labels, seqlens


def _list_column(values: NDArray[np.int64], lengths: NDArray[np.int64]) -> Any:
    import pyarrow as pa

    offsets = np.append(0, np.cumsum(lengths))
    # `list` has 32-bit offsets; above them `large_list` is needed.
    kind = pa.ListArray if offsets[-1] <= np.iinfo(np.int32).max else pa.LargeListArray
    width = np.int32 if kind is pa.ListArray else np.int64
    return kind.from_arrays(pa.array(offsets.astype(width)), pa.array(values))
