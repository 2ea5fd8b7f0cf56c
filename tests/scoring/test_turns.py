"""Conversations: every assistant turn counts, once, with all that was said before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from codeact.data import load_examples
from codeact.errors import InputError
from codeact.models import LoadedModel
from codeact.scoring import Scorer

TALK = [("system", "Be brief."), ("user", "Add."), ("assistant", "a + b"), ("user", "And less?"),
        ("assistant", "a - b - 1"), ("user", "Thanks")]  # fmt: skip


def conversation(turns: list[tuple[str, str]]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@torch.no_grad()
def nlls(model: Any, tokenizer: Any, text: str, begin: int, end: int) -> torch.Tensor:
    """Losses of the tokens that stand between two characters (a character is a token here)."""
    first, last = (len(tokenizer(text[:place])["input_ids"]) for place in (begin, end))
    ids = torch.tensor(tokenizer(text)["input_ids"])
    logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
    return F.cross_entropy(logits, ids[1:], reduction="none")[max(first, 1) - 1 : last - 1]


def test_turns_are_pooled_over_tokens(either: LoadedModel, plain: Any) -> None:
    text = (
        "Question:\nBe brief.\nAdd.\n\nAnswer:\na + b\n\nQuestion:\nAnd less?\n\nAnswer:\na - b - 1"
    )
    cond, direct = [], []
    for answer in ("a + b", "a - b - 1"):
        begin = text.index(answer)
        cond.append(nlls(plain, either.tokenizer, text, begin, begin + len(answer)))
        direct.append(nlls(plain, either.tokenizer, answer, 0, len(answer)))
    (row,) = Scorer(either).ifd(load_examples([conversation(TALK)]), token_nlls=True).to_pylist()
    np.testing.assert_allclose(row["token_nll_cond"], torch.cat(cond), atol=1e-5)
    assert row["nll_cond"] == pytest.approx(float(torch.cat(cond).mean()), abs=1e-5)
    assert row["nll_direct"] == pytest.approx(float(torch.cat(direct).mean()), abs=1e-5)
    assert row["num_response_tokens"] == 14
    num_tokens = len(either.tokenizer(text)["input_ids"])
    assert row["num_prompt_tokens"] == num_tokens - 14


def test_a_cut_leaves_out_later_turns(either: LoadedModel) -> None:
    """As if the conversation had ended there, but for the status."""
    first = TALK[:3]
    (whole,) = Scorer(either).ifd(load_examples([conversation(first)])).to_pylist()
    max_length = whole["num_prompt_tokens"] + whole["num_response_tokens"] + 3
    (cut,) = (
        Scorer(either, max_length=max_length).ifd(load_examples([conversation(TALK)])).to_pylist()
    )
    assert cut["status"] == "truncated"
    assert cut["ifd_ppl"] == pytest.approx(whole["ifd_ppl"], abs=1e-5)


@pytest.mark.parametrize("preset", ["codeact", "cherry"])
def test_last_is_the_published_pair(either: LoadedModel, preset: str) -> None:
    pair = {"instruction": "Be brief.\nAdd.\nAnd less?", "output": "a - b - 1"}
    scorer = Scorer(either, preset=preset, turns="last")
    talk, flat = (
        scorer.ifd(load_examples([row])).to_pylist()[0] for row in (conversation(TALK), pair)
    )
    assert {**talk, "id": ""} == {**flat, "id": ""}
    pooled = Scorer(either, preset=preset).ifd(load_examples([conversation(TALK)]))
    assert pooled["num_response_tokens"].to_pylist() == [14]


def test_one_turn_is_the_same_in_both(either: LoadedModel) -> None:
    examples = load_examples([conversation(TALK[:3])])
    both = [Scorer(either, turns=turns).ifd(examples) for turns in ("all", "last")]
    assert both[0] == both[1]


def test_silent_turns(either: LoadedModel) -> None:
    talks = [
        [("user", "Add."), ("assistant", ""), ("user", "Add!"), ("assistant", "a + b")],
        [("user", "Add."), ("assistant", ""), ("user", "Add!"), ("assistant", "")],
        [("assistant", "Hello there"), ("assistant", "Well?")],
        [("assistant", "Hello there"), ("user", "Add."), ("assistant", "a + b")],
    ]
    table = Scorer(either).ifd(load_examples([conversation(talk) for talk in talks]))
    assert table["status"].to_pylist() == ["ok", "empty_response", "empty_instruction", "ok"]
    assert table["num_response_tokens"].to_pylist() == [5, 0, 16, 16]


def test_s_ifd_pairs_the_tokens_of_every_turn(either: LoadedModel, plain: Any) -> None:
    text = "Be brief.\nAdd.\na + b\nAnd less?\na - b - 1"
    adds_bos = len(either.tokenizer("")["input_ids"])
    expected = []
    for answer in ("a + b", "a - b - 1"):
        begin = text.index(answer)
        cond = nlls(plain, either.tokenizer, text, begin, begin + len(answer))
        direct = nlls(plain, either.tokenizer, answer, 0, len(answer))
        expected.append(cond[1 - adds_bos :] - direct)
    noisy = Scorer(either).noisy_losses(load_examples([conversation(TALK)]), num_copies=0)
    (deltas,) = noisy["token_deltas"].to_pylist()[0]
    np.testing.assert_allclose(deltas, torch.cat(expected), atol=2e-5)


def test_refused(either: LoadedModel) -> None:
    with pytest.raises(InputError, match="turns must be all or last, got 'first'"):
        Scorer(either, turns="first")  # type: ignore[arg-type]
