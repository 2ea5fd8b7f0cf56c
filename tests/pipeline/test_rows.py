"""Rows of a run mean the same in every stage, whichever of them comes first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codeact.data import Examples, load_examples
from codeact.errors import InputError
from codeact.pipeline.rows import read_examples, write_examples

# In the first row "instruction" is recognised; a later one also has columns that come before it.
ROWS: list[dict[str, Any]] = [
    {"id": "0", "instruction": "add", "output": "a + b"},
    {"id": "1", "instruction": "sub", "output": "a - b", "messages": None, "note": [1, {"x": 2}]},
    {"id": "2", "instruction": "mul", "input": "of two", "output": "a * b"},
    {
        "id": "3", "instruction": "div", "output": "a / b", "response": "no answer",
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}],
    },
    {"id": "4", "instruction": "\ud800", "output": "\u2028 is no line end", "date": None},
]  # fmt: skip


def same(found: Examples, expected: Examples) -> bool:
    pairs = zip(found, expected, strict=True)
    return all(a == b and a.response == b.response for a, b in pairs)


@pytest.mark.parametrize("seed", range(8))
def test_optional_columns_do_not_change_what_a_row_says(tmp_path: Path, seed: int) -> None:
    examples = load_examples(ROWS)
    shuffled = examples.select(np.random.default_rng(seed).permutation(len(ROWS)))
    write_examples(tmp_path / "pool.jsonl", shuffled)
    pool = read_examples(tmp_path / "pool.jsonl")
    assert same(pool, shuffled)
    assert pool.content_hash() == shuffled.content_hash()
    assert load_examples(tmp_path / "pool.jsonl").content_hash() == shuffled.content_hash()


@pytest.mark.parametrize("seed", range(3))
def test_columns_the_user_named(tmp_path: Path, seed: int) -> None:
    """The optional column is in one row only, so that a selection may be without it."""
    rows = [{"q": "a", "a": "1"}, {"q": "b", "a": "2", "more": "x"}, {"q": "c", "a": "3"}]
    columns = {"instruction": "q", "response": "a", "input": "more"}
    examples = load_examples(rows, columns=columns)
    order = np.random.default_rng(seed).permutation(3)
    chosen = examples.select([row for row in order if row != 1])
    write_examples(tmp_path / "examples.jsonl", chosen)
    assert same(read_examples(tmp_path / "examples.jsonl"), chosen)


def test_a_subset_has_the_columns_that_came(tmp_path: Path) -> None:
    write_examples(tmp_path / "examples.jsonl", load_examples(ROWS))
    examples = read_examples(tmp_path / "examples.jsonl")
    examples.select([3, 1]).write_jsonl(tmp_path / "subset.jsonl")
    load_examples(ROWS).select([3, 1]).write_jsonl(tmp_path / "direct.jsonl")
    assert (tmp_path / "subset.jsonl").read_bytes() == (tmp_path / "direct.jsonl").read_bytes()
    assert [dict(example.fields) for example in examples] == ROWS


def test_only_the_ids_asked_for(tmp_path: Path) -> None:
    write_examples(tmp_path / "examples.jsonl", load_examples(ROWS))
    assert read_examples(tmp_path / "examples.jsonl", {"2", "none"}).ids == ("2",)


@pytest.mark.parametrize("row", ['{"id": "x"}', '{"id": "x", "messages": [1], "fields": {}}'])
def test_a_row_of_something_else_is_named(tmp_path: Path, row: str) -> None:
    (tmp_path / "pool.jsonl").write_text(row + "\n")
    with pytest.raises(InputError, match=r"pool\.jsonl row 1 must hold id, messages and fields"):
        read_examples(tmp_path / "pool.jsonl")
