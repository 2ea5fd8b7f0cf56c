"""Every preset against a port of the code it comes from, with and without a BOS."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from published import PORTS, tshirt_row, tshirt_stats

from codeact.data import load_examples
from codeact.models import LoadedModel, noise_key, uniform_noise
from codeact.scoring import Scorer

ROWS = [
    {"instruction": "Add two numbers.", "output": "def add(a, b):\n    return a + b"},
    {"instruction": "Reverse it.", "input": "[1, 2]", "output": "x[::-1]"},
    {"instruction": "Long " * 7, "output": "pass\n" * 20},
    {"instruction": "é ü 漢字", "output": "print('漢字')"},
    {"instruction": "abab", "input": "ab", "output": "ab"},
]
EXAMPLES = load_examples(ROWS)
SEED, ALPHA = 3, 5.0


@pytest.mark.parametrize("preset", PORTS)
@pytest.mark.parametrize("max_length", [300, 70], ids=["whole", "truncated"])
def test_ifd(either: LoadedModel, plain: Any, preset: str, max_length: int) -> None:
    max_length += 160 * (preset == "cherry")  # its template alone is longer
    table = Scorer(either, preset=preset, max_length=max_length, token_budget=64).ifd(EXAMPLES)
    statuses = table["status"].to_pylist()
    assert ("truncated" in statuses) == (max_length < 300)
    # The cut may leave cherry's direct pass its prefix alone: the published mean of nothing.
    assert sum(status in ("ok", "truncated") for status in statuses) >= 3
    for row, found in zip(ROWS, table.to_pylist(), strict=True):
        if found["status"] in ("ok", "truncated"):
            expected = PORTS[preset](plain, either.tokenizer, row, max_length)
            assert found["nll_cond"] == pytest.approx(expected.nll_cond, abs=1e-5)
            assert found["nll_direct"] == pytest.approx(expected.nll_direct, abs=1e-5)
            assert found["ifd_ppl"] == pytest.approx(expected.ifd_ppl, abs=1e-4)
            assert found["ifd_loss"] == pytest.approx(expected.ifd_loss, abs=1e-4)


@pytest.mark.parametrize("max_length", [300, 60], ids=["whole", "truncated"])
@pytest.mark.parametrize("ratio", [0.5, 0.25])
def test_s_ifd_as_it_is(either: LoadedModel, plain: Any, max_length: int, ratio: float) -> None:
    table = Scorer(either, max_length=max_length).s_ifd(EXAMPLES, num_copies=0, ratio=ratio)
    nothing = [torch.zeros(1)]
    rows = [tshirt_row(plain, either.tokenizer, row, max_length, nothing, 0.0) for row in ROWS]
    compare(table, rows, ratio)
    plain_ifd = Scorer(either, preset="tshirt", max_length=max_length).ifd(EXAMPLES)["ifd_ppl"]
    np.testing.assert_allclose(table["ifd_ppl"], plain_ifd, atol=1e-6)


@pytest.mark.parametrize("num_copies", [1, 3])
def test_s_ifd_given_the_same_noise(tiny_model_folder: Any, plain: Any, num_copies: int) -> None:
    """Without a BOS only: with one the published code adds noise of another length and stops."""
    scorer = Scorer(tiny_model_folder)
    table = scorer.s_ifd(EXAMPLES, num_copies=num_copies, noise_alpha=ALPHA, seed=SEED)
    rows = []
    for example, row in zip(EXAMPLES, ROWS, strict=True):
        noise = [
            uniform_noise(noise_key(SEED, example.id, copy), 0, 512, 32)
            for copy in range(1, num_copies + 1)
        ]
        length = len(scorer.tokenizer(f"{example.instruction}\n{example.response}")["input_ids"])
        cut = [numbers[:length] for numbers in noise]
        rows.append(tshirt_row(plain, scorer.tokenizer, row, 1024, cut, ALPHA))
    compare(table, rows, 0.5)
    clean = scorer.s_ifd(EXAMPLES, num_copies=0)["ifd_noisy_mean"].to_numpy()
    assert np.abs(table["ifd_noisy_mean"].to_numpy() - clean).max() > 1e-3  # there was noise


def compare(table: Any, rows: list[Any], ratio: float) -> None:
    """To 1e-4, and where a ratio is in the hundreds to float32 of the loss."""
    assert table["s_ifd"].null_count == 0
    names = ("ifd_noisy_mean", "ifd_noisy_std", "s_ifd", "s_ifd_std")
    for name, expected in zip(names, zip(*tshirt_stats(rows, ratio), strict=True), strict=True):
        np.testing.assert_allclose(
            table[name].to_numpy(), expected, atol=1e-4, rtol=5e-6, err_msg=name
        )
