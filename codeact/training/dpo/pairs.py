"""Bins of preference pairs: both sequences of a pair side by side, and where their losses stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from codeact.data.pairs import TokenizedPairs
from codeact.errors import InputError
from codeact.ops.varlen import IGNORE_INDEX
from codeact.packing import BinPlan, PackedCollator, PackedDataset
from codeact.packing.dataset import SpanFeatures

# What the collator adds to the arguments of a model.
PAIR_KEYS = ("scored_rows", "targets", "row_offsets", "reference")


class PackedPairs(PackedDataset):
    """The pairs of a plan, for :class:`PackedBatchSampler` and :class:`PairCollator`.

    To a plan a pair is one example of both sequences' tokens, and item i is that. A list of items
    comes as the sequences themselves, chosen and rejected in turn.

    Args:
        pairs: of ``tokenize_pairs``.
        plan: of ``pairs.seqlens``; None stands for all pairs in order.
        reference: (num_pairs, 2) log-probabilities of the chosen and the rejected answer under the
            reference model, in nats; NaN where a pair has no token.

    Raises:
        InputError: the plan cuts pairs or was made for other ones, or the reference is of other
            pairs.
    """

    def __init__(
        self, pairs: TokenizedPairs, plan: BinPlan | None = None, *, reference: ArrayLike
    ) -> None:
        super().__init__(pairs, plan)
        if plan is not None and plan.num_cut:
            raise InputError(
                f"a pair cannot be cut, and the plan cuts {plan.num_cut}: plan_bins with "
                "overflow='error' or 'drop', and tokenize_pairs with half the capacity"
            )
        self._middles = pairs.middles
        self._reference: NDArray[np.float64] = np.asarray(reference, dtype=np.float64)
        if self._reference.shape != (len(pairs), 2):
            raise InputError(
                f"reference must be ({len(pairs)}, 2) like the pairs, got {self._reference.shape}"
            )
        unknown = ~np.isfinite(self._reference).all(axis=1) & (pairs.seqlens > 0)
        if unknown.any():
            raise InputError(
                f"reference must be finite, that of pair {pairs.ids[int(unknown.argmax())]} is "
                f"{self._reference[int(unknown.argmax())].tolist()}"
            )

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} pairs")
        return super().__getitems__([index % len(self)])[0]

    def __getitems__(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> SpanFeatures:
        """Chosen and rejected sequence of each pair in turn; a plan's filler is one token."""
        where = np.asarray(indices, dtype=np.int64)
        pairs = where if self._spans is None else self._spans.locate(where)[0].astype(np.int64)
        if self._flat is None:
            raise InputError("PackedPairs needs TokenizedPairs")
        starts, stops = self._flat_bounds(self._flat, where)
        middles = self._middles[pairs]
        is_pair = stops > middles  # not so of the filler, the first token of a pair
        ends = np.where(is_pair, middles, stops)
        first = np.stack([starts, ends, np.ones_like(starts)])
        second = np.stack([middles, stops, is_pair.astype(np.int64)])
        both = np.stack([first, second], axis=2).reshape(3, -1)
        reference = np.where(is_pair[:, None], self._reference[pairs], np.nan).reshape(-1)
        there = both[2] > 0
        return SpanFeatures(
            self._flat, both[0][there], both[1][there], {"reference": reference[there]}
        )


class PairCollator(PackedCollator):
    """Batches of :class:`PackedPairs`: sequences end to end, and what the loss of a pair needs.

    A batch is what :class:`PackedCollator` makes, and (found here, so that nothing waits for a GPU)
    ``scored_rows`` (num_rows,) int64, the positions whose next token is scored, ``targets``
    (num_rows,) int64, that token, ``row_offsets`` (2 num_pairs + 1,) int64, sequence k having the
    rows ``[row_offsets[k], row_offsets[k + 1])``, and ``reference`` (num_pairs, 2) float64. The bin
    of a rank for which no pair is left has a token and no pair.
    """

    def __init__(self) -> None:
        super().__init__()

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if not isinstance(features, SpanFeatures):
            raise InputError("PairCollator takes the items of PackedPairs")
        batch = super().__call__(features)
        labels = batch["labels"][0]
        rows = (labels[1:] != IGNORE_INDEX).nonzero()[:, 0]
        is_pair = ~np.isnan(features.extra["reference"])
        edges = batch["cu_seq_lens_q"].long()[: int(is_pair.sum()) + 1]
        batch["scored_rows"] = rows
        batch["targets"] = labels[rows + 1]
        # The first label of a sequence carries no loss, so no row looks into the next one.
        batch["row_offsets"] = torch.searchsorted(rows, edges)
        batch["reference"] = torch.from_numpy(features.extra["reference"][is_pair].reshape(-1, 2))
        return batch
