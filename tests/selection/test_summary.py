"""Counts of selections by group, and what they share: against counting by hand."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from codeact.errors import InputError
from codeact.selection.summary import (
    count_by_group,
    decile_bands,
    expected_jaccard,
    jaccard,
)


def test_counts_are_those_of_a_counter() -> None:
    rng = np.random.default_rng(0)
    groups = rng.choice(["python", "go", "c++", "rust"], 500, p=[0.6, 0.2, 0.15, 0.05]).tolist()
    selections = {"a": rng.permutation(500)[:120], "b": rng.permutation(500)[:7]}
    found = count_by_group(groups, selections)
    sizes = Counter(groups)
    assert found.groups == ("python", "go", "c++", "rust")  # by falling size
    assert dict(zip(found.groups, found.sizes.tolist(), strict=True)) == sizes
    for name, rows in selections.items():
        kept = Counter(groups[row] for row in rows)
        assert found.kept[name].tolist() == [kept[group] for group in found.groups]
        shares = [kept[group] / sizes[group] for group in found.groups]
        np.testing.assert_allclose(found.shares(name), shares)


def test_named_groups_come_first_and_equal_ones_by_name() -> None:
    found = count_by_group(list("bbccda"), {"x": [0, 5]}, order=["d", "nobody"])
    assert found.groups == ("d", "b", "c", "a")
    assert found.kept["x"].tolist() == [0, 1, 0, 1]


def test_bands_are_tenths_in_order() -> None:
    rng = np.random.default_rng(1)
    values = rng.permutation(1000).astype(float)
    bands = decile_bands(values, whole=True)
    assert bands.order[:2] == ("0 to 99", "100 to 199")
    assert len(bands.order) == 10
    for value, label in zip(values, bands.labels, strict=True):
        low, high = (int(end) for end in label.split(" to "))
        assert low <= value <= high
        assert high - low == 99


def test_bands_of_scores_hold_rows_without_one_apart() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=300)
    values[::7] = np.nan
    bands = decile_bands(values, missing="no score")
    assert bands.order[-1] == "no score"
    assert [label == "no score" for label in bands.labels] == np.isnan(values).tolist()
    sizes = Counter(bands.labels)
    assert all(
        abs(sizes[name] - sizes.total() * (1 - 43 / 300) / 10) <= 1 for name in bands.order[:-1]
    )
    # Bands do not overlap: the ends rise from band to band.
    means = [np.mean(values[np.array(bands.labels) == name]) for name in bands.order[:-1]]
    assert means == sorted(means)
    assert all(re.fullmatch(r"−?[\d.e-]+ to −?[\d.e-]+", name) for name in bands.order[:-1])


def test_equal_values_share_a_band() -> None:
    bands = decile_bands([5] * 90 + [7] * 10, whole=True)
    assert bands.order == ("5", "7")
    assert Counter(bands.labels) == {"5": 90, "7": 10}
    assert decile_bands([np.nan, np.nan], missing="none").order == ("none",)


def test_bands_close_together_keep_names_of_their_own() -> None:
    values = 0.123 + np.arange(100) * 1e-6
    bands = decile_bands(values)
    assert len(set(bands.order)) == len(bands.order) == 10


def test_jaccard_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    selections = {
        name: rng.permutation(200)[:size] for name, size in (("a", 50), ("b", 80), ("c", 1))
    }
    masks = np.zeros((3, 200), dtype=bool)
    for mask, rows in zip(masks, selections.values(), strict=True):
        mask[rows] = True
    expected = [[jaccard_score(a, b) for b in masks] for a in masks]
    np.testing.assert_allclose(jaccard(selections, 200), expected)
    with pytest.raises(InputError, match=r"selections\['d'\] must hold at least one row"):
        jaccard({**selections, "d": []}, 200)


def test_expected_jaccard_is_the_mean_of_many_draws() -> None:
    rng = np.random.default_rng(4)
    draws = []
    for _ in range(400):
        a, b = rng.permutation(2000)[:600], rng.permutation(2000)[:900]
        draws.append(jaccard({"a": a, "b": b}, 2000)[0, 1])
    assert expected_jaccard(600, 900, 2000) == pytest.approx(np.mean(draws), rel=0.005)
