"""Reading the examples of a stream: checked, copied, and from where a state says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Literal

import numpy as np

from codeact.errors import InputError
from codeact.packing.checks import checked_tokens

Source = Iterable[Mapping[str, Any]] | Callable[[], Iterable[Mapping[str, Any]]]
StreamOverflow = Literal["error", "drop", "truncate"]
Feature = dict[str, Any]


class SourceReader:
    """One pass over a source.

    Args:
        source: iterable of dicts, or a function that makes one.
        capacity: most tokens of an example.
        overflow: what happens to a longer one.
        epoch: that the source is told, if it asks.
        state: of an earlier reader, to go on from.

    Attributes:
        ended: the source has nothing more.
        num_read: examples taken from it.
        counts: ``num_dropped``, ``num_empty`` and ``num_cut`` among them.
    """

    def __init__(
        self,
        source: Source,
        capacity: int,
        overflow: StreamOverflow,
        *,
        epoch: int,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.ended, self.num_read = False, 0
        self.counts = {"num_dropped": 0, "num_empty": 0, "num_cut": 0}
        self._capacity, self._overflow = capacity, overflow
        self._source_state: Any = None
        if state is not None:
            self.ended, self.num_read = bool(state["ended"]), int(state["num_read"])
            self.counts = dict(state["counts"])
            self._source_state = state["source"]
        self._made: Any = None
        self._rows: Iterator[Mapping[str, Any]] = iter(())
        if not self.ended:
            self._open(source, epoch)

    def read(self, num_rows: int) -> list[Feature]:
        """The usable ones of the next ``num_rows`` examples, with int32 arrays of their own."""
        features = []
        for row in islice(self._rows, num_rows):
            self.num_read += 1
            num_rows -= 1
            feature = self._checked(row)
            if feature is not None:
                features.append(feature)
        self.ended = num_rows > 0
        return features

    def state_dict(self) -> dict[str, Any]:
        """Where the reader is, for ``state``."""
        return {
            "ended": self.ended,
            "num_read": self.num_read,
            "counts": dict(self.counts),
            "source": self._made.state_dict() if _is_stateful(self._made) else None,
        }

    def _open(self, source: Source, epoch: int) -> None:
        made: Any = source
        if callable(source) and not isinstance(source, Iterable):
            made = source()
        if hasattr(made, "set_epoch"):
            made.set_epoch(epoch)
        # Before the first example there is nothing to go back to, nor has every source a state.
        goes_on = self.num_read > 0 and _is_stateful(made) and self._source_state is not None
        if goes_on:
            made.load_state_dict(self._source_state)
        self._made, self._rows = made, iter(made)
        if not goes_on:
            num_skipped = sum(1 for _ in islice(self._rows, self.num_read))
            if num_skipped < self.num_read:
                raise InputError(
                    f"the state is {self.num_read} examples into a source that has {num_skipped}"
                )

    def _checked(self, row: Mapping[str, Any]) -> Feature | None:
        """What of an example goes into bins; None if nothing does."""
        index = self.num_read - 1
        if not isinstance(row, Mapping) or not {"input_ids", "labels"} <= set(row):
            raise InputError(f"example {index} must be a dict with input_ids and labels")
        # Copies: no buffer that a source reads in stays alive for one example of it.
        ids, labels = (
            checked_tokens(f"{name} of example {index}", row[name])
            for name in ("input_ids", "labels")
        )
        if len(ids) != len(labels):
            raise InputError(f"example {index} has {len(ids)} input_ids and {len(labels)} labels")
        if len(ids) == 0:
            self.counts["num_empty"] += 1
            return None
        if len(ids) > self._capacity:
            if self._overflow == "error":
                raise InputError(
                    f"example {index} of {len(ids)} tokens does not fit a bin of "
                    f"{self._capacity} (overflow='drop' leaves it out, 'truncate' cuts its end)"
                )
            self.counts["num_dropped" if self._overflow == "drop" else "num_cut"] += 1
            if self._overflow == "drop":
                return None
        feature: Feature = {"input_ids": ids[: self._capacity], "labels": labels[: self._capacity]}
        if "weight" in row:
            feature["weight"] = _weight(row["weight"], index)
        return feature


def _is_stateful(made: Any) -> bool:
    return hasattr(made, "state_dict") and hasattr(made, "load_state_dict")


def _weight(value: Any, index: int) -> float:
    weight = float(value)
    if not np.isfinite(weight) or weight < 0:
        raise InputError(f"weight of example {index} must be finite and at least 0, got {weight}")
    return weight
