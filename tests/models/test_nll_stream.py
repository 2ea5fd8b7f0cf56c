"""Streamed losses equal cross-entropy on each sequence alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from codeact.models import ScoredSequence, scored_from, stream_nlls


def make_sequences() -> list[ScoredSequence]:
    rng = np.random.default_rng(0)
    ids = [rng.integers(3, 97, size=n).astype(np.int32) for n in (12, 2, 30, 7, 21)]
    sequences = [scored_from(row, first) for row, first in zip(ids, (4, 1, 29, 1, 10), strict=True)]
    gaps = sequences[4].labels.copy()
    gaps[15:18] = -100  # as between two assistant turns
    return [*sequences[:4], ScoredSequence(ids[4], gaps)]


@torch.no_grad()
def expected(model: PreTrainedModel, sequence: ScoredSequence) -> torch.Tensor:
    ids = torch.from_numpy(sequence.input_ids).long()
    logits = model(ids[None], use_cache=False).logits[0, :-1]
    keep = torch.from_numpy(sequence.labels[1:]) != -100
    return F.cross_entropy(logits, ids[1:], reduction="none")[keep]


@pytest.mark.parametrize("token_budget", [1, 40, 10_000])
def test_equals_one_by_one(tiny_model: PreTrainedModel, token_budget: int) -> None:
    sequences = make_sequences()
    packs = list(stream_nlls(tiny_model, sequences, token_budget=token_budget))
    found = dict(pair for pack in packs for pair in pack)
    assert sorted(found) == list(range(len(sequences)))
    assert len(packs) == {1: 5, 40: 2, 10_000: 1}[token_budget]
    for index, sequence in enumerate(sequences):
        truth = expected(tiny_model, sequence).numpy()
        assert found[index].shape == truth.shape
        np.testing.assert_allclose(found[index], truth, atol=2e-5)


def test_nothing_to_score(tiny_model: PreTrainedModel) -> None:
    assert list(stream_nlls(tiny_model, [])) == []


def test_a_long_sequence_does_not_widen_other_packs(tiny_model: PreTrainedModel) -> None:
    ids = [np.arange(3, 3 + n, dtype=np.int32) % 90 + 3 for n in (60, 6, 6, 6, 6, 6)]
    packs = stream_nlls(tiny_model, [scored_from(row, 1) for row in ids], token_budget=12)
    sizes = sorted(sum(len(ids[index]) for index, _ in pack) for pack in packs)
    assert sizes == [6, 12, 12, 60]


@pytest.mark.parametrize("early", [True, False], ids=["closed-early", "worker-fails"])
def test_threads_are_given_back(tiny_model: PreTrainedModel, early: bool) -> None:
    before = torch.get_num_threads()
    sequences = make_sequences()
    if not early:
        bad = np.array([3, 10**6], dtype=np.int32)  # no such token
        sequences.append(scored_from(bad, 1))
    stream = stream_nlls(tiny_model, sequences, token_budget=1)
    if early:
        next(stream)
        stream.close()
    else:
        with pytest.raises(IndexError):
            list(stream)
    assert torch.get_num_threads() == before


def test_training_mode_is_refused(tiny_model: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match="evaluation mode"):
        next(stream_nlls(tiny_model.train(), make_sequences()))
