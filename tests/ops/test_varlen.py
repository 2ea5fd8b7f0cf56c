"""The flat batch says where sequences and losses are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from codeact.ops.varlen import IGNORE_INDEX, lay_flat, mask_first, pack_flat, pack_sequences


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


def test_a_stream_that_lies_flat_already() -> None:
    ids = [np.array([5, 6, 7], dtype=np.uint16), np.array([8], dtype=np.uint16)]
    labels = [np.array([5, -100, 7], dtype=np.int32), np.array([8], dtype=np.int32)]
    flat_ids, flat_labels, seqlens = lay_flat(ids, labels)
    assert flat_ids.dtype == flat_labels.dtype == torch.int64
    assert (flat_ids.tolist(), flat_labels.tolist()) == ([5, 6, 7, 8], [5, -100, 7, 8])
    assert seqlens.tolist() == [3, 1]
    batch = pack_flat(flat_ids, flat_labels, seqlens)
    assert batch.input_ids.data_ptr() == flat_ids.data_ptr()
    assert flat_labels.tolist() == [-100, -100, 7, -100]
    assert batch.labels.tolist() == flat_labels.tolist()
    assert (batch.rows.tolist(), batch.targets.tolist()) == ([1], [7])
    assert batch.cu_rows.tolist() == [0, 1, 1]


def test_masking_the_first_labels() -> None:
    labels = torch.arange(6)
    assert mask_first(labels, np.array([2, 1, 3])).tolist() == [0, 2, 3]
    assert labels.tolist() == [-100, 1, -100, -100, 4, 5]


@pytest.mark.parametrize("seqlens", [[], [6, 0], [3, 2], [7]], ids=str)
def test_lengths_refused(seqlens: list[int]) -> None:
    with pytest.raises(ValueError, match="6 tokens need non-empty sequences that sum to them"):
        pack_flat(torch.arange(6), torch.arange(6), np.array(seqlens, dtype=np.int64))
