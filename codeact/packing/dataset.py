"""A token store as a map-style dataset of what goes into bins."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Dataset

from codeact.errors import InputError
from codeact.ops.device_tokens import DeviceTokens
from codeact.ops.varlen import IGNORE_INDEX
from codeact.packing.checks import checked_weights
from codeact.packing.scored import count_scored
from codeact.packing.store import FlatStore, TokenStore, row_columns

if TYPE_CHECKING:
    import torch

    from codeact.packing.plan import BinPlan

Feature = dict[str, Any]
IndexArray = NDArray[np.integer[Any]]


class SpanFeatures(Sequence[Feature]):
    """Spans of a flat store, as :class:`PackedDataset` describes them, made when asked for.

    The collator takes the arrays instead, and gathers all spans at once.

    Attributes:
        store: where the tokens are.
        starts: (num_spans,) int64, where each span starts in the store's arrays.
        stops: (num_spans,) int64, where it ends.
        extra: further keys of the features, (num_spans,) each.
    """

    def __init__(
        self,
        store: FlatStore,
        starts: NDArray[np.int64],
        stops: NDArray[np.int64],
        extra: dict[str, NDArray[Any]],
    ) -> None:
        self.store, self.starts, self.stops, self.extra = store, starts, stops, extra

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> Feature: ...

    @overload
    def __getitem__(self, index: slice) -> SpanFeatures: ...

    def __getitem__(self, index: int | slice) -> Feature | SpanFeatures:
        if isinstance(index, slice):
            extra = {name: values[index] for name, values in self.extra.items()}
            return SpanFeatures(self.store, self.starts[index], self.stops[index], extra)
        span = slice(self.starts[index], self.stops[index])
        feature = {"input_ids": self.store.input_ids[span], "labels": self.store.labels[span]}
        return feature | {name: values[index].item() for name, values in self.extra.items()}


class PackedDataset(Dataset[Feature]):
    """The spans of a plan, or the examples of a store, for a :class:`PackedBatchSampler`.

    Item i is ``{"input_ids": (seqlen,), "labels": (seqlen,)}``, integers, unshifted, views of the
    store. With ``weights`` it also has its example's ``"weight"``. Where the plan splits examples
    it has ``"num_scored"``, the scored labels of all pieces of its example: a mean over an example
    then stays one, wherever the pieces go.

    Args:
        store: rows with ``input_ids`` and ``labels``. From a flat store (``TokenizedExamples``,
            :class:`FlatTokens`) a batch is gathered by one native call a column.
        plan: made for this store; None stands for whole examples.
        weights: (num_examples,) how much each example counts in the loss, finite, at least 0.

    Raises:
        InputError: the plan has other lengths than the store, or weights are not as described.
    """

    def __init__(
        self, store: TokenStore, plan: BinPlan | None = None, *, weights: ArrayLike | None = None
    ) -> None:
        self.store = store
        self.plan = plan
        self._flat = store if isinstance(store, FlatStore) else None
        self._weights = None if weights is None else checked_weights(weights, len(store))
        self._spans = None if plan is None else plan.spans
        self._seqlens = None if plan is None else plan.seqlens
        # The spans that bins hold, ascending, without the filler of several ranks; None is all.
        self._packed = None if plan is None else plan.packing.packed
        self._num_packed = len(store) if plan is None else plan.num_packed
        self._in_pieces = False
        if plan is not None:
            _check_plan(plan, store)
            self._in_pieces = plan.overflow == "split" and plan.num_cut > 0

    def __len__(self) -> int:
        return len(self.store) if self._spans is None else len(self._spans)

    def __getitem__(self, index: int) -> Feature:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} spans")
        return self.__getitems__([index % len(self)])[0]

    def __getitems__(self, indices: Sequence[int] | IndexArray) -> Sequence[Feature]:
        """The items at ``indices``: of a flat store one object that has not read a token yet."""
        where: IndexArray = np.asarray(indices, dtype=np.int64)
        examples = where if self._spans is None else self._spans.locate(where)[0]
        extra: dict[str, NDArray[Any]] = {}
        if self._weights is not None:
            extra["weight"] = self._weights[examples]
        if self._in_pieces:
            extra["num_scored"] = self._scored_in_example[examples]
        if self._flat is not None:
            return SpanFeatures(self._flat, *self._flat_bounds(self._flat, where), extra)
        features = [self._row(index) for index in where.tolist()]
        for name, values in extra.items():
            for feature, value in zip(features, values.tolist(), strict=True):
                feature[name] = value
        return features

    def __getstate__(self) -> dict[str, Any]:
        """Without the plan: worker processes have no use for its bins."""
        if self._in_pieces:
            _ = self._scored_in_example  # here once, not in every worker
        return self.__dict__ | {"plan": None}

    def on_device(self, device: torch.device | str) -> DeviceTokens:
        """The spans on a device, whose ``gather(bin)`` makes the ``PackedBatch`` of a bin there.

        Raises:
            InputError: the store is not flat, or there are weights, which such a batch has not.
        """
        if self._flat is None:
            raise InputError("on_device needs a flat store; FlatTokens.from_rows makes one")
        if self._weights is not None:
            raise InputError("on_device has no weights: a PackedBatch does not hold any")
        spans = self._flat_bounds(self._flat, np.arange(len(self)))
        return DeviceTokens(self._flat, device=device, spans=spans)

    @cached_property
    def num_unscored(self) -> int:
        """Spans in bins (without a plan: examples) of which no label carries a loss."""
        return int((self._num_scored == 0).sum())

    def _flat_bounds(
        self, store: FlatStore, indices: IndexArray
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where spans start and end in the arrays of the store."""
        if self._spans is None:
            return store.offsets[indices], store.offsets[indices + 1]
        examples, starts, stops = self._spans.locate(indices)
        first = store.offsets[examples]
        return first + starts, first + stops

    def _row(self, index: int) -> Feature:
        example, start, stop = index, 0, None
        if self._spans is not None:
            example, start, stop = (int(x[0]) for x in self._spans.locate(np.array([index])))
        ids, labels = row_columns(self.store[example])
        expected = len(ids) if self._seqlens is None else self._seqlens[example]
        if not len(ids) == len(labels) == expected:
            raise InputError(
                f"row {example} of the store has {len(ids)} input_ids and {len(labels)} labels, "
                f"expected {expected} of each"
            )
        return {"input_ids": ids[start:stop], "labels": labels[start:stop]}

    @cached_property
    def _num_scored(self) -> NDArray[np.int32]:
        """Scored labels of each packed span."""
        packed = self._packed_spans()
        if self._flat is not None:
            return count_scored(self._flat.labels, *self._flat_bounds(self._flat, packed))
        rows = (np.asarray(self._row(index)["labels"][1:]) for index in packed.tolist())
        return np.array([np.count_nonzero(row != IGNORE_INDEX) for row in rows], dtype=np.int32)

    @cached_property
    def _scored_in_example(self) -> NDArray[np.int32]:
        """Scored labels of each example in all its pieces."""
        packed = self._packed_spans()
        examples = packed if self._spans is None else self._spans.locate(packed)[0]
        counts = np.bincount(examples, weights=self._num_scored, minlength=len(self.store))
        return counts.astype(np.int32)

    def _packed_spans(self) -> IndexArray:
        return np.arange(self._num_packed) if self._packed is None else self._packed


def _check_plan(plan: BinPlan, store: TokenStore) -> None:
    if len(plan.seqlens) != len(store):
        raise InputError(
            f"the plan was made for {len(plan.seqlens)} examples, the store has {len(store)}"
        )
    if isinstance(store, FlatStore):
        differs = np.diff(store.offsets) != plan.seqlens
        if differs.any():
            example = int(differs.argmax())
            raise InputError(
                f"the plan was made for other lengths: example {example} has "
                f"{store.offsets[example + 1] - store.offsets[example]} tokens, "
                f"not {plan.seqlens[example]}"
            )
