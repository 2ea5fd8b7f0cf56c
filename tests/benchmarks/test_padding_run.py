"""All ways compute the same loss where they should, and the timing gives each its turn."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from padding import Layout, Step
from padding_models import (
    SHAPES,
    choose_model,
    choose_rows,
    layers_that_fit,
    random_model,
    random_rows,
)
from padding_run import (
    IGNORED,
    Taken,
    median_of_rounds,
    our_batch,
    our_loss,
    padded_batch,
    projected_loss,
    runners,
    set_attention,
    stock_loss,
    time_in_turn,
    train_step,
    trl_batch,
    trl_loss,
)

from codeact.models.attention.packed import register_attention

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store():
    return random_rows(np.array([20, 96, 41, 7, 63, 50]), 1000)


@pytest.fixture(scope="module")
def model():
    register_attention()
    return random_model(SHAPES["tiny"], CPU).eval()


def test_padded_rows_hold_their_examples_and_nothing_else(store) -> None:
    step = Step([np.array([0, 2]), np.array([1])], 200, 0)
    batch = padded_batch(store, step)
    first, third = (store.input_ids[store.offsets[k] : store.offsets[k + 1]] for k in (0, 2))
    used = len(first) + len(third)
    assert batch["input_ids"][0, :used].tolist() == [*first, *third]
    assert batch["attention_mask"].sum(dim=1).tolist() == [
        used,
        store.offsets[2] - store.offsets[1],
    ]
    assert (batch["labels"][0, used:] == IGNORED).all()


@pytest.mark.parametrize("loss", [stock_loss, projected_loss, trl_loss])
def test_every_loss_is_the_mean_over_scored_tokens(store, model, loss) -> None:
    if loss is trl_loss:
        pytest.importorskip("trl")
    everyone = np.arange(6)
    longest = int(np.diff(store.offsets).max())
    model.set_attn_implementation("sdpa")
    padded = loss(model, padded_batch(store, Step(list(everyone[:, None]), longest, 0)))
    model.set_attn_implementation("codeact")
    packed = our_loss(model, our_batch(store, Step([everyone], 0, 0)))
    assert padded.item() == pytest.approx(packed.item(), rel=1e-5)


def test_trl_packs_the_same_batch(store, model) -> None:
    pytest.importorskip("trl")
    step = Step([np.arange(6)], 0, 0)
    theirs, ours = trl_batch(store, step), our_batch(store, step)
    for key in ("input_ids", "labels", "position_ids", "cu_seq_lens_q"):
        assert theirs[key].tolist() == ours[key].tolist(), key
    model.set_attn_implementation("sdpa")
    loss = trl_loss(model, theirs).item()
    model.set_attn_implementation("codeact")
    assert loss == pytest.approx(our_loss(model, ours).item(), rel=1e-5)


def test_the_authors_rows_leak(store, model) -> None:
    # As published: the second example of a row sees the first, so its loss changes with it.
    step = Step([np.array([0, 1])], 192, 0)
    model.set_attn_implementation("sdpa")
    joined = stock_loss(model, padded_batch(store, step)).item()
    model.set_attn_implementation("codeact")
    apart = our_loss(model, our_batch(store, step)).item()
    assert abs(joined - apart) > 1e-4


def test_ways_take_turns_by_share_of_work(store, model, monkeypatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(
        "padding_run.train_step", lambda model, runner, batch, optimizer: order.append(runner)
    )
    fake = {
        name: SimpleNamespace(batch=lambda store, step: {}, attention="sdpa") for name in ("a", "b")
    }
    steps = {"a": [Step([], 0, 10)] * 2, "b": [Step([], 0, 5)] * 4}
    taken = time_in_turn(model, fake, steps, store)
    assert [next(k for k, v in fake.items() if v is runner) for runner in order] == list("babbab")
    assert {name: one.num_tokens for name, one in taken.items()} == {"a": 20, "b": 20}
    assert len(taken["b"].wall_seconds) == 4


def test_rounds_count_by_their_median() -> None:
    rounds = [{"a": Taken(9, [w, 1.0], [c, 2.0])} for w, c in ((5.0, 7.0), (1.0, 3.0), (2.0, 8.0))]
    merged = median_of_rounds(rounds)["a"]
    assert (merged.wall_seconds, merged.cpu_seconds) == ([2.0, 1.0], [7.0, 2.0])
    assert merged.tokens_per_second == 3.0


def test_a_step_trains_and_clears_gradients(store) -> None:
    model = random_model(SHAPES["tiny"], CPU)
    before = model.lm_head.weight.detach().clone()
    runner = runners(CPU, same_loss=False)["Dynamic Pack"]
    batch = runner.batch(store, Step([np.arange(6)], 0, 0))
    set_attention(model, runner)
    assert model.config._attn_implementation == "codeact"
    train_step(model, runner, batch, torch.optim.SGD(model.parameters(), lr=1.0))
    assert not torch.equal(before, model.lm_head.weight)
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize(("gib", "expected"), [(79, 32), (40, 15), (1, 1)])
def test_layers_go_with_memory(gib: int, expected: int) -> None:
    layers = layers_that_fit(SHAPES["6.7b"], 16384, gib * 2**30)
    assert abs(layers - expected) <= 2


def test_lengths_of_a_file_become_random_rows(tmp_path) -> None:
    np.save(tmp_path / "own.npy", np.array([5, 900, 0, 33]))
    source = choose_model("tiny", quick=True)
    options = {"capacity": 100, "max_rows": 10, "quick": False}
    store, words = choose_rows(str(tmp_path / "own.npy"), source, **options)
    assert sorted(np.diff(store.offsets).tolist()) == [5, 33, 100]
    assert words == "examples as long as own.npy's (25% cut to 100)"
    assert store.input_ids.max() < 1000


def test_rows_of_another_tokenizer_fit_random_weights(
    tmp_path, tiny_model_folder, monkeypatch
) -> None:
    monkeypatch.setattr("padding_models.demo_model", lambda: tiny_model_folder)
    monkeypatch.setitem(SHAPES["tiny"], "vocab_size", 50)  # fewer than the tokenizer has
    (tmp_path / "rows.jsonl").write_text('{"instruction": "add", "output": "a + b"}\n' * 3)
    source = choose_model("tiny", quick=True)
    store, words = choose_rows(
        str(tmp_path / "rows.jsonl"), source, capacity=512, max_rows=2, quick=False
    )
    assert len(store.offsets) == 3
    assert words == "examples of rows.jsonl"
    assert 0 <= store.input_ids.min() <= store.input_ids.max() < 50
    scored = store.labels != IGNORED
    assert scored.any()
    assert (store.labels[scored] == store.input_ids[scored]).all()


def test_a_budget_holds_the_longest_example() -> None:
    assert Layout.of(np.array([1, 1, 9], dtype=np.int32), 1, 9).budget == 9
    assert Layout.of(np.array([6, 6, 6], dtype=np.int32), 4, 9).budget == 24
