"""Influence over checkpoints: one table against means written out row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codeact.errors import InputError
from codeact.scoring.influence.history import InfluenceHistory

IDS = [f"row-{row}" for row in range(6)]
TASKS = ("he", "mbpp")


def make_table(seed: int, *, failed: dict[int, str] | None = None, **changes: Any) -> pa.Table:
    """An influence table as a pass gives it; ``failed`` rows are null under that status."""
    failed = failed or {}
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(6, 2))
    losses = rng.uniform(0.5, 2, 6)
    tokens: list[Any] = [rng.normal(size=3).astype(np.float32) for _ in range(6)]
    statuses = ["ok"] * 6
    for row, status in failed.items():
        statuses[row] = status
        if status != "truncated":
            values[row], losses[row], tokens[row] = np.nan, np.nan, None
    columns: dict[str, Any] = {
        "id": IDS,
        "num_prompt_tokens": pa.array([4] * 6, pa.int32()),
        "num_response_tokens": pa.array([3] * 6, pa.int32()),
        "nll_response": pa.array(losses, from_pandas=True),
        "ppl_response": pa.array(np.exp(losses), from_pandas=True),
        "influence": pa.array(values.mean(axis=1), from_pandas=True),
        "influence_he": pa.array(values[:, 0], from_pandas=True),
        "influence_mbpp": pa.array(values[:, 1], from_pandas=True),
        "status": statuses,
        "token_influence": pa.array(tokens, pa.list_(pa.float32())),
    }
    columns = {**columns, **changes}
    return pa.table({name: values for name, values in columns.items() if values is not None})


def test_one_table_holds_the_weighted_means() -> None:
    tables = {
        "c1": make_table(1, failed={2: "empty_response", 4: "truncated"}),
        "c2": make_table(2, failed={2: "empty_response", 4: "truncated", 5: "nonfinite"}),
        "c3": make_table(3, failed={2: "empty_response", 4: "truncated"}),
    }
    rates = [3e-5, 2e-5, 0.0]  # the last rate of a linear decay
    combined = InfluenceHistory.of_tables(tables, rates).combined()
    assert combined.column_names == [
        *("id", "num_prompt_tokens", "num_response_tokens", "nll_response", "ppl_response"),
        *("influence", "influence_he", "influence_mbpp"),
        *(f"influence_{task}@{name}" for name in tables for task in TASKS),
        *("status", "token_influence"),
    ]
    assert combined["status"].to_pylist() == [
        *("ok", "ok", "empty_response", "ok", "truncated", "nonfinite")
    ]
    rows = {name: table.to_pylist() for name, table in tables.items()}
    for place, got in enumerate(combined.to_pylist()):
        ones = [rows[name][place] for name in tables]
        for task in TASKS:
            for name, one in zip(tables, ones, strict=True):
                assert got[f"influence_{task}@{name}"] == one[f"influence_{task}"]
        if place in (2, 5):
            for column in ("influence", "influence_he", "nll_response", "token_influence"):
                assert got[column] is None
            continue
        by_task = [0.6 * ones[0][f"influence_{t}"] + 0.4 * ones[1][f"influence_{t}"] for t in TASKS]
        assert [got[f"influence_{t}"] for t in TASKS] == pytest.approx(by_task, rel=1e-12)
        assert got["influence"] == pytest.approx(sum(by_task) / 2, rel=1e-12)
        loss = 0.6 * ones[0]["nll_response"] + 0.4 * ones[1]["nll_response"]
        assert got["nll_response"] == pytest.approx(loss, rel=1e-12)
        assert got["ppl_response"] == pytest.approx(np.exp(loss), rel=1e-12)
        tokens = 0.6 * np.array(ones[0]["token_influence"]) + 0.4 * np.array(
            ones[1]["token_influence"]
        )
        assert got["token_influence"] == pytest.approx(tokens, rel=1e-6)


def test_without_weights_all_checkpoints_count_alike() -> None:
    tables = {"c1": make_table(1), "c2": make_table(2)}
    history = InfluenceHistory.of_tables(tables)
    both = [table["influence_mbpp"].to_numpy() for table in tables.values()]
    np.testing.assert_allclose(history.mean()[:, 1], (both[0] + both[1]) / 2, rtol=1e-15)


def test_one_checkpoint_is_its_own_table() -> None:
    table = make_table(7, failed={1: "nonfinite"})
    history = InfluenceHistory.of_tables({"only": table}, [1e-5])
    assert history.combined().equals(table)
    alone = InfluenceHistory.of_table(table)
    assert alone.checkpoints == ("",)
    assert alone.tasks == TASKS
    assert alone.combined().equals(table)


def test_reading_back_gives_the_same_history(tmp_path: Path) -> None:
    """Names of checkpoints may hold an @; weights survive Parquet."""
    tables = {"run@1": make_table(1, failed={0: "nonfinite"}), "run@2": make_table(2)}
    history = InfluenceHistory.of_tables(tables, [1e-5, 3e-5])
    pq.write_table(history.combined(), tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    again = InfluenceHistory.of_table(table)
    assert (again.ids, again.checkpoints, again.tasks) == (tuple(IDS), tuple(tables), TASKS)
    np.testing.assert_array_equal(again.values, history.values)
    np.testing.assert_array_equal(again.weights, [1e-5, 3e-5])
    assert again.combined().equals(history.combined())
    plain = InfluenceHistory.of_table(table.replace_schema_metadata(None))
    np.testing.assert_array_equal(plain.weights, [1, 1])


def test_words_beside_influence_are_no_task() -> None:
    table = make_table(1, influence_source=["measured"] * 6)
    history = InfluenceHistory.of_table(table)
    assert history.tasks == TASKS
    assert history.combined()["influence_source"].to_pylist() == ["measured"] * 6


def test_a_source_of_nulls_is_no_task_in_jsonl() -> None:
    rows = [{"id": "a", "influence_x": None, "influence_source": None, "status": "empty"}]
    assert InfluenceHistory.of_table(pa.Table.from_pylist(rows)).tasks == ("x",)


def test_token_values_of_other_lengths_have_no_mean() -> None:
    short = make_table(2, token_influence=pa.array([[1.0]] * 6, pa.list_(pa.float32())))
    combined = InfluenceHistory.of_tables({"a": make_table(1), "b": short}).combined()
    assert combined["token_influence"].null_count == 6
    without = make_table(2, token_influence=None)
    combined = InfluenceHistory.of_tables({"a": make_table(1), "b": without}).combined()
    assert "token_influence" not in combined.column_names


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"id": IDS[::-1]}, "same rows .+ 'c1' and 'c2': 'row-0' and 'row-5' at 0"),
        ({"influence_mbpp": None}, "same tasks .+ 'c1' and 'c2': 2 and 1"),
        ({"id": None}, "the influence table of 'c2' must have a column id"),
        (
            {"influence_mbpp": None, "influence_he": None},
            "table of 'c2' must have a column influence_<task>, got id, num_prompt_tokens",
        ),
    ],
)
def test_tables_that_do_not_belong_together(second: dict[str, Any], words: str) -> None:
    tables = {"c1": make_table(1), "c2": make_table(2, **second)}
    with pytest.raises(InputError, match=words):
        InfluenceHistory.of_tables(tables)


def test_a_shorter_table_is_named() -> None:
    with pytest.raises(InputError, match=r"same rows .+ 'c1' and 'c2': 6 and 5"):
        InfluenceHistory.of_tables({"c1": make_table(1), "c2": make_table(2)[:5]})
    with pytest.raises(InputError, match="at least one checkpoint, got none"):
        InfluenceHistory.of_tables({})


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0], r"one number a checkpoint \(2\), got \(1,\)"),
        ([1.0, -1.0], r"not negative and not all 0, got \[1.0, -1.0\]"),
        ([0.0, 0.0], "not all 0"),
        ([1.0, float("nan")], "finite"),
    ],
)
def test_weights_that_give_no_mean(weights: list[float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        InfluenceHistory.of_tables({"a": make_table(1), "b": make_table(2)}, weights)


def test_a_missing_pair_of_task_and_checkpoint() -> None:
    combined = InfluenceHistory.of_tables({"a": make_table(1), "b": make_table(2)}).combined()
    with pytest.raises(InputError, match="every task at every checkpoint, lacks influence_he@b"):
        InfluenceHistory.of_table(combined.drop_columns(["influence_he@b"]))
