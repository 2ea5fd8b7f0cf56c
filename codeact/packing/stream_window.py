"""The bins of a stream, window by window: what is ready, what waits and what is carried on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codeact.ops.shuffle import shuffled
from codeact.ops.varlen import IGNORE_INDEX
from codeact.ops.windows import pack_window
from codeact.packing.balance import Cost, deal, exact_costs
from codeact.packing.bins import Bins
from codeact.packing.seeds import derive_seed
from codeact.packing.spans import Spans

Feature = dict[str, Any]


class StreamWindow:
    """Packs windows of examples, alike on every rank.

    Args:
        capacity: tokens a bin may hold.
        max_carry: examples that may be carried from one window to the next.
        world_size: ranks a step.
        seed: of the shuffles, a fresh one for each epoch.
        cost: of sequences, see :func:`codeact.packing.plan_bins`.
    """

    def __init__(
        self, capacity: int, max_carry: int, world_size: int, seed: int, cost: Cost | None = None
    ) -> None:
        self._capacity, self._max_carry, self._cost = capacity, max_carry, cost
        self._world_size, self._seed = world_size, seed
        self._round = 0
        self._ready: deque[list[Feature]] = deque()  # whole steps, step-major
        self._waiting: list[list[Feature]] = []  # fewer bins than a step has
        self._carried: list[Feature] = []
        self._ages: NDArray[np.int32] = np.empty(0, dtype=np.int32)  # of what is carried

    def take(self, rank: int) -> list[Feature] | None:
        """The bin of a rank in the next step; None when no step is ready."""
        if not self._ready:
            return None
        return [self._ready.popleft() for _ in range(self._world_size)][rank]

    def fill(self, features: list[Feature], *, close_all: bool) -> None:
        """Shuffle and pack more examples. ``close_all``: they are the last."""
        mixed = shuffled(len(features), seed=derive_seed(self._seed, "examples"), epoch=self._round)
        items = self._carried + [features[index] for index in mixed.tolist()]
        ages = np.concatenate([self._ages, np.zeros(len(features), dtype=np.int32)])
        order, offsets, num_closed = pack_window(
            _seqlens(items), ages, self._capacity, max_carry=self._max_carry, close_all=close_all
        )
        bins = np.split(order, offsets[1:-1]) if len(order) else []
        self._waiting += [[items[index] for index in bin_.tolist()] for bin_ in bins[:num_closed]]
        still_open = order[offsets[num_closed] :]
        self._carried = [items[index] for index in still_open.tolist()]
        self._ages = ages[still_open] + np.int32(1)
        self._deal(close_all)

    def state_dict(self) -> dict[str, Any]:
        """All examples in flight, as tensors that any ``torch.load`` takes."""
        bins = [*self._ready, *self._waiting]
        items = [feature for bin_ in bins for feature in bin_] + self._carried
        has_weights = any("weight" in feature for feature in items)
        return {
            "round": self._round,
            "world_size": self._world_size,
            "num_ready": len(self._ready),
            "bin_sizes": torch.tensor([len(bin_) for bin_ in bins], dtype=torch.int64),
            "seqlens": torch.from_numpy(_seqlens(items)),
            "ages": torch.from_numpy(self._ages),
            "input_ids": _concatenated(feature["input_ids"] for feature in items),
            "labels": _concatenated(feature["labels"] for feature in items),
            "weights": torch.tensor(
                [feature.get("weight", 1.0) for feature in items] if has_weights else [],
                dtype=torch.float64,
            ),
        }

    def load_state_dict(self, state: Mapping[str, Any], *, ended: bool) -> None:
        """Go on from a state; bins are dealt anew if it is of another number of ranks."""
        ends = np.cumsum(state["seqlens"].numpy(), dtype=np.int64)[:-1]
        columns = [np.split(state[name].numpy(), ends) for name in ("input_ids", "labels")]
        items: list[Feature] = [
            {"input_ids": ids, "labels": labels}
            for ids, labels in zip(*columns, strict=True)
            if len(ids)  # np.split makes one empty part of nothing
        ]
        for feature, weight in zip(items, state["weights"].tolist(), strict=False):
            feature["weight"] = weight
        stops = np.cumsum(state["bin_sizes"].numpy()).tolist()
        bins = [items[a:b] for a, b in zip([0, *stops], stops, strict=False)]
        self._carried, self._ages = items[stops[-1] if stops else 0 :], state["ages"].numpy()
        self._round = int(state["round"])
        num_ready = int(state["num_ready"])
        self._ready, self._waiting = deque(bins[:num_ready]), bins[num_ready:]
        if state["world_size"] != self._world_size:
            self._ready, self._waiting = deque(), bins
            self._deal(ended)

    def _deal(self, close_all: bool) -> None:
        """Whole steps of what waits become ready, and at the end everything."""
        rest = len(self._waiting) % self._world_size
        if close_all and rest:
            bins, num_bins = self._waiting, len(self._waiting) + self._world_size - rest
            self._waiting = []
        else:
            num_bins = len(self._waiting) - rest
            bins, self._waiting = self._waiting[:num_bins], self._waiting[num_bins:]
        self._round += 1
        if not bins:
            return
        items = [feature for bin_ in bins for feature in bin_]
        spans = Spans(None, None, _seqlens(items))
        if self._world_size > 1:
            spans = spans.with_filler(0)
            first = items[0]["input_ids"][:1]
            items.append({"input_ids": first, "labels": np.full_like(first, IGNORE_INDEX)})
        stops = np.cumsum([len(bin_) for bin_ in bins])
        order = np.arange(stops[-1], dtype=np.int32)
        starts = np.append(0, stops[:-1])
        dealt = deal(
            Bins(order, starts, stops, spans.seqlens), num_bins, self._world_size,
            costs=exact_costs(self._cost, spans.seqlens), spans=spans,
            seed=derive_seed(self._seed, "bins"), epoch=self._round,
        )  # fmt: skip
        self._ready.extend([items[index] for index in bin_.tolist()] for bin_ in dealt)


def _seqlens(items: list[Feature]) -> NDArray[np.int32]:
    return np.array([len(feature["input_ids"]) for feature in items], dtype=np.int32)


def _concatenated(arrays: Iterable[NDArray[np.int32]]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.empty(0, dtype=np.int32), *arrays]))
