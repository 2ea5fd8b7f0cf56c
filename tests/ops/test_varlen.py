"""The flat batch says where sequences and losses are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from codeact.ops.varlen import IGNORE_INDEX, pack_sequences


def test_values() -> None:
    ids = [np.array([5, 6, 7], dtype=np.int32), np.array([8]), np.array([9, 10])]
    labels = [np.array([-100, 6, 7]), np.array([8]), np.array([9, -100])]
    batch = pack_sequences(ids, labels)
    assert batch.input_ids.tolist() == [5, 6, 7, 8, 9, 10]
    assert batch.position_ids.tolist() == [0, 1, 2, 0, 0, 1]
    assert batch.cu_seqlens.tolist() == [0, 3, 4, 6]
    assert batch.cu_seqlens.dtype == torch.int32
    assert batch.max_seqlen == 3
    # The first token of a sequence has nothing before it: labels 8 and 9 carry no loss.
    assert batch.rows.tolist() == [0, 1]
    assert batch.targets.tolist() == [6, 7]
    assert batch.cu_rows.tolist() == [0, 2, 2, 2]
    assert batch.labels.tolist() == [IGNORE_INDEX, 6, 7, *[IGNORE_INDEX] * 3]


def test_model_inputs() -> None:
    ids = [np.array([5, 6, 7]), np.array([8, 9])]
    inputs = pack_sequences(ids, ids).model_inputs()
    assert "attention_mask" not in inputs
    assert inputs["use_cache"] is False
    assert inputs["seq_idx"].tolist() == [[0, 0, 0, 1, 1]]
    assert inputs["seq_idx"].dtype == torch.int32
    assert inputs["max_length_q"] == inputs["max_length_k"] == 3
    assert inputs["cu_seq_lens_q"].tolist() == [0, 3, 5]
    assert inputs["input_ids"].dtype == inputs["position_ids"].dtype == torch.int64


@pytest.mark.parametrize(
    ("ids", "labels", "message"),
    [
        ([], [], "non-empty"),
        ([np.array([1]), np.array([], dtype=int)], [np.array([1]), np.array([])], "non-empty"),
        ([np.array([1, 2])], [np.array([1])], "as long as"),
    ],
    ids=["no-sequence", "empty-sequence", "lengths-differ"],
)
def test_refused(ids: list[np.ndarray], labels: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack_sequences(ids, labels)
