"""Influence of rows on validation tasks: against reverse mode, against training, against itself."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from influence_cases import POOL, TASKS
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor
from transformers import AutoModelForCausalLM

from codeact.data import Examples, load_examples
from codeact.errors import InputError
from codeact.models import LoadedModel, load_model
from codeact.scoring import Scorer
from codeact.scoring.influence.adam import warm_up
from codeact.scoring.influence.oracle import SgdStep, one_step_influence
from codeact.scoring.influence.validation import validation_tasks


@pytest.fixture(scope="module")
def pool() -> Examples:
    return load_examples(POOL)


@pytest.fixture(scope="module")
def tasks() -> dict[str, Examples]:
    return {name: load_examples(rows) for name, rows in TASKS.items()}


@pytest.fixture(scope="module")
def loaded(tiny_model_folder: Path) -> LoadedModel:
    return load_model(tiny_model_folder, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def scorer(loaded: LoadedModel) -> Scorer:
    return Scorer(loaded)


def mean_gradient(loaded: LoadedModel, text: str, answer: str) -> dict[str, Tensor]:
    """Of the mean loss of an answer, by transformers alone: logits, labels, backward."""
    model, tokenizer = loaded
    before, ids = (tokenizer(t, return_tensors="pt")["input_ids"] for t in (text, text + answer))
    labels = ids.clone()
    labels[:, : before.shape[1]] = -100
    model.zero_grad()
    model.set_attn_implementation("eager")
    model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
    model.set_attn_implementation("codeact")
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def dot(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return sum(float((a[name].double() * b[name].double()).sum()) for name in a)


@pytest.fixture(scope="module")
def expected(
    loaded: LoadedModel, pool: Examples, tasks: dict[str, Examples]
) -> NDArray[np.float64]:
    """(rows with an answer, tasks) inner products of gradients, one backward pass each."""

    def prompt(instruction: str) -> str:
        return f"Question:\n{instruction}\n\nAnswer:\n"

    directions = []
    for examples in tasks.values():
        parts = [mean_gradient(loaded, prompt(e.instruction), e.response) for e in examples]
        directions.append({n: torch.stack([p[n] for p in parts]).mean(dim=0) for n in parts[0]})
    rows = [mean_gradient(loaded, prompt(e.instruction), e.response) for e in pool if e.response]
    return np.array([[dot(row, direction) for direction in directions] for row in rows])


def columns(table: pa.Table, names: list[str]) -> NDArray[np.float64]:
    return np.stack([table[f"influence_{name}"].to_numpy() for name in names], axis=1)


@pytest.mark.parametrize(
    ("derivative", "tolerance"), [("forward", 1e-4), ("ghost", 1e-4), ("difference", 2e-2)]
)
def test_equals_inner_products_of_gradients(
    derivative: str,
    tolerance: float,
    scorer: Scorer,
    pool: Examples,
    tasks: dict[str, Examples],
    expected: NDArray[np.float64],
) -> None:
    table = scorer.influence(pool, tasks, derivative=derivative)
    found = columns(table, list(tasks))
    assert table["status"].to_pylist() == ["ok"] * 8 + ["empty_response"]
    assert np.isnan(found[8]).all()
    np.testing.assert_allclose(found[:8], expected, atol=tolerance * np.abs(expected).max())
    np.testing.assert_allclose(
        table["influence"].to_numpy()[:8], found[:8].mean(axis=1), rtol=1e-12
    )


def test_losses_come_along(scorer: Scorer, pool: Examples, tasks: dict[str, Examples]) -> None:
    plain = scorer.perplexity(pool)
    for derivative in ("forward", "ghost", "difference"):
        table = scorer.influence(pool, {"sums": tasks["sums"]}, derivative=derivative)
        assert table["nll_response"].to_pylist()[:8] == pytest.approx(
            plain["nll_response"].to_pylist()[:8], rel=1e-5
        )


def test_token_values_sum_to_the_row(
    scorer: Scorer, pool: Examples, tasks: dict[str, Examples]
) -> None:
    table = scorer.influence(pool, tasks, derivative="forward", token_influence=True)
    of_rows, of_tokens = table["influence"].to_pylist(), table["token_influence"].to_pylist()
    counts = table["num_response_tokens"].to_pylist()
    for value, tokens, count in zip(of_rows[:8], of_tokens[:8], counts, strict=False):
        assert len(tokens) == count
        assert sum(tokens) == pytest.approx(value, abs=1e-5 * np.abs(tokens).sum())
    assert of_tokens[8] is None
    unasked = scorer.influence(pool, tasks, token_influence=True)  # three tasks: else ghost
    assert unasked["token_influence"].equals(table["token_influence"])
    with pytest.raises(InputError, match="derivative = forward, got ghost"):
        scorer.influence(pool, tasks, derivative="ghost", token_influence=True)


def test_ranks_as_training_on_each_row_does(
    scorer: Scorer, pool: Examples, tasks: dict[str, Examples]
) -> None:
    """The published score: take one step on a row, see how far the validation loss falls."""
    two = {name: tasks[name] for name in ("sums", "words")}
    found = columns(scorer.influence(pool, two), list(two))[:8]
    prepared = validation_tasks(two, scorer.tokenizer, scorer.preset, scorer.max_length)
    rows = validation_tasks({"pool": pool}, scorer.tokenizer, scorer.preset, scorer.max_length)
    exact = one_step_influence(
        scorer.model, rows[0].sequences, {t.name: t.sequences for t in prepared}, SgdStep(1e-4)
    )
    for k in range(2):
        assert spearmanr(found[:, k], exact[:, k]).statistic >= 0.99
        np.testing.assert_allclose(
            exact[:, k] / 1e-4, found[:, k], rtol=0.1, atol=0.02 * np.abs(found).max()
        )


def test_preconditioned_by_adam(scorer: Scorer, pool: Examples, tasks: dict[str, Examples]) -> None:
    model = scorer.model
    names = [name for name, _ in model.named_parameters()]
    prepared = validation_tasks({"pool": pool}, scorer.tokenizer, scorer.preset, scorer.max_length)
    state = warm_up(model, prepared[0].sequences, names, num_batches=3, batch_tokens=120, seed=0)
    one = {"sums": tasks["sums"]}
    found = scorer.influence(pool, one, optimizer=state)["influence"].to_numpy()[:8]
    directions = scorer.influence_probe(one)._directions[0]
    moved = state.precondition({n: v.float().clone() for n, v in directions.items()})
    scale = scorer.influence_probe(one)._lengths[0]
    for row, example in enumerate(e for e in pool if e.response):
        text = f"Question:\n{example.instruction}\n\nAnswer:\n"
        gradient = mean_gradient(LoadedModel(model, scorer.tokenizer), text, example.response)
        assert found[row] == pytest.approx(scale * dot(gradient, moved), rel=2e-3)


@pytest.mark.parametrize(("num_tasks", "derivative"), [(1, "forward"), (2, "ghost"), (3, "ghost")])
def test_auto_takes_what_costs_less(
    num_tasks: int, derivative: str, scorer: Scorer, tasks: dict[str, Examples]
) -> None:
    probe = scorer.influence_probe(dict(list(tasks.items())[:num_tasks]))
    assert probe.derivative == derivative
    assert len(probe.canaries) == num_tasks
    assert all(canary.error < 0.02 for canary in probe.canaries.values())
    assert probe.rows([]) == []


def test_float64(scorer: Scorer, pool: Examples, tasks: dict[str, Examples]) -> None:
    one = {"sums": tasks["sums"]}
    single = scorer.influence(pool, one)["influence"].to_numpy()[:8]
    wide = Scorer(LoadedModel(copy.deepcopy(scorer.model).double(), scorer.tokenizer))
    double = wide.influence(pool, one)["influence"].to_numpy()[:8]
    np.testing.assert_allclose(single, double, atol=1e-5 * np.abs(double).max())


def test_one_token_answers_have_an_influence(scorer: Scorer, tasks: dict[str, Examples]) -> None:
    """Without a BOS they have no IFD, but a loss given the prompt."""
    rows = load_examples([{"instruction": "Is 2 even?", "response": "y"}])
    table = scorer.influence(rows, {"short": load_examples(TASKS["words"][:1])})
    assert table["status"].to_pylist() == ["ok"]
    assert table["num_response_tokens"].to_pylist() == [1]
    assert np.isfinite(table["influence"].to_numpy()).all()
    with_itself = scorer.influence(rows, {"short": rows}, allow_overlap=True)
    question = "Question:\nIs 2 even?\n\nAnswer:\n"
    loaded = LoadedModel(scorer.model, scorer.tokenizer)
    gradient = mean_gradient(loaded, question, "y")
    assert with_itself["influence"].to_pylist() == pytest.approx(
        [dot(gradient, gradient)], rel=1e-4
    )


def test_a_repeated_prompt_carries_no_loss(scorer: Scorer) -> None:
    """HumanEval's answer is the whole function: its head is given, its body is scored."""
    head, body = "def add(a, b):\n", "    return a + b\n"
    whole = load_examples([{"instruction": head, "response": head + body}])
    (task,) = validation_tasks({"t": whole}, scorer.tokenizer, scorer.preset, 512)
    labels = task.sequences[0].labels
    scored = scorer.tokenizer.decode(labels[labels >= 0])
    assert scored == body
    assert task.weights.tolist() == [1 / (labels >= 0).sum()]


def test_planted_rows_come_out_on_top(loaded: LoadedModel) -> None:
    """One row in ten is like the task's problems; which ones they are is all that is shuffled."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    config = copy.deepcopy(loaded.model.config)
    config.initializer_range = 0.02  # as training begins: that of the fixture is for other tests
    fresh = AutoModelForCausalLM.from_config(config, attn_implementation="codeact").eval()
    scorer = Scorer(LoadedModel(fresh, loaded.tokenizer))

    def made_of(symbols: str, num_rows: int, name: str) -> list[dict[str, str]]:
        words = ["".join(rng.choice(list(symbols), 12)) for _ in range(num_rows)]
        return [
            {"id": f"{name}{i}", "instruction": f"Write {name} number {i}.", "response": word}
            for i, word in enumerate(words)
        ]

    pool = load_examples([*made_of("01234567", 10, "digits"), *made_of("abcdefghijk", 90, "text")])
    task = load_examples(made_of("01234567", 6, "goal"))
    found = scorer.influence(pool, {"digits": task})["influence"].to_numpy()
    planted = np.arange(100) < 10
    top = np.argsort(-found)[:10]
    assert planted[top].mean() >= 0.8
    shuffled = [rng.permutation(planted)[top].mean() for _ in range(200)]
    assert np.mean(shuffled) == pytest.approx(0.1, abs=0.03)


@pytest.mark.gpu
def test_on_gpu(
    tiny_model_folder: Path,
    pool: Examples,
    tasks: dict[str, Examples],
    expected: NDArray[np.float64],
) -> None:
    """bfloat16 against reverse mode in float32."""
    scorer = Scorer(load_model(tiny_model_folder, device="cuda", dtype="bfloat16"))
    for derivative in ("forward", "ghost"):
        found = columns(scorer.influence(pool, tasks, derivative=derivative), list(tasks))[:8]
        for k in range(len(tasks)):
            assert spearmanr(found[:, k], expected[:, k]).statistic >= 0.97
