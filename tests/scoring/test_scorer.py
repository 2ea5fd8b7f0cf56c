"""Rows that cannot be scored keep their place; order and packing change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codeact.data import load_examples
from codeact.errors import InputError
from codeact.models import LoadedModel, load_model
from codeact.scoring import Scorer, ifd_preset
from codeact.scoring.spans import ifd_spans


@pytest.fixture(scope="module")
def loaded(tiny_model_folder: Path) -> LoadedModel:
    return load_model(tiny_model_folder, device="cpu")


ROWS = [
    {"instruction": "Add two numbers.", "output": "def add(a, b):\n    return a + b"},
    {"instruction": "Reverse it.", "input": "[1, 2]", "output": "x[::-1]"},
    {"instruction": "Long " * 7, "output": "pass\n" * 20},
    {"instruction": "é ü 漢字", "output": "print('漢字')"},
    {"instruction": "One token", "output": "ab"},
]


def test_statuses(loaded: LoadedModel) -> None:
    rows = [
        {"instruction": "a", "output": "bc"},
        {"instruction": "a", "output": ""},
        {"instruction": "", "output": "bc"},
        {"instruction": "a" * 60, "output": "bc"},
        {"instruction": "a", "output": "b"},  # one token, and this tokenizer adds no BOS
        {"instruction": "a", "output": "b" * 60},
    ]
    table = Scorer(loaded, max_length=40).ifd(load_examples(rows))
    assert table["status"].to_pylist() == [
        "ok", "empty_response", "empty_instruction", "prompt_overflow", "nonfinite", "truncated",
    ]  # fmt: skip
    scored = [value is not None for value in table["ifd_ppl"].to_pylist()]
    assert scored == [True, False, False, False, False, True]
    assert table["num_response_tokens"].to_pylist()[0] == 2
    assert table["num_prompt_tokens"].to_pylist()[3] == 40


def test_an_answer_that_melts_into_its_prompt() -> None:
    """There is no token of it to score, and yet the prompt did not overflow."""

    def tokenizer(texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [list(text.replace("\n\n", "\v").encode()) for text in texts]}

    examples = load_examples([{"instruction": "a", "output": out} for out in ("\n", "b\n")])
    for max_length, expected in ((99, ["nonfinite", "ok"]), (4, ["prompt_overflow"] * 2)):
        spans = ifd_spans(examples, tokenizer, ifd_preset("codeact"), max_length)  # type: ignore[arg-type]
        assert [span.status for span in spans] == expected


def test_nan_model_gives_status_not_zero(tiny_model_folder: Path) -> None:
    import torch

    broken = load_model(tiny_model_folder, device="cpu")
    scorer = Scorer(broken)
    table = scorer.ifd(load_examples(ROWS[:1]))
    assert table["status"].to_pylist() == ["ok"]
    with torch.no_grad():
        broken.model.model.norm.weight.fill_(float("nan"))
    table = scorer.ifd(load_examples(ROWS[:2]))
    assert table["status"].to_pylist() == ["nonfinite", "nonfinite"]
    assert table["ifd_ppl"].null_count == 2


def test_token_nlls_average_to_the_score(loaded: LoadedModel) -> None:
    rows = [*ROWS, {"instruction": "x", "output": ""}]
    table = Scorer(loaded).ifd(load_examples(rows), token_nlls=True)
    for row in table.to_pylist()[:-1]:
        assert len(row["token_nll_cond"]) == row["num_response_tokens"]
        assert np.mean(row["token_nll_cond"]) == pytest.approx(row["nll_cond"], abs=1e-5)
    assert table["token_nll_cond"].to_pylist()[-1] is None


def test_order_and_budget_change_nothing(loaded: LoadedModel) -> None:
    examples = load_examples(ROWS)
    once = Scorer(loaded).ifd(examples)["ifd_ppl"].to_numpy()
    other = Scorer(loaded, token_budget=50).ifd(examples.select([4, 3, 2, 1, 0]))["ifd_ppl"]
    np.testing.assert_allclose(other.to_numpy()[::-1], once, atol=1e-5)


def test_progress_reaches_the_total(loaded: LoadedModel) -> None:
    seen: list[tuple[int, int]] = []
    Scorer(loaded, token_budget=50).ifd(
        load_examples(ROWS), on_progress=lambda done, total: seen.append((done, total))
    )
    assert len(seen) > 1
    assert seen[-1][0] == seen[-1][1]


def test_empty_selection_of_rows(loaded: LoadedModel) -> None:
    assert Scorer(loaded).ifd(load_examples(ROWS).select([])).num_rows == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "alpaca"}, "preset must be one of"),
        ({"max_length": 1}, "max_length must be at least 2"),
        ({"max_length": 4096}, "above the model's 512 positions"),
        ({"token_budget": 0}, "token_budget must be at least 1"),
    ],
)
def test_refused(loaded: LoadedModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Scorer(loaded, **options)
