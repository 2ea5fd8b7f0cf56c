"""RMI, perplexity, S-IFD and vectors of the same passes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F

from codeact.data import load_examples
from codeact.errors import InputError
from codeact.models import LoadedModel, load_model
from codeact.scoring import S_IFD_SCHEMA, Scorer, s_ifd_table

ROWS = [
    {"instruction": "Add two numbers.", "output": "return a + b"},
    {"instruction": "Reverse x", "output": "x[::-1]"},
    {"instruction": "Nothing", "output": ""},
    {"instruction": "", "output": "abc"},
    {"instruction": "One", "output": "z"},
]
EXAMPLES = load_examples(ROWS)


@torch.no_grad()
def mean_nll(model: Any, ids: list[int], first: int) -> float:
    tokens = torch.tensor(ids)
    logits = model(input_ids=tokens[None], use_cache=False).logits[0, :-1]
    nlls = F.cross_entropy(logits, tokens[1:], reduction="none")
    return float(nlls[first - 1 :].double().mean())


def test_rmi_scores_equal_tokens_in_both_passes(either: LoadedModel, plain: Any) -> None:
    table = Scorer(either).rmi(EXAMPLES, token_nlls=True).to_pylist()
    statuses = ["ok", "ok", "empty_response", "empty_instruction", "ok"]
    assert [row["status"] for row in table] == statuses
    encode = lambda text: either.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    has_bos = bool(either.tokenizer("")["input_ids"])
    for row, found in zip(ROWS, table, strict=True):
        if found["status"] != "ok":
            assert found["rmi"] is None
            continue
        question = encode(row["instruction"])
        before = [1] * has_bos + encode(f"Answer:\n{row['output']}\n\nQuestion:\n")
        cond = mean_nll(plain, before + question, len(before))
        direct = mean_nll(plain, [1, *question], 1)  # behind the BOS, added or not
        assert found["nll_cond"] == pytest.approx(cond, abs=1e-5)
        assert found["nll_direct"] == pytest.approx(direct, abs=1e-5)
        assert found["rmi"] == pytest.approx(math.log(found["ppl_direct"] / found["ppl_cond"]))
        assert len(found["token_nll_cond"]) == len(question) == found["num_prompt_tokens"]
        assert found["num_response_tokens"] == len(before)


def test_perplexity(either: LoadedModel, plain: Any) -> None:
    table = Scorer(either).perplexity(EXAMPLES).to_pylist()
    # One answer token without a BOS has no IFD, but a perplexity.
    statuses = ["ok", "ok", "empty_response", "empty_instruction", "ok"]
    assert [row["status"] for row in table] == statuses
    for row, found in zip(ROWS, table, strict=True):
        if found["status"] != "ok":
            assert found["ppl_text"] is None
            continue
        prompt = f"Question:\n{row['instruction']}\n\nAnswer:\n"
        ids = either.tokenizer(prompt + row["output"])["input_ids"]
        first = len(either.tokenizer(prompt)["input_ids"])
        assert found["nll_response"] == pytest.approx(mean_nll(plain, ids, first), abs=1e-5)
        assert found["nll_text"] == pytest.approx(mean_nll(plain, ids, 1), abs=1e-5)
        assert found["ppl_response"] == pytest.approx(math.exp(found["nll_response"]))


def test_s_ifd_does_not_depend_on_order_or_packing(either: LoadedModel) -> None:
    options: dict[str, Any] = {"num_copies": 4, "seed": 1}
    once = Scorer(either).s_ifd(EXAMPLES, **options)
    turned = Scorer(either, token_budget=60).s_ifd(EXAMPLES.select([4, 3, 2, 1, 0]), **options)
    for name in S_IFD_SCHEMA.names[3:-1]:
        first, second = (pa.array(t[name]).to_numpy(zero_copy_only=False) for t in (once, turned))
        np.testing.assert_allclose(second[::-1], first, atol=1e-4, rtol=1e-5, err_msg=name)
    other = Scorer(either).s_ifd(EXAMPLES, num_copies=4, seed=2)
    assert abs(other["ifd_noisy_mean"][0].as_py() - once["ifd_noisy_mean"][0].as_py()) > 1e-4


def test_s_ifd_of_parts_is_that_of_the_whole(either: LoadedModel) -> None:
    scorer = Scorer(either)
    whole = scorer.s_ifd(EXAMPLES, num_copies=2)
    parts = [
        scorer.noisy_losses(EXAMPLES.select(rows), num_copies=2) for rows in ([0, 1], [2, 3, 4])
    ]
    joined = s_ifd_table(pa.concat_tables(parts))
    assert joined.schema == whole.schema == S_IFD_SCHEMA
    for name in ("ifd_ppl", "s_ifd", "s_ifd_std"):
        a, b = (table[name].to_numpy() for table in (joined, whole))
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)
    expected = (either.tokenizer("")["input_ids"] and "ok") or "nonfinite"
    assert whole["status"].to_pylist() == [
        "ok",
        "ok",
        "empty_response",
        "empty_instruction",
        expected,
    ]


def test_s_ifd_of_a_slice_knows_no_other_rows(either: LoadedModel) -> None:
    noisy = Scorer(either).noisy_losses(EXAMPLES, num_copies=2)
    for slice_ in (noisy.slice(1, 2), noisy.slice(0, 1), noisy.slice(3), noisy.slice(0, 0)):
        alone = pa.Table.from_pylist(slice_.to_pylist(), schema=slice_.schema)
        assert s_ifd_table(slice_) == s_ifd_table(alone)


def test_s_ifd_of_nothing(either: LoadedModel) -> None:
    for examples in (EXAMPLES.select([]), EXAMPLES.select([2])):
        table = Scorer(either).s_ifd(examples, num_copies=1)
        assert (table.schema, table.num_rows) == (S_IFD_SCHEMA, len(examples))
        assert table["s_ifd"].null_count == len(examples)


@pytest.mark.parametrize("pool", ["sequence", "prompt"])
def test_embeddings_of_the_same_pass(either: LoadedModel, plain: Any, pool: Any) -> None:
    scorer = Scorer(either, token_budget=64, max_length=40)
    rows = [*ROWS, {"instruction": "long " * 12, "output": "never seen"}]
    examples = load_examples(rows)
    table, vectors = scorer.ifd_and_embeddings(examples, pool=pool, token_nlls=True)
    expected_table = scorer.ifd(examples, token_nlls=True)
    assert table["status"].to_pylist()[-1] == "prompt_overflow"
    assert table["status"] == expected_table["status"]
    np.testing.assert_allclose(table["ifd_ppl"], expected_table["ifd_ppl"], atol=1e-5)
    nulls = [row is None for row in table["token_nll_cond"].to_pylist()]
    assert nulls == [row is None for row in expected_table["token_nll_cond"].to_pylist()]
    for row, vector in zip(rows, vectors, strict=True):
        prompt = f"Question:\n{row['instruction']}\n\nAnswer:\n"
        text = prompt + row["output"] * (pool == "sequence")
        ids = torch.tensor(either.tokenizer(text)["input_ids"][:40])
        with torch.no_grad():
            states = plain.get_decoder()(ids[None], use_cache=False).last_hidden_state[0]
        np.testing.assert_allclose(vector, states.mean(dim=0), atol=1e-5)


def test_nonfinite_states(tiny_model_folder: Path) -> None:
    """One bad token spoils its row in every table, and no other row of the pack."""
    broken = load_model(tiny_model_folder, device="cpu")
    scorer = Scorer(broken)
    examples = load_examples([*ROWS[:2], {"instruction": "A ~ B", "output": "return ~a"}])
    scorer.ifd(examples)  # the model passes its check
    (tilde,) = scorer.tokenizer("~")["input_ids"]
    with torch.no_grad():
        broken.model.model.embed_tokens.weight[tilde] = math.nan
    expected = ["ok", "ok", "nonfinite"]
    table, vectors = scorer.ifd_and_embeddings(examples)
    assert table["status"].to_pylist() == expected
    assert np.isnan(vectors).all(axis=1).tolist() == [False, False, True]
    assert not np.isnan(vectors[:2]).any()
    # NaN has no place in JSON, and a loss that is none no place in a table.
    losses = scorer.ifd(examples, token_nlls=True)["token_nll_cond"].to_pylist()
    assert [row is None for row in losses] == [False, False, True]
    assert scorer.rmi(examples)["status"].to_pylist() == expected
    assert scorer.perplexity(examples)["status"].to_pylist() == expected
    noisy = scorer.s_ifd(examples, num_copies=1)
    assert noisy["status"].to_pylist() == expected
    assert noisy["s_ifd"].null_count == 1


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("s_ifd", {"num_copies": -1}, "num_copies must be at least 0"),
        ("s_ifd", {"noise_alpha": math.inf}, "noise_alpha must be"),
        ("s_ifd", {"ratio": 0.0}, "ratio must be above 0"),
        ("ifd_and_embeddings", {"pool": "cls"}, "pool must be sequence, prompt or rds"),
    ],
)
def test_refused(either: LoadedModel, method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        getattr(Scorer(either), method)(EXAMPLES, **options)


@pytest.mark.parametrize("method", ["ifd", "perplexity"])
def test_a_reversed_preset_has_no_ifd(either: LoadedModel, method: str) -> None:
    with pytest.raises(InputError, match=f"preset 'qaq' has no {method}: call rmi"):
        getattr(Scorer(either, preset="qaq"), method)(EXAMPLES)
