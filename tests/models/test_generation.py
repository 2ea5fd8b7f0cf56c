"""Generation: what batching must not change, against plain loops without a cache."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM, PreTrainedModel

from codeact.errors import InputError
from codeact.models import (
    Generated,
    Prompt,
    Sampling,
    assert_isolated,
    eos_ids,
    generate,
    room_for_tokens,
)
from codeact.models.generation_choice import choose_tokens

EOS = frozenset({2, 11})
SEQLENS = (3, 17, 1, 9, 30, 5, 12)


def make_prompts(num_samples: int, seqlens: Sequence[int] = SEQLENS) -> list[Prompt]:
    rng = np.random.default_rng(1)
    return [
        Prompt(rng.integers(12, 97, size=n), tuple(range(100 * i, 100 * i + num_samples)))
        for i, n in enumerate(seqlens)
    ]


def by_sample(results: Any) -> dict[tuple[int, int], Generated]:
    found = {(done.prompt, done.sample): done for done in results}
    return dict(sorted(found.items()))


def token_lists(results: Any) -> dict[tuple[int, int], tuple[list[int], str]]:
    return {key: (done.token_ids, done.finish) for key, done in by_sample(results).items()}


def plain_choice(logits: np.ndarray, uniform: float, sampling: Sampling) -> int:
    """The definition, one token at a time, over Python numbers."""
    if sampling.temperature == 0:
        return int(np.argmax(logits))
    weights = np.exp((logits - logits.max()) / sampling.temperature)
    probabilities = weights / weights.sum()
    tokens = list(range(len(logits)))
    if sampling.top_p < 1:
        tokens.sort(key=lambda token: (-probabilities[token], token))
        kept, total = [], 0.0
        for token in tokens:
            kept.append(token)
            total += probabilities[token]
            if total >= sampling.top_p:
                break
        tokens = kept
    wanted = uniform * sum(probabilities[token] for token in tokens)
    total = 0.0
    for token in tokens:
        total += probabilities[token]
        if total > wanted:
            return token
    return tokens[-1]


@torch.no_grad()
def plain_continuation(
    model: PreTrainedModel, prompt: Prompt, seed: int, sampling: Sampling
) -> tuple[list[int], str]:
    """The whole sequence through the model for every token: no cache, no batch, no packing."""
    draws = np.random.Generator(np.random.Philox(key=seed)).random(sampling.max_new_tokens)
    new: list[int] = []
    while len(new) < sampling.max_new_tokens:
        ids = torch.tensor([[*prompt.input_ids.tolist(), *new]])
        logits = model(input_ids=ids, use_cache=False).logits[0, -1].double().numpy()
        token = plain_choice(logits, draws[len(new)], sampling)
        if token in EOS:
            return new, "stop"
        new.append(token)
    return new, "length"


@pytest.mark.parametrize("max_rows", [5, None])
def test_greedy_is_what_transformers_generates_one_by_one(
    tiny_model: PreTrainedModel, max_rows: int | None
) -> None:
    """Five rows for fourteen samples: rows end, and others join beside longer ones."""
    prompts = make_prompts(2)
    sampling = Sampling(max_new_tokens=12)
    results = generate(tiny_model, prompts, sampling, eos_token_ids=EOS, max_rows=max_rows)
    got = token_lists(results)
    tiny_model.set_attn_implementation("eager")
    for index, prompt in enumerate(prompts):
        ids = torch.from_numpy(prompt.input_ids)[None]
        options = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": sorted(EOS)}
        new = tiny_model.generate(ids, pad_token_id=0, **options)[0, ids.shape[1] :].tolist()
        wanted = (new[:-1], "stop") if new[-1] in EOS else (new, "length")
        assert got[index, 0] == got[index, 1] == wanted


def test_some_sequences_stop_and_some_are_cut(make_tiny: Callable[..., PreTrainedModel]) -> None:
    """Else the test above would not see what happens when rows leave."""
    results = generate(
        make_tiny("llama-gqa"), make_prompts(1), Sampling(max_new_tokens=12), eos_token_ids=EOS
    )
    assert {done.finish for done in results} == {"stop", "length"}


@pytest.mark.parametrize(
    ("name", "top_p"), [("llama-gqa", 1.0), ("mistral-window", 0.8), ("gemma2-softcap", 0.8)]
)
def test_samples_are_those_of_a_plain_loop(
    make_tiny: Callable[..., PreTrainedModel], name: str, top_p: float
) -> None:
    model = make_tiny(name)
    prompts = make_prompts(3)
    sampling = Sampling(temperature=1.3, top_p=top_p, max_new_tokens=6)
    got = token_lists(generate(model, prompts, sampling, eos_token_ids=EOS, max_rows=4))
    model.set_attn_implementation("eager")
    for (index, sample), answer in got.items():
        seed = prompts[index].seeds[sample]
        assert answer == plain_continuation(model, prompts[index], seed, sampling)
    assert len(got) == 21
    assert len({tuple(tokens) for tokens, _ in got.values()}) > 15


@pytest.mark.parametrize("rows", [{"max_rows": 1}, {"cache_tokens": 70}, {"cache_tokens": 1}])
def test_neither_rows_nor_memory_nor_company_change_a_result(
    make_tiny: Callable[..., PreTrainedModel], rows: dict[str, int]
) -> None:
    model, prompts = make_tiny("llama-gqa"), make_prompts(3)
    sampling = Sampling(temperature=1.0, max_new_tokens=10)
    whole = token_lists(generate(model, prompts, sampling, eos_token_ids=EOS))
    assert token_lists(generate(model, prompts, sampling, eos_token_ids=EOS, **rows)) == whole
    last = [Prompt(prompts[-1].input_ids, prompts[-1].seeds[1:2])]
    alone = token_lists(generate(model, last, sampling, eos_token_ids=EOS))
    assert alone[0, 0] == whole[len(prompts) - 1, 1]


def test_prompts_are_read_once_without_padding_and_rows_stay_within_their_room(
    make_tiny: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts = make_tiny("llama-gqa"), make_prompts(3)
    num_read, steps = 0, []
    real = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal num_read
        output = real(*args, **kwargs)
        if kwargs.get("cu_seq_lens_q") is None:
            keys = kwargs["past_key_values"].layers[0].keys
            steps.append((keys.shape[0], keys.shape[2]))
        elif kwargs.get("past_key_values") is not None:
            num_read += kwargs["input_ids"].numel()
        return output

    assert_isolated(model)
    monkeypatch.setattr(model, "forward", forward)
    sampling = Sampling(max_new_tokens=6)
    list(
        generate(model, prompts, sampling, eos_token_ids=frozenset(), max_rows=9, cache_tokens=150)
    )
    assert num_read == sum(SEQLENS) + 1  # one token asks whether the model can be packed
    assert max(num_rows for num_rows, _ in steps) == 9
    assert max(num_rows * width for num_rows, width in steps) <= 150


@pytest.fixture(scope="module")
def recurrent() -> PreTrainedModel:
    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=97, hidden_size=32, state_size=8, num_hidden_layers=2, initializer_range=0.3,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return MambaForCausalLM(config).eval()


@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_a_recurrent_model_goes_one_by_one_with_the_same_numbers(
    recurrent: PreTrainedModel, temperature: float, caplog: pytest.LogCaptureFixture
) -> None:
    prompts = make_prompts(2, (3, 9))
    sampling = Sampling(temperature=temperature, top_p=0.9, max_new_tokens=5)
    with caplog.at_level(logging.WARNING):
        got = token_lists(generate(recurrent, prompts, sampling, eos_token_ids=EOS))
    assert "MambaForCausalLM has recurrent layers" in caplog.text
    assert len(got) == 4
    for (index, sample), answer in got.items():
        seed = prompts[index].seeds[sample]
        assert answer == plain_continuation(recurrent, prompts[index], seed, sampling)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
def test_tokens_come_as_often_as_their_probability_says(temperature: float, top_p: float) -> None:
    """Over an even grid of numbers the counts are the probabilities, to one part of the grid."""
    num = 4000
    logits = torch.tensor([0.5, 3.0, -1.0, 3.0, float("-inf"), 1.5, 0.0])
    uniforms = (torch.arange(num, dtype=torch.float64) + 0.5) / num
    sampling = Sampling(temperature=temperature, top_p=top_p)
    chosen = choose_tokens(logits.expand(num, -1), uniforms, sampling)
    share = torch.bincount(chosen, minlength=7).double() / num
    weights = np.exp(logits.double().numpy() / temperature)
    probabilities = weights / weights.sum()
    order = sorted(range(7), key=lambda token: -probabilities[token])
    nucleus: list[int] = []
    for token in order:
        nucleus.append(token)
        if sum(probabilities[nucleus]) >= top_p - 1e-12:
            break
    wanted = np.zeros(7)
    wanted[nucleus] = probabilities[nucleus] / sum(probabilities[nucleus])
    assert np.abs(share.numpy() - wanted).max() <= 2 / num


@pytest.mark.parametrize("top_p", [0.999999, 1.0])
def test_the_largest_number_below_1_is_no_impossible_token(top_p: float) -> None:
    logits = torch.tensor([[0.0, 0.3, 1.0, float("-inf"), float("-inf")]])
    uniforms = torch.tensor([np.nextafter(1.0, 0.0)], dtype=torch.float64)
    token = choose_tokens(logits, uniforms, Sampling(temperature=0.7, top_p=top_p)).item()
    assert token in (0, 1, 2)


def test_prompt_and_answer_end_where_the_model_does(
    make_tiny: Callable[..., PreTrainedModel],
) -> None:
    model = make_tiny("llama-gqa")
    assert room_for_tokens(model) == 128
    prompts = make_prompts(1, (120, 127, 4))
    results = generate(model, prompts, Sampling(max_new_tokens=20), eos_token_ids=frozenset())
    assert {done.prompt: len(done.token_ids) for done in results} == {0: 8, 1: 1, 2: 20}


def test_an_end_at_once_is_an_empty_answer(make_tiny: Callable[..., PreTrainedModel]) -> None:
    every = frozenset(range(97))
    results = generate(make_tiny("llama-gqa"), make_prompts(2), Sampling(), eos_token_ids=every)
    answers = list(token_lists(results).values())
    assert answers == [([], "stop")] * 14


def test_eos_tokens_of_model_and_tokenizer() -> None:
    def model(configured: object) -> Any:
        return SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=configured))

    tokenizer = SimpleNamespace(eos_token_id=7)
    assert eos_ids(model([3, 5]), tokenizer) == {3, 5, 7}
    assert eos_ids(model(7), tokenizer) == {7}
    assert eos_ids(model(None), SimpleNamespace(eos_token_id=None)) == frozenset()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature must be finite and at least 0, got -0.1"),
        ({"temperature": float("nan")}, "temperature must be finite"),
        ({"temperature": float("inf")}, "temperature must be finite"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], got 0.0"),
        ({"top_p": 1.01}, r"top_p must lie in \(0, 1\], got 1.01"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
    ],
)
def test_sampling_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**options)


def test_prompts_that_cannot_be_continued(make_tiny: Callable[..., PreTrainedModel]) -> None:
    model = make_tiny("llama-gqa")
    none = Prompt(np.array([], dtype=np.int64), (0,))
    with pytest.raises(ValueError, match=r"prompts\[1\] has none"):
        list(generate(model, [*make_prompts(1, (3,)), none], Sampling(), eos_token_ids=EOS))
    with pytest.raises(ValueError, match=r"prompts\[0\] has 128 tokens, the model takes 128"):
        list(generate(model, make_prompts(1, (128,)), Sampling(), eos_token_ids=EOS))
    with pytest.raises(ValueError, match="needs uniforms"):
        choose_tokens(torch.zeros(1, 3), None, Sampling(temperature=1.0))
    with pytest.raises(ValueError, match="evaluation mode"):
        list(generate(model.train(), make_prompts(1), Sampling(), eos_token_ids=EOS))


@pytest.mark.parametrize("family", ["packed", "one by one"])
def test_completes_ends_a_sequence_where_it_says(
    make_tiny: Callable[..., PreTrainedModel], recurrent: PreTrainedModel, family: str
) -> None:
    """A sequence with a token below 40 in it is complete, that token included."""
    model = make_tiny("llama-gqa") if family == "packed" else recurrent
    prompts, sampling = make_prompts(2, (3, 9)), Sampling(temperature=1.0, max_new_tokens=12)

    def cut(tokens: list[int], finish: str) -> tuple[list[int], str]:
        places = [place for place, token in enumerate(tokens) if token < 40]
        return (tokens[: places[0] + 1], "stop") if places else (tokens, finish)

    free = token_lists(generate(model, prompts, sampling, eos_token_ids=EOS))
    completes = token_lists(
        generate(
            model, prompts, sampling, eos_token_ids=EOS,
            completes=lambda token_ids: bool(token_ids) and token_ids[-1] < 40,
        )
    )  # fmt: skip
    assert completes == {name: cut(*answer) for name, answer in free.items()}
    assert completes != free
