"""DEITA against a plain port of its filter: row by row, all similarities anew."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from codeact.errors import InputError
from codeact.selection import TokenBudget
from codeact.selection import unlike_kept as filters
from codeact.selection.deita import Deita

Scores = NDArray[np.float64]


def clustered(num_rows: int, seed: int = 0) -> tuple[Scores, Scores, NDArray[np.float32]]:
    """Two score columns, and embeddings with many cosines on both sides of 0.9."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_rows // 5, 12))[rng.integers(num_rows // 5, size=num_rows)]
    points = centres + rng.uniform(0.1, 0.5, size=(num_rows, 1)) * rng.normal(size=(num_rows, 12))
    complexity, quality = rng.uniform(1, 6, size=(2, num_rows))
    return complexity, quality, points.astype(np.float32)


def published(scores: Scores, points: NDArray[np.float32], threshold: float) -> list[int]:
    """DEITA's IterativeFilter with its default batch size of 1, until the rows end."""
    unit = points.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    kept: list[int] = []
    for row in np.argsort(-scores):
        if not kept or (unit[kept] @ unit[row] <= threshold).all():
            kept.append(int(row))
    return kept


@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize("threshold", [0.5, 0.9, 1.0])
def test_keeps_the_rows_of_the_published_filter(
    threshold: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters, "_BLOCK", block)
    complexity, quality, points = clustered(400)
    expected = published(complexity * quality, points, threshold)
    count = len(expected) // 2
    found = Deita(count, threshold=threshold).fit(complexity, quality, points)
    assert found.selected_.tolist() == expected[:count]
    assert found.report_.num_refilled == 0
    found = Deita(len(expected), threshold=threshold).fit(complexity, quality, points)
    assert found.selected_.tolist() == expected


def test_refills_from_the_dropped_rows_in_their_order() -> None:
    complexity, quality, points = clustered(300)
    expected = published(complexity * quality, points, 0.9)
    order = np.argsort(-complexity * quality)
    dropped = [int(row) for row in order if row not in expected]
    found = Deita(len(expected) + 20).fit(complexity, quality, points)
    assert found.selected_.tolist() == expected + dropped[:20]
    assert found.report_.num_refilled == 20
    assert found.report_.num_alike == len(dropped)
    assert found.report_.num_not_reached == 0
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    row = dropped[0]
    before = expected[
        : sum(complexity[r] * quality[r] > complexity[row] * quality[row] for r in expected)
    ]
    cosine = float((unit[before] @ unit[row]).max())
    assert found.similarities_[row] == pytest.approx(cosine, abs=1e-6)
    assert f"though cosine {cosine:.4f} to a row kept before" in found.reasons_[row]
    assert found.reasons_[dropped[25]].endswith("above the threshold of 0.9")


def test_rows_without_a_score_are_not_kept_but_counted() -> None:
    complexity, quality, points = clustered(100)
    complexity[[3, 8]] = np.nan
    quality[[8, 11]] = np.nan
    found = Deita(1.0 - 0.03).fit(complexity, quality, points)
    assert sorted(set(range(100)) - set(found.selected_.tolist())) == [3, 8, 11]
    assert found.report_.num_no_score == 3
    assert found.report_.num_eligible == 97
    assert found.reasons_[8] == "dropped: no score"
    with pytest.raises(InputError, match=r"98 rows, but only 97 .* 3 rows lack a score"):
        Deita(98).fit(complexity, quality, points)


def test_stops_when_the_budget_is_met() -> None:
    complexity, quality, points = clustered(5000)
    found = Deita(10, threshold=1.0).fit(complexity, quality, points)
    assert found.selected_.tolist() == np.argsort(-complexity * quality)[:10].tolist()
    assert found.report_.num_not_reached == 4990
    assert found.reasons_[np.argmin(complexity * quality)].endswith("when the budget was full")


def test_a_token_budget_passes_over_rows_that_do_not_fit() -> None:
    complexity, quality, points = clustered(200)
    tokens = np.random.default_rng(3).integers(20, 200, size=200)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    left, expected, alike = 4000, list[int](), list[int]()
    for row in np.argsort(-complexity * quality).tolist():
        if tokens[row] <= left and not (unit[expected] @ unit[row] > 0.8).any():
            expected.append(row)
            left -= tokens[row]
        elif tokens[row] <= left:
            alike.append(row)
    for row in alike:
        if tokens[row] <= left:
            expected.append(row)
            left -= tokens[row]
    found = Deita(TokenBudget(4000), threshold=0.8)
    found.fit(complexity, quality, points, num_tokens=tokens)
    assert found.selected_.tolist() == expected
    assert found.report_.tokens_kept == 4000 - left


def test_refuses_bad_input() -> None:
    complexity, quality, points = clustered(20)
    with pytest.raises(InputError, match="threshold must be above -1 and at most 1"):
        Deita(2, threshold=1.5).fit(complexity, quality, points)
    with pytest.raises(InputError, match="quality must be 20 numbers"):
        Deita(2).fit(complexity, quality[:5], points)
    points[4] = 0
    with pytest.raises(InputError, match="no row of zeros"):
        Deita(2).fit(complexity, quality, points)
