"""What a packed stream refuses: rows, options and states, each with one line that says why."""

from __future__ import annotations

from typing import Any

import pytest

from codeact.errors import InputError
from codeact.packing import PackedStream

CAPACITY = 24
ROW = {"input_ids": [1, 2, 3, 4, 5], "labels": [1, 2, 3, 4, 5]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1, 2], "example 1 must be a dict with input_ids and labels"),
        ({"input_ids": [1]}, "example 1 must be a dict with input_ids and labels"),
        ({"input_ids": [1], "labels": [1, 2]}, "example 1 has 1 input_ids and 2 labels"),
        ({"input_ids": [0.5], "labels": [1]}, "input_ids of example 1 must be a row of integers"),
        ({"input_ids": [1], "labels": [[1]]}, "labels of example 1 must be a row of integers"),
        ({"input_ids": [2**32], "labels": [1]}, "input_ids of example 1 must fit int32"),
        ({"input_ids": [1], "labels": [1], "weight": -1}, "weight of example 1 must be finite"),
    ],
    ids=["no-dict", "no-labels", "lengths", "float", "2-D", "int64", "weight"],
)
def test_rows_refused(row: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(PackedStream([ROW, row], CAPACITY))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity": 0}, "capacity must be a whole number of at least 1"),
        ({"window": 0}, "window must be a whole number of at least 1"),
        ({"world_size": 2, "rank": 2}, "rank must be at most 1, got 2"),
        ({"overflow": "split"}, "overflow must be error, drop or truncate"),
        ({"source": iter([])}, "source can be read only once"),
    ],
)
def test_options_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PackedStream(**({"source": [], "capacity": CAPACITY} | options))


def test_states_refused() -> None:
    stream = PackedStream([ROW], CAPACITY)
    next(iter(stream))
    state = stream.state_dict()
    with pytest.raises(InputError, match="version 1, got version None"):
        stream.load_state_dict({"epoch": 1})
    with pytest.raises(InputError, match="must be whole, but lacks reader, window"):
        stream.load_state_dict({name: state[name] for name in ("version", "capacity", "epoch")})
    with pytest.raises(InputError, match="bins of 24 tokens, this stream of 30"):
        PackedStream([], 30).load_state_dict(state)
    shorter = PackedStream([ROW] * 3, CAPACITY, window=2)
    next(iter(shorter))
    resumed = PackedStream([ROW], CAPACITY, window=2)
    resumed.load_state_dict(shorter.state_dict() | {"reader": {**READ_FOUR}})
    with pytest.raises(InputError, match="4 examples into a source that has 1"):
        list(resumed)


READ_FOUR = {
    "ended": False, "num_read": 4, "source": None,
    "counts": {"num_dropped": 0, "num_empty": 0, "num_cut": 0},
}  # fmt: skip
