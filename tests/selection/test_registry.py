"""Every registered method on 300 rows: budgets, order of rows, seeds, reasons; and the registry."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from codeact import selection
from codeact.errors import InputError
from codeact.selection import METHODS, Budget, Candidates, Selector, TokenBudget, select_rows
from codeact.selection.candidates import is_column

NUM_ROWS = 300
# What draws rows, or a start that decides: the others keep the same rows whatever the seed.
SEEDED = {
    "random",
    "stratified-random",
    "length-matched-random",
    "cluster-prune",
    "kcenter",
    "parametric",
}
# Three hundred steps of gradient descent belong to the tests of the method itself.
OPTIONS: dict[str, dict[str, Any]] = {"parametric": {"num_steps": 5}}


def make_candidates() -> Candidates:
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(6, 16))
    embeddings = centres[np.arange(NUM_ROWS) % 6] + rng.normal(size=(NUM_ROWS, 16))
    response_tokens = rng.integers(20, 400, NUM_ROWS)
    names = {name for method in METHODS.values() for name in method.inputs if is_column(name)}
    columns = {
        name.removeprefix("column:"): rng.uniform(0.2, 1.1, NUM_ROWS).round(3)
        for name in sorted(names)
    }
    for place, name in enumerate(columns):
        columns[name][[place, 40]] = np.nan
    return Candidates(
        ids=[f"row-{row}" for row in range(NUM_ROWS)],
        columns=columns,
        embeddings=embeddings.astype(np.float32),
        queries=embeddings[:5].astype(np.float32) + 0.1,
        query_tasks=["a", "a", "b", "b", "b"],
        num_tokens=response_tokens + rng.integers(10, 100, NUM_ROWS),
        response_tokens=response_tokens,
        strata=rng.choice(["python", "rust", "go"], NUM_ROWS).tolist(),
        reference=rng.permutation(NUM_ROWS)[:90],
        weak_rmi=rng.uniform(0, 1, NUM_ROWS),
    )


def shuffled(candidates: Candidates, order: np.ndarray) -> Candidates:
    """The same rows listed in another order."""
    assert candidates.ids is not None
    assert candidates.embeddings is not None
    assert candidates.num_tokens is not None
    assert candidates.response_tokens is not None
    assert candidates.strata is not None
    assert candidates.weak_rmi is not None
    return Candidates(
        ids=[candidates.ids[row] for row in order],
        columns={name: column[order] for name, column in candidates.columns.items()},
        embeddings=candidates.embeddings[order],
        queries=candidates.queries,
        query_tasks=candidates.query_tasks,
        num_tokens=candidates.num_tokens[order],
        response_tokens=candidates.response_tokens[order],
        strata=[candidates.strata[row] for row in order],
        reference=np.argsort(order)[candidates.reference],
        weak_rmi=candidates.weak_rmi[order],
    )


def select(name: str, candidates: Candidates, budget: Budget, seed: int = 42) -> Selector:
    return select_rows(name, candidates, budget, seed=seed, **OPTIONS.get(name, {}))


@pytest.fixture(scope="module")
def candidates() -> Candidates:
    return make_candidates()


@pytest.fixture(scope="module")
def sixty(candidates: Candidates) -> dict[str, Selector]:
    """60 rows by every method, made when asked for."""

    class Made(dict[str, Selector]):
        def __missing__(self, name: str) -> Selector:
            self[name] = select(name, candidates, 60)
            return self[name]

    return Made()


every_method = pytest.mark.parametrize("name", METHODS)


@every_method
def test_count_ranks_and_reasons(name: str, sixty: dict[str, Selector]) -> None:
    selector = sixty[name]
    kept = selector.selected_
    assert kept.dtype == np.int64
    assert len(kept) == len(set(kept.tolist())) == 60
    assert selector.ranks_.shape == (NUM_ROWS,)
    assert selector.ranks_.dtype == np.int32
    assert len(selector.reasons_) == NUM_ROWS
    is_kept = np.isin(np.arange(NUM_ROWS), kept)
    for reason, keeps in zip(selector.reasons_, is_kept, strict=True):
        assert reason.startswith("kept: " if keeps else "dropped: ")
    report = selector.report_
    assert (report.num_examples, report.num_kept, report.num_asked) == (NUM_ROWS, 60, 60)
    assert 60 <= report.num_eligible <= NUM_ROWS


@every_method
def test_rows_without_a_score_are_never_kept(
    name: str, candidates: Candidates, sixty: dict[str, Selector]
) -> None:
    columns = [candidates.find(column) for column in METHODS[name].inputs if is_column(column)]
    for column in columns:
        missing = np.flatnonzero(np.isnan(column))
        assert not set(missing) & set(sixty[name].selected_.tolist())
        for row in missing:
            assert sixty[name].ranks_[row] == -1


@every_method
def test_share(name: str, candidates: Candidates) -> None:
    chosen = select(name, candidates, 0.25)
    assert len(chosen.selected_) == chosen.report_.num_kept == 75


@every_method
def test_tokens(name: str, candidates: Candidates) -> None:
    assert candidates.num_tokens is not None
    chosen = select(name, candidates, TokenBudget(12_000))
    used = int(candidates.num_tokens[chosen.selected_].sum())
    # Less stays free than the longest row needs, whatever the method holds for eligible.
    assert 12_000 - candidates.num_tokens.max() < used <= 12_000
    report = chosen.report_
    assert (report.tokens_kept, report.tokens_asked, report.num_asked) == (used, 12_000, None)


@every_method
def test_same_rows_in_any_order_and_again(
    name: str, candidates: Candidates, sixty: dict[str, Selector]
) -> None:
    order = np.random.default_rng(9).permutation(NUM_ROWS)
    other = select(name, shuffled(candidates, order), 60)
    assert set(order[other.selected_].tolist()) == set(sixty[name].selected_.tolist())
    again = select(name, candidates, 60)
    assert again.selected_.tolist() == sixty[name].selected_.tolist()


@pytest.mark.parametrize(
    "name", [name for name, method in METHODS.items() if "embeddings" in method.inputs]
)
def test_same_rows_in_any_order_without_ids(name: str, candidates: Candidates) -> None:
    """Then the embeddings name the rows."""
    order = np.random.default_rng(9).permutation(NUM_ROWS)
    one = select(name, replace(candidates, ids=None), 60)
    other = select(name, replace(shuffled(candidates, order), ids=None), 60)
    assert set(order[other.selected_].tolist()) == set(one.selected_.tolist())


# Not CDAS: its seed is that of the clusters, and whether that matters depends on the set.
@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"cdas"}))
def test_seed(name: str, candidates: Candidates, sixty: dict[str, Selector]) -> None:
    other = select(name, candidates, 60, seed=43)
    same = set(other.selected_.tolist()) == set(sixty[name].selected_.tolist())
    assert same == (name not in SEEDED)


@every_method
@pytest.mark.parametrize("budget", [NUM_ROWS + 1, 0, 1.5, TokenBudget(10**7), TokenBudget(0)])
def test_impossible_budgets(name: str, candidates: Candidates, budget: object) -> None:
    with pytest.raises(InputError, match="budget"):
        select(name, candidates, budget)  # type: ignore[arg-type]


@every_method
def test_whatever_is_missing_is_named_with_what_makes_it(name: str) -> None:
    with pytest.raises(InputError) as caught:
        select_rows(name, Candidates(), 60)
    assert str(caught.value).startswith(f"{name} needs ")
    for missing in METHODS[name].inputs:
        assert f"{missing.removeprefix('column:')} (" in str(caught.value)


@every_method
def test_options_are_the_constructors(name: str) -> None:
    method = METHODS[name]
    options = method.options()
    assert not {"budget", "seed", "device"} & options.keys()
    made = method.make(7, 3, device="cpu", **options)  # every default passes its own check
    assert type(made) is method.load()
    parameters = made.get_params()
    assert parameters["budget"] == 7
    assert parameters.get("seed", 3) == 3
    assert parameters.get("device", "cpu") == "cpu"
    assert method.summary
    assert "\n" not in method.summary


def test_clusters_stand_in_for_embeddings_of_cdas() -> None:
    labels = np.array([0, 0, 1, 1], dtype=np.int32)
    columns = {"ifd_ppl": np.array([0.5, 0.6, 0.7, 0.8])}
    chosen = select_rows("cdas", Candidates(columns=columns, clusters=labels), 2)
    assert chosen.selected_.tolist() == [1, 3]


def test_score_replaces_the_first_column(candidates: Candidates) -> None:
    columns = {"ifd_loss": np.array([0.9, 0.1, 0.5])}
    chosen = select_rows("ifd", Candidates(columns=columns), 1, score="ifd_loss")
    assert chosen.selected_.tolist() == [0]
    with pytest.raises(InputError, match="kcenter reads no column of scores"):
        select_rows("kcenter", candidates, 1, score="ifd_loss")
    with pytest.raises(InputError, match=r"needs column mine \(a scores table that has it\)"):
        select_rows("ifd", candidates, 1, score="mine")


def test_options_reach_the_method(candidates: Candidates) -> None:
    assert (
        select_rows("qaq", candidates, 60, rule="difference").get_params()["rule"] == "difference"
    )
    assert select_rows("qaq", candidates, 60, num_bins=np.int64(5)).get_params()["num_bins"] == 5
    assert select_rows("qaq", candidates, 60, band=[0.25, 0.5]).get_params()["band"] == (0.25, 0.5)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("cda", {}, "there is no method 'cda', do you mean 'cdas'?"),
        (
            "cdas",
            {"num_cluster": 3},
            "cdas has no option 'num_cluster', do you mean 'num_clusters'?",
        ),
        ("cdas", {"xyz": 3}, "cdas has no option 'xyz'; there are: num_clusters, exact_budget"),
        ("longest", {"k": 3}, "longest has no option 'k'; it has none"),
        (
            "cdas",
            {"num_clusters": "many"},
            "num_clusters of cdas must be a whole number or 'elbow' or 'silhouette', got 'many'",
        ),
        ("cdas", {"num_clusters": 2.5}, "must be a whole number"),
        ("cdas", {"num_clusters": True}, "must be a whole number"),
        ("cdas", {"exact_budget": 1}, "exact_budget of cdas must be true or false, got 1"),
        ("cdas", {"cap": float("nan")}, "cap of cdas must be a number or null, got nan"),
        ("ppl", {"keep": "most"}, "must be 'highest' or 'lowest' or 'middle', got 'most'"),
        ("qaq", {"band": [0.5]}, "band of qaq must be a list of 2: a number, a number"),
    ],
)
def test_refuses_options(method: str, options: dict, message: str, candidates: Candidates) -> None:
    with pytest.raises(InputError) as caught:
        select_rows(method, candidates, 60, **options)
    assert message in str(caught.value)


def test_every_name_of_the_package_is_there() -> None:
    for name in selection.__all__:
        assert getattr(selection, name) is not None
        assert name in dir(selection)
    with pytest.raises(AttributeError, match="no attribute 'CDSA'"):
        selection.CDSA  # noqa: B018


def test_candidates_of_different_sets() -> None:
    with pytest.raises(InputError, match="embeddings must have the 2 rows of ids, got 3"):
        Candidates(ids=["a", "b"], embeddings=np.zeros((3, 1), np.float32))
    with pytest.raises(InputError, match="clusters must have the 2 rows of column x, got 1"):
        Candidates(columns={"x": np.zeros(2)}, clusters=np.zeros(1, np.int32))


@pytest.mark.parametrize(
    ("names", "heavy"),
    [
        ("METHODS, Candidates, find_method, select_rows, TokenBudget, parse_budget", "sklearn"),
        ("*", "torch"),
    ],
)
def test_import_stays_light(names: str, heavy: str) -> None:
    code = (
        f"import sys\nfrom codeact.selection import {names}\n"
        f"heavy = {{{heavy!r}, 'torch', 'hdbscan', 'transformers'}} & sys.modules.keys()\n"
        "sys.exit(f'imports {heavy}' if heavy else 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
