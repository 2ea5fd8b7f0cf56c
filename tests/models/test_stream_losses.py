"""Sums, averages and noise of streamed sequences; what a pass may hold."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from codeact.models import (
    EmbeddingNoise,
    PackBudget,
    ScoredSequence,
    SequenceLoss,
    output_head,
    plan_packs,
    register_attention,
    scored_from,
    stream_losses,
)
from codeact.models.stream import losses
from codeact.models.stream.pack_pass import host_pack, launch


def sequences() -> list[ScoredSequence]:
    rng = np.random.default_rng(0)
    rows = [rng.integers(3, 97, size=n).astype(np.int32) for n in (12, 2, 30, 7, 21, 5)]
    plain = [scored_from(row, 1) for row in rows]
    return [
        plain[0]._replace(num_pooled=12),
        plain[1],
        plain[2]._replace(num_pooled=4),
        plain[3]._replace(noise=EmbeddingNoise(7, 0.5, first=2, num_quiet=1)),
        plain[4]._replace(num_pooled=21, noise=EmbeddingNoise(7, 0.5)),
        scored_from(rows[5], 5)._replace(num_pooled=5),  # a vector only
    ]


def run(model: PreTrainedModel, **options: object) -> dict[int, SequenceLoss]:
    packs = stream_losses(model, [sequences()], **options)  # type: ignore[arg-type]
    return dict(pair for pack in packs for pair in pack)


@pytest.fixture
def llama(make_tiny: Callable[..., PreTrainedModel]) -> PreTrainedModel:
    return make_tiny("llama-gqa")


@pytest.mark.parametrize("token_budget", [1, 40, None])
def test_sums_and_averages(llama: PreTrainedModel, token_budget: int | None) -> None:
    found = run(llama, token_budget=token_budget, token_nlls=True)
    assert sorted(found) == list(range(6))
    for index, sequence in enumerate(sequences()):
        loss = found[index]
        assert loss.token_nlls is not None
        assert loss.num_scored == len(loss.token_nlls) == (sequence.labels[1:] != -100).sum()
        assert loss.total == pytest.approx(loss.token_nlls.astype(np.float64).sum(), rel=1e-12)
        assert (loss.pooled is None) == (sequence.num_pooled == 0)
        if sequence.noise is None and sequence.num_pooled:
            ids = torch.from_numpy(sequence.input_ids).long()
            with torch.no_grad():
                states = llama.get_decoder()(ids[None], use_cache=False).last_hidden_state[0]
            truth = states[: sequence.num_pooled].double().mean(dim=0)
            np.testing.assert_allclose(loss.pooled, truth, atol=1e-5)


def test_token_losses_stay_on_the_device_unless_asked_for(llama: PreTrainedModel) -> None:
    sums, tokens = run(llama), run(llama, token_nlls=True)
    for index, loss in sums.items():
        assert loss.token_nlls is None
        assert loss.total == pytest.approx(tokens[index].total, rel=1e-6)


def test_windows_are_numbered_on(llama: PreTrainedModel) -> None:
    every = sequences()
    windows = [every[:2], [], every[2:]]
    packs = list(stream_losses(llama, windows, token_budget=40))
    found = dict(pair for pack in packs for pair in pack)
    truth = run(llama)
    assert sorted(found) == list(range(6))
    for index, loss in found.items():
        assert loss.total == pytest.approx(truth[index].total, rel=1e-5)


def test_noise_is_that_of_the_sequence_alone(llama: PreTrainedModel) -> None:
    """Whatever is in the pack; and it is there."""
    noisy, alone = sequences()[4], run(llama, token_budget=1)[4]
    (pack,) = stream_losses(llama, [[noisy._replace(noise=None)]])
    assert run(llama)[4].total == pytest.approx(alone.total, rel=1e-5)
    assert abs(pack[0][1].total - alone.total) > 0.1


def test_nothing(llama: PreTrainedModel) -> None:
    assert list(stream_losses(llama, [])) == []
    assert list(stream_losses(llama, [[]])) == []


def test_packs_hold_no_more_than_either_bound() -> None:
    rng = np.random.default_rng(0)
    seqlens = rng.integers(1, 400, size=500)
    budget = PackBudget(tokens=1000, pairs=60_000)
    packs = plan_packs(seqlens, budget)
    assert sorted(np.concatenate(packs).tolist()) == list(range(500))
    pairs = seqlens * (seqlens + 1) // 2
    for pack in packs:
        if len(pack) > 1:
            assert seqlens[pack].sum() <= budget.tokens
            assert pairs[pack].sum() <= budget.pairs
    # Without the second bound a pack of two long ones would fit: 2 * 399 tokens, 159,600 pairs.
    assert len(plan_packs(np.array([399, 399]), budget)) == 2
    assert len(plan_packs(np.array([399, 399]), PackBudget(1000, 1_000_000))) == 1


@pytest.fixture
def gpu_path(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Iterator[Any]]:
    """The loop of a GPU, look-ahead and all, on tensors of the CPU."""
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)

    def path(model: PreTrainedModel, token_budget: int) -> Iterator[Any]:
        return losses._on_gpu(model, output_head(model), [sequences()], token_budget, True)

    return path


@pytest.mark.parametrize("token_budget", [1, 40, 10_000])
def test_the_loop_of_a_gpu(
    llama: PreTrainedModel, gpu_path: Callable[..., Iterator[Any]], token_budget: int
) -> None:
    truth = run(llama, token_nlls=True)
    found = dict(pair for pack in gpu_path(llama, token_budget) for pair in pack)
    assert sorted(found) == list(range(6))
    for index, loss in truth.items():
        np.testing.assert_allclose(found[index].token_nlls, loss.token_nlls, atol=2e-5)


@pytest.mark.parametrize("early", [True, False], ids=["closed-early", "launch-fails"])
def test_no_thread_outlives_the_loop_of_a_gpu(
    llama: PreTrainedModel,
    gpu_path: Callable[..., Iterator[Any]],
    early: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even while somebody holds the traceback, as a notebook does."""
    if early:
        stream = gpu_path(llama, 1)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
    else:
        monkeypatch.setattr(losses, "launch", Mock(side_effect=RuntimeError("out of memory")))
        with pytest.raises(RuntimeError, match="out of memory") as held:
            list(gpu_path(llama, 1))
        assert held.tb is not None
    assert not [thread for thread in threading.enumerate() if thread.name == "lookahead"]


def test_results_do_not_hold_the_memory_of_their_pack(llama: PreTrainedModel) -> None:
    """From a GPU it is pinned, and the results of a whole set are kept."""
    pack = host_pack(range(6), sequences())
    result = launch(llama, output_head(llama), pack, True)
    numbers = result._numbers
    assert numbers.nlls is not None
    assert numbers.pooled is not None
    for _, loss in result.read():
        for kept, held in ((loss.token_nlls, numbers.nlls), (loss.pooled, numbers.pooled)):
            assert kept is None or not np.shares_memory(kept, held.numpy())


@pytest.mark.gpu
def test_on_gpu(llama: PreTrainedModel, make_tiny: Callable[..., PreTrainedModel]) -> None:
    truth = run(llama, token_nlls=True)
    model = make_tiny("llama-gqa").to("cuda")
    for options in ({}, {"token_budget": 40}):
        found = run(model, token_nlls=True, **options)
        for index, loss in truth.items():
            np.testing.assert_allclose(found[index].token_nlls, loss.token_nlls, atol=2e-3)
            assert found[index].total == pytest.approx(loss.total, rel=1e-3)
            if loss.pooled is not None:
                np.testing.assert_allclose(found[index].pooled, loss.pooled, atol=2e-3)


@pytest.mark.gpu
def test_on_gpu_nothing_waits_but_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16; waiting for an event is not among what PyTorch counts as a synchronisation.

    Transformers' own look at the positions, whose answer ``codeact`` attention drops, is left out.
    """
    import transformers.masking_utils

    register_attention()
    config = LlamaConfig(
        vocab_size=97, hidden_size=128, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="codeact").eval()
    model = model.to("cuda", torch.bfloat16)

    def windows() -> Iterator[list[ScoredSequence]]:
        for _ in range(3):
            yield sequences()

    first = [pair for pack in stream_losses(model, windows(), token_budget=40) for pair in pack]
    monkeypatch.setattr(
        transformers.masking_utils, "find_packed_sequence_indices", lambda position_ids: None
    )
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = [pair for pack in stream_losses(model, windows(), token_budget=40) for pair in pack]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [(i, loss.total) for i, loss in first] == [(i, loss.total) for i, loss in again]


@pytest.mark.gpu
def test_on_gpu_an_error_of_the_windows_is_raised(
    make_tiny: Callable[..., PreTrainedModel],
) -> None:
    def windows() -> Iterator[list[ScoredSequence]]:
        yield sequences()
        raise KeyError("tokenizer")

    with pytest.raises(KeyError, match="tokenizer"):
        list(stream_losses(make_tiny("llama-gqa").to("cuda"), windows(), token_budget=40))
