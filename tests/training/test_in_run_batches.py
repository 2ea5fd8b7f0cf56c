"""A batch without some of its sequences."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from in_run_cases import (
    key_of,
    padded_collator,
    random_rows,
)

from codeact.packing import PackedCollator
from codeact.training import (
    sequence_hash,
)
from codeact.training.in_run.batches import keep_sequences, sequences_of


@pytest.mark.parametrize("loss_norm", ["token", "sample"])
def test_a_packed_batch_without_some_is_the_batch_of_the_others(loss_norm: Any) -> None:
    rows = random_rows(5)
    collate = PackedCollator(loss_norm=loss_norm)
    batch = collate(rows)
    kept = np.array([True, False, True, True, False])
    expected = collate([row for row, is_kept in zip(rows, kept, strict=True) if is_kept])
    found = keep_sequences(batch, kept)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name], value), name
        else:
            assert found[name] == value
    assert keep_sequences(batch, np.ones(5, dtype=bool)) is batch


def test_a_fixed_shape_keeps_its_shape() -> None:
    rows = random_rows(3)
    batch = PackedCollator(fixed_shape=(64, 6))(rows)
    before = {name: copy.deepcopy(value) for name, value in batch.items()}
    found = keep_sequences(batch, np.array([False, True, False, False]))
    assert found["input_ids"].shape == (1, 64)
    scored = [sequence_hash(*s.tokens[:2]) for s in sequences_of(found) if s.num_scored]
    assert scored == [key_of(rows[1])]
    assert torch.equal(batch["labels"], before["labels"])


def test_a_batch_of_which_nothing_is_kept_still_runs() -> None:
    rows = random_rows(4)
    shortest = min(len(row["input_ids"]) for row in rows)
    for batch in (PackedCollator()(rows), padded_collator(rows)):
        found = keep_sequences(batch, np.zeros(4, dtype=bool))
        assert (found["labels"] == -100).all()
        assert len(sequences_of(found)) == 1
        assert len(sequences_of(found)[0].tokens.input_ids) == shortest


def test_positions_that_begin_with_padding_are_one_row() -> None:
    """Decoder models pad on the left, and number the padding with ones."""
    batch = {
        "input_ids": torch.tensor([[0, 0, 5, 6, 7]]),
        "labels": torch.tensor([[-100, -100, -100, 6, 7]]),
        "position_ids": torch.tensor([[1, 1, 0, 1, 2]]),
    }
    found = sequences_of(batch)
    assert [s.num_scored for s in found] == [0, 2]
    kept = keep_sequences(batch, np.array([False, True]))
    assert kept["input_ids"].tolist() == [[5, 6, 7]]
    assert (keep_sequences(batch, np.array([False, False]))["labels"] == -100).all()
