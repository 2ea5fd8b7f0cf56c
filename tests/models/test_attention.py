"""Packed sequences are isolated, however a model is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from codeact.models.attention.packed import packed_attention
from codeact.ops.masks import dense_mask
from codeact.ops.varlen import PackedBatch, pack_sequences

SEQLENS = (9, 1, 17, 4)


def make_batch(seed: int = 0, changed: int | None = None) -> tuple[PackedBatch, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    sequences = [rng.integers(3, 97, size=n) for n in SEQLENS]
    if changed is not None:
        sequences[changed] = rng.integers(3, 97, size=SEQLENS[changed])
    return pack_sequences(sequences, sequences), sequences


@torch.no_grad()
def test_packed_logits_equal_unpacked(
    tiny_model: PreTrainedModel, make_tiny: Callable[..., PreTrainedModel], request: Any
) -> None:
    name = request.node.callspec.params["tiny_model"]
    stock = make_tiny(name, "eager")
    batch, sequences = make_batch()
    packed = tiny_model(**batch.model_inputs()).logits[0]
    alone = torch.cat(
        [stock(torch.from_numpy(ids)[None], use_cache=False).logits[0] for ids in sequences]
    )
    assert (packed - alone).abs().max() <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("changed", range(len(SEQLENS)))
def test_other_sequences_do_not_move(tiny_model: PreTrainedModel, changed: int) -> None:
    before = tiny_model(**make_batch()[0].model_inputs()).logits[0]
    after = tiny_model(**make_batch(changed=changed)[0].model_inputs()).logits[0]
    moved = torch.repeat_interleave(torch.arange(len(SEQLENS)), torch.tensor(SEQLENS)) == changed
    assert (before - after)[~moved].abs().max() <= 1e-6
    assert (before - after)[moved].abs().max() > 1e-3


LEAKY_CALLS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "position-ids-only": lambda kw: {k: kw[k] for k in ("input_ids", "position_ids")},
    "all-ones-mask": lambda kw: {
        "input_ids": kw["input_ids"],
        "position_ids": kw["position_ids"],
        "attention_mask": torch.ones_like(kw["input_ids"]),
    },
    "default-cache": lambda kw: {k: v for k, v in kw.items() if k != "use_cache"},
    "cache-on": lambda kw: {**kw, "use_cache": True},
}


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama-gqa", "mistral-window"])
@pytest.mark.parametrize("call", LEAKY_CALLS)
def test_calls_that_leak_elsewhere(
    make_tiny: Callable[..., PreTrainedModel], name: str, call: str
) -> None:
    model = make_tiny(name)
    batch, _ = make_batch()
    isolated = model(**batch.model_inputs()).logits
    called = model(**LEAKY_CALLS[call](batch.model_inputs())).logits
    assert (isolated - called).abs().max() <= 1e-6


@torch.no_grad()
def test_mask_of_ones_isolates_when_compiled(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model: Any = make_tiny("llama-gqa")
    model.model.layers = model.model.layers[:1]  # Dynamo takes seconds for each
    batch, _ = make_batch()
    isolated = model(**batch.model_inputs()).logits
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    called = compiled(**LEAKY_CALLS["all-ones-mask"](batch.model_inputs())).logits
    assert (isolated - called).abs().max() <= 1e-6


def test_boundaries_beside_padding_are_refused(make_tiny: Callable[..., PreTrainedModel]) -> None:
    inputs = make_batch()[0].model_inputs()
    mask = torch.ones_like(inputs["input_ids"])
    model = make_tiny("llama-gqa")
    model(**inputs, attention_mask=mask)
    mask[0, -1] = 0
    with pytest.raises(ValueError, match="boundaries or an attention_mask with zeros, got both"):
        model(**inputs, attention_mask=mask)
    dense = dense_mask(inputs["cu_seq_lens_q"])  # which knows them
    masked, expected = model(**inputs, attention_mask=dense).logits, model(**inputs).logits
    assert (masked - expected).abs().max() <= 1e-5


@torch.no_grad()
def test_rows_of_a_batch_with_restarting_positions(
    make_tiny: Callable[..., PreTrainedModel],
) -> None:
    model = make_tiny("llama-gqa")
    ids = torch.from_numpy(np.random.default_rng(1).integers(3, 97, size=(2, 8)))
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 7]])
    both = model(ids, position_ids=positions).logits
    alone = [model(ids[:1, :4]), model(ids[:1, 4:]), model(ids[1:])]
    expected = torch.cat([output.logits[0] for output in alone])
    assert (both.flatten(0, 1) - expected).abs().max() <= 1e-5


@torch.no_grad()
def test_padded_batch_equals_eager(make_tiny: Callable[..., PreTrainedModel]) -> None:
    ids = torch.from_numpy(np.random.default_rng(2).integers(3, 97, size=(2, 8)))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    ours, stock = (
        make_tiny("llama-gqa", attn)(ids, attention_mask=mask).logits
        for attn in ("codeact", "eager")
    )
    assert (ours - stock)[mask.bool()].abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["llama-gqa", "mistral-window"])
def test_generation_equals_eager(make_tiny: Callable[..., PreTrainedModel], name: str) -> None:
    ids = torch.from_numpy(np.random.default_rng(3).integers(3, 97, size=(1, 7)))
    ours, stock = (
        make_tiny(name, attn).generate(ids, max_new_tokens=9, do_sample=False)
        for attn in ("codeact", "eager")
    )
    assert ours.tolist() == stock.tolist()


def test_gradients_equal_unpacked(make_tiny: Callable[..., PreTrainedModel]) -> None:
    batch, sequences = make_batch()
    packed, alone = make_tiny("llama-gqa"), make_tiny("llama-gqa", "eager")
    packed(**batch.model_inputs()).logits.square().sum().backward()
    for ids in sequences:
        alone(torch.from_numpy(ids)[None], use_cache=False).logits.square().sum().backward()
    for ours, theirs in zip(packed.parameters(), alone.parameters(), strict=True):
        assert (ours.grad - theirs.grad).abs().max() <= 1e-4 * theirs.grad.abs().max()


def test_dropout_is_refused(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model = make_tiny("llama-gqa").train()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.1
    with pytest.raises(ValueError, match=r"attention_dropout = 0\.1"):
        model(**make_batch()[0].model_inputs())


@torch.no_grad()
def test_autocast_equals_eager(make_tiny: Callable[..., PreTrainedModel]) -> None:
    """Rotary embeddings leave queries in float32 there, while values are bfloat16."""
    batch, sequences = make_batch()
    with torch.autocast("cpu", torch.bfloat16):
        packed = make_tiny("llama-gqa")(**batch.model_inputs()).logits[0]
        stock = make_tiny("llama-gqa", "eager")
        alone = [stock(torch.from_numpy(ids)[None], use_cache=False) for ids in sequences]
    expected = torch.cat([output.logits[0] for output in alone])
    assert (packed - expected).abs().max() <= 0.03 * expected.abs().max()


@pytest.mark.parametrize("term", ["s_aux", "sinks", "position_bias"])
def test_unknown_terms_are_refused(term: str) -> None:
    states = torch.ones(1, 2, 3, 8)
    with pytest.raises(ValueError, match=f"does not know '{term}'"):
        packed_attention(torch.nn.Module(), states, states, states, None, **{term: torch.ones(2)})


def test_other_than_causal_is_refused() -> None:
    states = torch.ones(1, 2, 3, 8)
    with pytest.raises(ValueError, match="is_causal=False"):
        packed_attention(torch.nn.Module(), states, states, states, None, is_causal=False)
    encoder = torch.nn.Module()
    encoder.is_causal = False  # type: ignore[assignment]
    with pytest.raises(ValueError, match="is_causal=False"):
        packed_attention(encoder, states, states, states, None)


@torch.no_grad()
def test_boundaries_of_another_integer_type(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model = make_tiny("llama-gqa")
    inputs = make_batch()[0].model_inputs()
    expected = model(**inputs).logits
    inputs |= {"cu_seq_lens_q": inputs["cu_seq_lens_q"].long()}
    assert torch.equal(model(**inputs).logits, expected)
