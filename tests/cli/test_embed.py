"""``codeact embed``: by an encoder, or by the hidden states of a causal language model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from codeact.data import load_examples
from codeact.models import load_model
from codeact.scoring import Embedder, Scorer

EMBED = "embed {rows} --model {model} --output {out}/x.npy"


@pytest.mark.parametrize("text", ["response", "both"])
def test_a_part_of_each_row(codeact: Callable[[str], Any], places: Any, text: Any) -> None:
    done = codeact(f"{EMBED} --text {text} --max-length 20")
    assert (done.status, done.out, done.err) == (0, "", "")
    embedder = Embedder(places.model, text=text, device="cpu", max_length=20)
    expected = embedder.embed(load_examples(places.rows))
    np.testing.assert_array_equal(np.load(places.out / "x.npy"), expected)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("--pool mean", {"pool": "mean"}),
        ("--pool rds --text instruction", {"pool": "rds", "text": "instruction"}),
        ("--pool rds --token-budget 100 --dtype float32", {"pool": "rds"}),
    ],
)
def test_hidden_states(
    codeact: Callable[[str], Any], places: Any, words: str, options: Any
) -> None:
    done = codeact(f"{EMBED} {words} --preset superfiltering --max-length 50")
    assert (done.status, done.out, done.err) == (0, "", "")
    model = load_model(places.model, device="cpu")
    scorer = Scorer(model, preset="superfiltering", max_length=50)
    expected = scorer.embed(load_examples(places.rows), **options)
    np.testing.assert_allclose(np.load(places.out / "x.npy"), expected, atol=1e-5)


def test_queries_need_no_answer(codeact: Callable[[str], Any], places: Any) -> None:
    """A file of a benchmark's prompts alone is embedded as prompts."""
    prompts = ["def f(x):\n    # twice x\n", "Write a sort."]
    (places.out / "queries.jsonl").write_text(
        "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
    )
    line = "embed {out}/queries.jsonl --model {model} --pool rds --output {out}/q.npy"
    assert codeact(line).status == 0
    rows = load_examples([{"instruction": prompt, "output": ""} for prompt in prompts])
    scorer = Scorer(load_model(places.model, device="cpu"))
    expected = scorer.embed(rows, pool="rds", text="instruction")
    np.testing.assert_allclose(np.load(places.out / "q.npy"), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--text code", r"--text must be instruction or response or both, got 'code'"),
        ("--pool cls", r"--pool must be mean or rds, got 'cls'"),
        ("--max-length 1", r"--max-length must be at least 2, got 1"),
        ("--dtype float32", r"--dtype needs --pool"),
        ("--preset codeact", r"--preset needs --pool"),
        ("--token-budget 9", r"--token-budget needs --pool"),
        ("--pool rds --batch-size 9", r"--batch-size has no effect with --pool"),
        ("--pool rds --token-budget 0", r"--token-budget must be at least 1, got 0"),
        ("--pool rds --preset no", r"preset must be .+, got 'no'"),
        ("--pool rds --preset qaq", r"preset 'qaq' has no embed"),
        ("--pool rds --max-length 513", r"max_length = 513 is above the model's 512 positions"),
    ],
)
def test_refused(options: str, message: str, refused: Callable[[str, str], None]) -> None:
    refused(f"{EMBED} {options}", message)


def test_hidden_states_need_a_model(refused: Callable[[str, str], None]) -> None:
    refused("embed {rows} --output {out}/x.npy --pool rds", "--pool needs --model, a causal")


def test_answers_that_are_not_there(refused: Callable[[str, str], None], places: Any) -> None:
    (places.out / "prompts.jsonl").write_text('{"prompt": "add"}\n')
    line = "embed {out}/prompts.jsonl --model {model} --text response --output {out}/q.npy"
    refused(line, "no known columns.+ got prompt")
    refused(line + " --column response=answer", "no column 'answer'")
