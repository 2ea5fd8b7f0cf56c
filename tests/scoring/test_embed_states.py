"""Vectors of hidden states are those of each row alone, by the published rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from codeact.data import load_examples
from codeact.errors import InputError
from codeact.models import LoadedModel, ScoredSequence, stream_losses
from codeact.ops.varlen import IGNORE_INDEX
from codeact.scoring import Scorer

ROWS: list[dict[str, Any]] = [
    {"instruction": "Add a and b.", "output": "return a + b"},
    {"instruction": "Sort the list in place.", "output": "xs.sort()"},
    {"instruction": "Say nothing.", "output": ""},
    {"instruction": "long " * 12, "output": "never seen"},
    {
        "messages": [
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "1"},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "content": "2, I think"},
        ]
    },
]
EXAMPLES = load_examples(ROWS[:4])


def prompt_of(row: dict[str, Any]) -> str:
    return f"Question:\n{row['instruction']}\n\nAnswer:\n"


TEXTS = {
    "both": [prompt_of(row) + row["output"] for row in ROWS[:4]],
    "instruction": [prompt_of(row) for row in ROWS[:4]],
    "response": [row["output"] for row in ROWS[:4]],
}


def published(model: Any, ids: list[int], pool: str) -> Any:
    """``weighted_mean`` and ``mean`` of the script of arXiv:2503.01807, at its batch size of 1."""
    with torch.no_grad():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1].double()
    if pool == "mean":
        return states.mean(dim=1)[0]
    weights = torch.arange(states.shape[1])[None] + 1
    weights = weights / weights.sum(dim=1, keepdim=True)
    return (states * weights[:, :, None]).sum(dim=1)[0]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("pool", ["mean", "rds"])
@pytest.mark.parametrize("token_budget", [None, 64])
def test_equals_the_script(
    either: LoadedModel, plain: Any, pool: Any, text: Any, token_budget: int | None
) -> None:
    scorer = Scorer(either, max_length=40, token_budget=token_budget)
    vectors = scorer.embed(EXAMPLES, pool=pool, text=text)
    assert vectors.dtype == np.float32
    for vector, row in zip(vectors, TEXTS[text], strict=True):
        if ids := either.tokenizer(row)["input_ids"][:40]:
            np.testing.assert_allclose(vector, published(plain, ids, pool), atol=1e-5)
        else:
            assert np.isnan(vector).all()


def test_padding_would_count_in_the_script(plain: Any) -> None:
    """Why packed rows are weighed by themselves: the rule at batch size 2 is another one."""
    ids = [5, 6, 7, 8]
    alone = published(plain, ids, "rds")
    assert not torch.allclose(published(plain, [*ids, 0, 0, 0], "rds"), alone, atol=1e-2)


@pytest.mark.parametrize(("pool", "scored_pool"), [("mean", "sequence"), ("rds", "rds")])
def test_the_passes_that_score_give_the_same(
    either: LoadedModel, pool: Any, scored_pool: Any
) -> None:
    scorer = Scorer(either, max_length=40)
    table, vectors = scorer.ifd_and_embeddings(EXAMPLES, pool=scored_pool)
    np.testing.assert_allclose(scorer.embed(EXAMPLES, pool=pool), vectors, atol=1e-5)
    assert table["status"].to_pylist() == [
        "truncated",
        "prompt_overflow",
        "empty_response",
        "prompt_overflow",
    ]
    np.testing.assert_allclose(table["ifd_ppl"], scorer.ifd(EXAMPLES)["ifd_ppl"], atol=1e-5)


def test_conversations(either: LoadedModel, plain: Any) -> None:
    examples = load_examples(ROWS[4:])
    scorer = Scorer(either)
    text = "Question:\nOne?\n\nAnswer:\n1\n\nQuestion:\nTwo?\n\nAnswer:\n2, I think"
    for words, found in (
        (text, scorer.embed(examples, pool="rds")),
        ("2, I think", scorer.embed(examples, pool="rds", text="response")),
    ):
        ids = either.tokenizer(words)["input_ids"]
        np.testing.assert_allclose(found[0], published(plain, ids, "rds"), atol=1e-5)


def test_averages_of_either_kind_share_a_pack(either: LoadedModel, plain: Any) -> None:
    """A mean beside a weighted one is the mean to the bit; parts of a sequence can be averaged."""
    ids = [np.arange(5, 5 + length, dtype=np.int32) for length in (9, 6, 8, 7)]
    nothing = [np.full_like(tokens, IGNORE_INDEX) for tokens in ids]
    pack = [
        ScoredSequence(ids[0], nothing[0], 9),
        ScoredSequence(ids[1], nothing[1], 4, weigh_by_position=True),
        ScoredSequence(ids[2], nothing[2], weigh_by_position=True),
        ScoredSequence(ids[3], ids[3], 7, weigh_by_position=True),
    ]
    (together,) = stream_losses(either.model, [pack], token_budget=64)
    found = {number: loss.pooled for number, loss in together}
    np.testing.assert_allclose(found[0], published(plain, ids[0].tolist(), "mean"), atol=1e-5)
    np.testing.assert_allclose(found[1], published(plain, ids[1][:4].tolist(), "rds"), atol=1e-5)
    assert found[2] is None
    np.testing.assert_allclose(found[3], published(plain, ids[3].tolist(), "rds"), atol=1e-5)
    without = [sequence._replace(weigh_by_position=False) for sequence in pack]
    (means,) = stream_losses(either.model, [without], token_budget=64)
    np.testing.assert_array_equal(dict(means)[0].pooled, found[0])


def test_progress_reaches_the_end(either: LoadedModel) -> None:
    seen: list[tuple[int, int]] = []
    for text in ("both", "response"):
        Scorer(either).embed(
            EXAMPLES, text=text, on_progress=lambda done, total: seen.append((done, total))
        )
        assert seen.pop() == (4, 4)


@pytest.mark.parametrize(
    ("preset", "options", "message"),
    [
        ("codeact", {"pool": "sequence"}, "pool must be mean or rds, got 'sequence'"),
        ("codeact", {"text": "all"}, "text must be instruction, response or both, got 'all'"),
        ("qaq", {}, "preset 'qaq' has no embed: call rmi"),
    ],
)
def test_refused(either: LoadedModel, preset: str, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Scorer(either, preset=preset).embed(EXAMPLES, **options)
