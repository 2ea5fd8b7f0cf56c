"""What a run can give to a method, and what it refuses before it scores anything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from codeact.errors import InputError
from codeact.pipeline.recipe import Recipe
from codeact.pipeline.selection_inputs import (
    budget_of,
    candidates,
    check_method,
    score_override,
)
from codeact.selection import TokenBudget


def recipe(preset: str = "codeact", **select: Any) -> Recipe:
    return Recipe.model_validate({"score": {"preset": preset}, "select": select})


@pytest.mark.parametrize(
    ("preset", "method"),
    [
        ("codeact", "cdas"),
        ("cherry", "cdas"),
        ("tshirt", "cdas"),
        ("tshirt", "tshirt"),
        ("qaq", "qaq"),
        ("codeact", "ppl"),
        ("qaq", "kcenter"),
        ("codeact", "random"),
        ("codeact", "stratified-random"),
    ],
)
def test_a_method_that_the_run_can_feed(preset: str, method: str) -> None:
    check_method(recipe(preset, method=method))


@pytest.mark.parametrize(
    ("preset", "select", "message"),
    [
        ("codeact", {"method": "tshirt"}, r"needs s_ifd, .* set score\.preset = tshirt"),
        ("codeact", {"method": "qaq"}, r"needs rmi, .* set score\.preset = qaq"),
        ("qaq", {"method": "cdas"}, r"needs ifd_ppl, .* set score\.preset = codeact"),
        ("codeact", {"method": "rds+"}, r"needs queries, .*; set select\.queries"),
        ("codeact", {"method": "deita"}, r"needs complexity, quality, which a run"),
        ("codeact", {"method": "length-matched-random"}, r"needs reference, which a run"),
        ("qaq", {"method": "qaq", "options": {"rule": "difference"}}, r"needs the RMI of a weaker"),
        ("codeact", {"options": {"caps": 1.0}}, r"^select\.options: cdas has no option 'caps'"),
        ("codeact", {"options": {"cap": "high"}}, r"^select\.options: option cap of cdas must"),
    ],
)
def test_a_method_that_the_run_cannot_feed(
    preset: str, select: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_method(recipe(preset, **select))


def test_hidden_states_that_the_preset_cannot_give() -> None:
    def made(preset: str) -> Recipe:
        sections = {"score": {"preset": preset}, "embed": {"model": "scoring-model"}}
        return Recipe.model_validate({**sections, "select": {"method": "kcenter"}})

    for preset in ("codeact", "tshirt"):
        check_method(made(preset))
    with pytest.raises(InputError, match=r"embed\.model = scoring-model .+ score\.preset = qaq"):
        check_method(made("qaq"))


def test_the_score_of_the_preset_is_what_methods_of_ifd_rank_by() -> None:
    assert score_override(recipe("cherry")) == "ifd_loss"
    assert score_override(recipe("tshirt")) == "s_ifd"
    assert score_override(recipe("tshirt", method="tshirt")) is None
    assert score_override(recipe("codeact", method="kcenter")) is None


def test_budgets_in_rows_and_tokens() -> None:
    assert budget_of(recipe(budget=0.25)) == 0.25
    assert budget_of(recipe(budget="9000tokens")) == TokenBudget(9000)


def test_candidates_hold_what_the_tables_say() -> None:
    scores = pa.table(
        {
            "id": ["a", "b", "c"],
            "num_prompt_tokens": pa.array([5, 0, 7], pa.int32()),
            "num_response_tokens": pa.array([10, 0, 2], pa.int32()),
            "ppl_cond": [2.0, None, 3.0],
            "ifd_ppl": [0.5, None, 0.75],
        }
    )
    labels = np.array([0, 1, 0], dtype=np.int32)
    embeddings = np.eye(3, dtype=np.float32)
    found = candidates(recipe(), scores, embeddings, labels, None)
    assert found.ids == ["a", "b", "c"]
    np.testing.assert_array_equal(found.columns["ifd_ppl"], [0.5, np.nan, 0.75])
    np.testing.assert_array_equal(found.columns["ppl_response"], [2.0, np.nan, 3.0])
    np.testing.assert_array_equal(found.num_tokens, [15, 1, 9])  # a row of nothing still costs
    np.testing.assert_array_equal(found.response_tokens, [10, 0, 2])
    assert found.clusters is labels
    assert found.queries is None
    assert candidates(recipe(method="kcenter"), scores, embeddings, labels, None).clusters is None
