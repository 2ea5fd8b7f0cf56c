"""CDAS on small inputs: the two budgets, ties, failed rows, order of rows, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from codeact.errors import InputError
from codeact.selection import CDAS, Clusters, TokenBudget


def authors_rule(ifd: list[float], labels: list[int], ratio: float) -> list[int]:
    """Per cluster: drop IFD >= 1, sort descending (stable), keep int(count * ratio)."""
    kept: list[int] = []
    for cluster in range(max(labels) + 1):
        rows = [row for row, label in enumerate(labels) if label == cluster and ifd[row] < 1.0]
        rows.sort(key=lambda row: ifd[row], reverse=True)
        kept.extend(rows[: int(len(rows) * ratio)])
    return kept


# A coarse grid of scores, so that ties, the cap and failed rows all come up.
SCORE = st.one_of(st.sampled_from([0.2, 0.5, 0.9, 1.0, 1.3, float("nan")]), st.floats(0, 2))
ROWS = st.lists(st.tuples(SCORE, st.integers(0, 4)), min_size=1, max_size=60)


@given(rows=ROWS, ratio=st.floats(0.01, 1.0))
def test_authors_rule(rows: list[tuple[float, int]], ratio: float) -> None:
    ifd, labels = [row[0] for row in rows], [row[1] for row in rows]
    if np.isnan(ifd).all():
        with pytest.raises(InputError, match="must hold at least one score"):
            CDAS(ratio, exact_budget=False).fit(None, ifd, clusters=labels)
        return
    ours = CDAS(ratio, exact_budget=False).fit(None, ifd, clusters=labels)
    assert ours.selected_.tolist() == authors_rule(ifd, labels, ratio)
    assert ours.report_.num_kept == len(ours.selected_)


@settings(max_examples=60)
@given(rows=ROWS, data=st.data())
def test_exact_budget(rows: list[tuple[float, int]], data: st.DataObject) -> None:
    ifd, labels = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    num_eligible = int((ifd < 1).sum())
    budget = data.draw(st.integers(1, len(rows)))
    if np.isnan(ifd).all():
        return
    if budget > num_eligible:
        with pytest.raises(InputError, match=f"but only {num_eligible} are eligible"):
            CDAS(budget).fit(None, ifd, clusters=labels)
        return
    ids = [f"row-{row}" for row in range(len(rows))]
    ours = CDAS(budget).fit(None, ifd, clusters=labels, ids=ids)
    kept = ours.selected_
    assert len(kept) == len(set(kept)) == budget
    assert (ifd[kept] < 1).all()
    for counts in ours.report_.clusters:
        in_cluster = kept[labels[kept] == counts.cluster]
        assert abs(counts.kept - budget * counts.eligible / num_eligible) < 1
        assert (np.diff(ifd[in_cluster]) <= 0).all()
        left = np.setdiff1d(np.flatnonzero((labels == counts.cluster) & (ifd < 1)), in_cluster)
        if len(left) and len(in_cluster):
            assert ifd[left].max() <= ifd[in_cluster].min()

    order = np.array(data.draw(st.permutations(range(len(rows)))))
    shuffled = CDAS(budget).fit(
        None, ifd[order], clusters=labels[order], ids=[ids[row] for row in order]
    )
    assert order[shuffled.selected_].tolist() == kept.tolist()


@settings(max_examples=60)
@given(rows=ROWS, data=st.data())
def test_token_budget(rows: list[tuple[float, int]], data: st.DataObject) -> None:
    ifd, labels = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    num_tokens = np.array(
        data.draw(st.lists(st.integers(1, 9), min_size=len(rows), max_size=len(rows)))
    )
    below = ifd < 1
    if not below.any():
        return
    shortest, available = int(num_tokens[below].min()), int(num_tokens[below].sum())
    budget = TokenBudget(data.draw(st.integers(shortest, available)))
    ours = CDAS(budget).fit(None, ifd, clusters=labels, num_tokens=num_tokens)
    kept = ours.selected_
    free = budget.tokens - int(num_tokens[kept].sum())
    assert below[kept].all()
    assert len(set(kept)) == len(kept)
    assert free >= 0
    left = np.setdiff1d(np.flatnonzero(below), kept)
    assert not len(left) or free < num_tokens[left].min()
    assert ours.report_.tokens_kept == budget.tokens - free
    assert ours.report_.tokens_asked == budget.tokens


def test_equal_quotas_keep_the_best_of_every_cluster() -> None:
    labels = np.repeat([0, 1, 2], [20, 6, 2])
    ifd = np.linspace(0.9, 0.1, 28)
    equal = CDAS(12, quotas="equal").fit(None, ifd, clusters=labels)
    # Two rows are all that cluster 2 has; the other ten are five and five.
    assert equal.selected_.tolist() == [0, 1, 2, 3, 4, 20, 21, 22, 23, 24, 26, 27]
    proportional = CDAS(14).fit(None, ifd, clusters=labels)
    assert [c.kept for c in proportional.report_.clusters] == [10, 3, 1]


def test_equal_remainders_go_by_the_next_row() -> None:
    # One and a half rows each: cluster 1 has the better second row, though not the better first.
    kept = CDAS(3).fit(None, [0.9, 0.5, 0.8, 0.7], clusters=[0, 0, 1, 1]).selected_
    assert kept.tolist() == [0, 2, 3]


def test_cap() -> None:
    ifd, labels = [0.2, 1.4, 0.8, 1.1], [0, 0, 1, 1]
    assert CDAS(2, cap=None).fit(None, ifd, clusters=labels).selected_.tolist() == [1, 3]
    lower = CDAS(1, cap=0.5).fit(None, ifd, clusters=labels)
    assert lower.selected_.tolist() == [0]
    assert lower.reasons_[2] == "dropped: IFD 0.8 is not below 0.5"
    assert lower.report_.num_clusters_without_eligible == 1


def test_clusters_without_a_row_below_the_cap_give_their_share_to_others() -> None:
    ifd, labels = [1.2, 1.3, 0.5, 0.4, 0.3, 0.2], [0, 0, 1, 1, 1, 1]
    report = CDAS(0.5).fit(None, ifd, clusters=labels).report_
    assert [(c.size, c.eligible, c.kept) for c in report.clusters] == [(2, 0, 0), (4, 4, 3)]
    assert report.num_clusters_without_eligible == 1


@pytest.mark.parametrize("named", ["ids", "embeddings"])
def test_kmeans_and_ties_do_not_follow_the_order_of_rows(named: str) -> None:
    rng = np.random.default_rng(5)
    embeddings = rng.normal(size=(120, 6)).astype(np.float32)
    ifd = rng.choice([0.2, 0.5, 0.7, 1.2], size=120)
    ids = np.array([f"row-{row}" for row in range(120)])
    order = rng.permutation(120)

    def fit(rows: np.ndarray) -> set[int]:
        names = ids[rows].tolist() if named == "ids" else None
        cdas = CDAS(0.3, num_clusters=7).fit(embeddings[rows], ifd[rows], ids=names)
        return set(rows[cdas.selected_].tolist())

    assert fit(np.arange(120)) == fit(order)


def test_exact_budget_does_not_depend_on_cluster_numbers() -> None:
    ifd, labels = np.array([0.3, 0.2, 0.7, 0.6]), np.array([0, 0, 1, 1])
    assert CDAS(1).fit(None, ifd, clusters=labels).selected_.tolist() == [2]
    assert CDAS(1).fit(None, ifd, clusters=1 - labels).selected_.tolist() == [2]


def test_ties_go_by_embedding_when_there_are_no_ids() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(40, 3)).astype(np.float32)
    ifd, labels = np.full(40, 0.5), np.arange(40) % 3
    order = rng.permutation(40)
    one = CDAS(15).fit(embeddings, ifd, clusters=labels)
    other = CDAS(15).fit(embeddings[order], ifd, clusters=labels[order])
    assert order[other.selected_].tolist() == one.selected_.tolist()


def test_ranks_reasons_and_counts() -> None:
    ifd = [0.5, 1.0, 0.9, None, 0.1, 0.7, 0.4]
    labels = [0, 0, 0, 0, 0, 1, -1]
    cdas = CDAS(0.5, exact_budget=False).fit(None, ifd, clusters=labels)
    assert cdas.selected_.tolist() == [2]
    assert cdas.ranks_.tolist() == [1, -1, 0, -1, 2, 0, -1]
    assert cdas.reasons_ == (
        "dropped: IFD place 2 of 3 in cluster 0, which keeps 1",
        "dropped: IFD 1 is not below 1, the prompt does not help",
        "kept: IFD place 1 of 3 in cluster 0, which keeps 1",
        "dropped: no IFD score",
        "dropped: IFD place 3 of 3 in cluster 0, which keeps 1",
        "dropped: IFD place 1 of 1 in cluster 1, which keeps 0",
        "dropped: in no cluster",
    )
    report = cdas.report_
    assert (report.num_examples, report.num_asked, report.num_kept) == (7, 4, 1)
    assert (report.num_eligible, report.num_ifd_too_high) == (4, 1)
    assert (report.num_no_score, report.num_noise) == (1, 1)
    first = report.clusters[0]
    assert (first.size, first.eligible, first.kept) == (5, 3, 1)
    assert (first.num_ifd_too_high, first.num_no_score) == (1, 1)


def test_an_empty_cluster_is_reported() -> None:
    clusters = Clusters(np.zeros(2, np.int32), np.zeros((3, 1), np.float32), np.zeros(2), 0.0)
    report = CDAS(1).fit(None, [0.1, 0.2], clusters=clusters).report_
    assert [counts.size for counts in report.clusters] == [2, 0, 0]


def test_scikit_learn_shape() -> None:
    cdas = clone(CDAS(budget=7, seed=1)).set_params(num_clusters=3)
    assert cdas.get_params() == {
        "budget": 7,
        "cap": 1.0,
        "device": "auto",
        "exact_budget": True,
        "num_clusters": 3,
        "quotas": "proportional",
        "seed": 1,
    }
    embeddings = np.random.default_rng(0).normal(size=(30, 4))
    assert cdas.fit(embeddings, np.linspace(0, 0.9, 30)) is cdas
    assert cdas.selected_.dtype == np.int64
    assert cdas.cluster_labels_.dtype == cdas.ranks_.dtype == np.int32
    assert len(cdas.selected_) == 7


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, {"ifd": []}, "ifd must hold at least one score"),
        ({}, {"ifd": [[0.1], [0.2]]}, "ifd must be one number an example"),
        ({}, {"ifd": [0.1, np.inf]}, "ifd must be finite or null, got 1 infinities"),
        ({}, {"ifd": [0.1, -0.2]}, "ifd must be 0 or more, got -0.2 in row 1"),
        ({}, {"ifd": ["x", "y"]}, "ifd must be one number or None an example"),
        ({}, {"clusters": [0, 1, 1]}, "clusters must be 2 integer labels"),
        ({}, {"clusters": [0.0, 1.0]}, "clusters must be 2 integer labels"),
        ({}, {"clusters": [0, -2]}, "clusters must be -1"),
        ({}, {"clusters": None}, "embeddings must be given"),
        ({}, {"ids": ["a"]}, "ids must match ifd, 2 rows, got 1"),
        ({}, {"embeddings": np.zeros((3, 1))}, "embeddings must match ifd, 2 rows, got 3"),
        ({"budget": 3}, {}, "budget must be a count from 1 to 2"),
        ({"budget": 1, "exact_budget": False}, {}, "budget must be a float share"),
        ({"budget": TokenBudget(5), "exact_budget": False}, {}, "budget must be a float share"),
        ({"budget": 1.5, "exact_budget": False}, {}, "budget must be a count from 1 to 2"),
        ({"exact_budget": False, "quotas": "sqrt"}, {}, "quotas must be proportional"),
        ({"quotas": "even"}, {}, "quotas must be proportional, sqrt or equal, got 'even'"),
        ({"cap": 0.0}, {}, "cap must be above 0 or None"),
        ({"budget": TokenBudget(5)}, {}, "a budget in tokens needs num_tokens"),
        (
            {"budget": 1.0},
            {"ifd": [1.5, None]},
            "asks for 2 rows, but only 0 are eligible, 2 too few: 1 have an IFD of 1 or more, "
            "1 have no score, 0 are in no cluster",
        ),
    ],
)
def test_refuses(options: dict, arguments: dict, message: str) -> None:
    given = {"embeddings": None, "ifd": [0.1, 0.2], "clusters": [0, 0], **arguments}
    with pytest.raises(InputError, match=message):
        CDAS(**options).fit(given.pop("embeddings"), given.pop("ifd"), **given)
