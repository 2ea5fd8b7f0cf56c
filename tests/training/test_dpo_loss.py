"""The loss of packed pairs: a plain computation, TRL's trainer, a bin without a pair."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dpo_cases import make_pairs, plain_log_probs, plain_losses, tiny

from codeact.data.pairs import TokenizedPairs
from codeact.errors import InputError
from codeact.packing import plan_bins
from codeact.training.dpo.loss import dpo_losses, pair_losses, total_pairs
from codeact.training.dpo.pairs import PackedPairs, PairCollator
from codeact.training.dpo.reference import reference_log_probs, stored_reference

BETA, CAPACITY = 0.3, 500


def batches(pairs: TokenizedPairs, reference: Any, **options: Any) -> list[dict[str, Any]]:
    plan = plan_bins(pairs.seqlens, CAPACITY, **options)
    dataset, collate = PackedPairs(pairs, plan, reference=reference), PairCollator()
    return [collate(dataset.__getitems__(indices)) for indices in plan.epoch(0)]


def assert_same_gradients(model: Any, expected: Any, tolerance: float = 1e-5) -> None:
    theirs = dict(expected.named_parameters())
    compared = 0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            error = (parameter.grad - theirs[name].grad).abs().max()
            assert error <= tolerance * theirs[name].grad.abs().max(), name
            compared += 1
    assert compared


def with_lora(model: Any) -> Any:
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    return peft.get_peft_model(model, config)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_loss_and_gradients_are_those_of_one_sequence_at_a_time(
    tiny_model_folder: Path, method: str
):
    pairs = make_pairs(tiny_model_folder)
    reference = reference_log_probs(tiny(tiny_model_folder), pairs)
    packed = tiny(tiny_model_folder, shift=0.03)
    plain = tiny(tiny_model_folder, shift=0.03, attn_implementation="eager")
    if method == "lora":
        packed, plain = with_lora(packed), with_lora(plain)
    bins = batches(pairs, reference)
    assert 1 < len(bins) < len(pairs)  # bins of several pairs, and several of them
    loss = sum(pair_losses(packed, batch, beta=BETA).losses.sum() for batch in bins)
    (loss / total_pairs(bins)).backward()
    expected = plain_losses(plain, pairs, reference, BETA).mean()
    expected.backward()
    assert abs(expected.item() - math.log(2.0)) > 0.01  # the policy has left its reference
    assert loss.item() / len(pairs) == pytest.approx(expected.item(), rel=1e-5)
    assert_same_gradients(packed, plain)


def test_logits_are_formed_where_the_loss_cannot_be_fused(
    tiny_model_folder: Path, caplog: pytest.LogCaptureFixture
):
    """An adapter on the output projection: its gradient must be there as well."""
    peft = pytest.importorskip("peft")

    def adapted(attn_implementation: str) -> Any:
        model = tiny(tiny_model_folder, attn_implementation=attn_implementation)
        torch.manual_seed(3)
        config = peft.LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False)
        return peft.get_peft_model(model, config)

    pairs = make_pairs(tiny_model_folder, 3)
    reference = np.full((3, 2), -200.0)
    packed, plain = adapted("codeact"), adapted("eager")
    (batch,) = batches(pairs, reference)
    for _ in range(2):  # the second pass knows
        packed.zero_grad()
        loss = pair_losses(packed, batch, beta=0.01).losses.mean()
        loss.backward()
    expected = plain_losses(plain, pairs, reference, 0.01).mean()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_same_gradients(packed, plain)
    assert caplog.text.count("forms the logits of scored positions") == 1


def test_reference_is_the_plain_one(tiny_model_folder: Path):
    pairs = make_pairs(tiny_model_folder)
    model = tiny(tiny_model_folder).train()
    found = reference_log_probs(model, pairs)
    assert model.training
    plain = tiny(tiny_model_folder, attn_implementation="eager")
    with torch.no_grad():
        expected = [[x.item() for x in plain_log_probs(plain, pairs, i)] for i in range(len(pairs))]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_stored_reference_is_reused_for_the_same_model_and_pairs_only(
    tiny_model_folder: Path, tmp_path: Path
):
    pairs, model = make_pairs(tiny_model_folder), tiny(tiny_model_folder)
    expected = stored_reference(model, pairs, tmp_path)
    path = tmp_path / "reference.npz"
    with np.load(path) as stored:
        key = stored["key"]
    np.savez(path, key=key, log_probs=expected + 1.0)
    assert (stored_reference(model, pairs, tmp_path) == expected + 1.0).all()
    # Another model, other pairs, and a broken file.
    moved = stored_reference(tiny(tiny_model_folder, shift=0.03), pairs, tmp_path)
    assert (moved != expected).all()
    assert len(stored_reference(model, make_pairs(tiny_model_folder, 4), tmp_path)) == 4
    path.write_bytes(b"PK\x03\x04 torn")
    np.testing.assert_array_equal(stored_reference(model, pairs, tmp_path), expected)


def test_length_normalised_divides_each_ratio_by_its_tokens():
    log_probs = torch.tensor([[-4.0, -9.0], [-2.0, -3.0]], dtype=torch.float64)
    reference = torch.tensor([[-5.0, -6.0], [-2.5, -1.0]], dtype=torch.float64)
    counts = torch.tensor([[2, 6], [1, 4]])
    found = dpo_losses(log_probs, reference, beta=2.0, num_scored=counts)
    margins = [(1 / 2 + 3 / 6), (0.5 / 1 + 2 / 4)]
    expected = [math.log(1 + math.exp(-2.0 * margin)) for margin in margins]
    assert found.losses.tolist() == pytest.approx(expected, rel=1e-12)
    assert found.rewards.tolist() == [[2.0, -6.0], [1.0, -4.0]]


def test_a_bin_without_a_pair_adds_nothing(tiny_model_folder: Path):
    """What a rank gets when no pair is left; it must still run both passes."""
    pairs = make_pairs(tiny_model_folder, 2)
    model = tiny(tiny_model_folder)
    bins = batches(pairs, np.full((2, 2), -3.0), world_size=2)
    assert [len(batch["reference"]) for batch in bins] == [1, 1]
    with pytest.raises(InputError, match="every rank needs a sequence"):
        batches(pairs, np.full((2, 2), -3.0), world_size=3)
    plan = plan_bins(pairs.seqlens, CAPACITY, world_size=2)
    dataset = PackedPairs(pairs, plan, reference=np.full((2, 2), -3.0))
    assert plan.spans.filler is not None
    filler = PairCollator()(dataset.__getitems__([plan.spans.filler]))
    assert filler["input_ids"].shape == (1, 1)
    loss = pair_losses(model, filler, beta=BETA).losses.sum()
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    assert total_pairs([*bins, filler]).item() == 2


def test_both_sequences_of_a_pair_lie_side_by_side(tiny_model_folder: Path):
    pairs = make_pairs(tiny_model_folder)
    reference = np.arange(2.0 * len(pairs)).reshape(-1, 2)
    for batch in batches(pairs, reference):
        edges = batch["cu_seq_lens_q"].tolist()
        offsets = batch["row_offsets"].tolist()
        assert len(edges) == len(offsets)
        assert offsets[-1] == len(batch["scored_rows"])
        for place, values in enumerate(batch["reference"].tolist()):
            index = int(values[0]) // 2
            assert values == [2.0 * index, 2.0 * index + 1.0]
            for side, row in enumerate(pairs.sequences(index)):
                start, stop = edges[2 * place + side : 2 * place + side + 2]
                assert batch["input_ids"][0, start:stop].tolist() == row.input_ids.tolist()
                assert batch["position_ids"][0, start:stop].tolist() == list(range(stop - start))
                first, last = offsets[2 * place + side : 2 * place + side + 2]
                scored = row.input_ids[1:][row.labels[1:] != -100].tolist()
                assert batch["targets"][first:last].tolist() == scored


def test_datasets_that_cannot_be_right_are_refused(tiny_model_folder: Path):
    pairs = make_pairs(tiny_model_folder)
    reference = np.zeros((len(pairs), 2))
    cutting = plan_bins(pairs.seqlens, 100, overflow="truncate")
    with pytest.raises(InputError, match="a pair cannot be cut, and the plan cuts"):
        PackedPairs(pairs, cutting, reference=reference)
    with pytest.raises(InputError, match=r"reference must be \(9, 2\) like the pairs"):
        PackedPairs(pairs, reference=reference[:4])
    reference[3, 0] = np.nan
    with pytest.raises(InputError, match=r"that of pair t3 is \[nan, 0\.0\]"):
        PackedPairs(pairs, reference=reference)
