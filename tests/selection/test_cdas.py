"""CDAS on small inputs: the two budgets, ties, failed rows, order of rows, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from codeact.errors import InputError
from codeact.selection import CDAS, Clusters


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
    ours = CDAS(ratio, exact_budget=False).fit(None, ifd, clusters=labels)
    assert ours.selected_.tolist() == authors_rule(ifd, labels, ratio)
    assert ours.report_.num_kept == len(ours.selected_)


@settings(max_examples=60)
@given(rows=ROWS, data=st.data())
def test_exact_budget(rows: list[tuple[float, int]], data: st.DataObject) -> None:
    ifd, labels = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    num_eligible = int((ifd < 1).sum())
    budget = data.draw(st.integers(1, len(rows)))
    if budget > num_eligible:
        with pytest.raises(InputError, match=f"but only {num_eligible} can be kept"):
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
        "exact_budget": True,
        "num_clusters": 3,
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
        ({}, {"ifd": []}, "ifd must be one number an example"),
        ({}, {"ifd": [0.1, -0.2]}, "ifd must be 0 or more, got -0.2 in row 1"),
        ({}, {"ifd": ["x", "y"]}, "ifd must be numbers"),
        ({}, {"clusters": [0, 1, 1]}, "clusters must be 2 integer labels"),
        ({}, {"clusters": [0.0, 1.0]}, "clusters must be 2 integer labels"),
        ({}, {"clusters": [0, -2]}, "clusters must be -1"),
        ({}, {"clusters": None}, "embeddings must be given"),
        ({}, {"ids": ["a"]}, "ids must match ifd, 2 rows, got 1"),
        ({}, {"embeddings": np.zeros((3, 1))}, "embeddings must match ifd, 2 rows, got 3"),
        ({"budget": 3}, {}, "budget must be a count from 1 to 2"),
        ({"budget": 1, "exact_budget": False}, {}, "budget must be a float share"),
        (
            {"budget": 1.0},
            {"ifd": [1.5, None]},
            "asks for 2 of 2 examples but only 0 can be kept: 1 have an IFD of 1 or more, "
            "1 have no score, 0 are in no cluster",
        ),
    ],
)
def test_refuses(options: dict, arguments: dict, message: str) -> None:
    given = {"embeddings": None, "ifd": [0.1, 0.2], "clusters": [0, 0], **arguments}
    with pytest.raises(InputError, match=message):
        CDAS(**options).fit(given.pop("embeddings"), given.pop("ifd"), **given)
